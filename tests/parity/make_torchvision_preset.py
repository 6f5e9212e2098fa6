"""What torchvision's own preset makes of preprocess/images: resize to 32, the middle 28 x 28, ImageNet's mean and std.
Writes preprocess/torchvision/. Needs torch, torchvision, Pillow and safetensors: python tests/parity/make_torchvision_preset.py"""
import json, pathlib
import torch, torchvision
from PIL import Image
from safetensors.torch import save_file
from torchvision.transforms import InterpolationMode
from torchvision.transforms._presets import ImageClassification

here = pathlib.Path(__file__).parent / "preprocess"
folder = here / "torchvision"
folder.mkdir(exist_ok=True)
settings = {"resize_size": 32, "crop_size": 28, "interpolation": "bicubic", "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
preset = ImageClassification(crop_size=28, resize_size=32, interpolation=InterpolationMode.BICUBIC)
assert preset.mean == settings["mean"] and preset.std == settings["std"]
pixels = {file.name: preset(Image.open(file).convert("RGB")) for file in sorted((here / "images").iterdir())}
save_file({name: values.contiguous() for name, values in pixels.items()}, folder / "pixel_values.safetensors")
(folder / "transform.json").write_text(json.dumps(settings, indent=2) + "\n")
(folder / "meta.json").write_text(json.dumps({"reference": f"torchvision {torchvision.__version__}, transforms._presets.ImageClassification"}, indent=2) + "\n")
