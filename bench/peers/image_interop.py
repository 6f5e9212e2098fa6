#!/usr/bin/env python3
"""What graft trained on images and saved, transformers and timm load, with the same logits on random pixels.

usage: image_interop.py GRAFT [MODEL ...]      exit 1 when a logit differs by more than 1e-5 of the largest, 77 without the libraries

Without MODEL the tiny models of tests/parity go through `graft finetune` on made-up images, and ViT of transformers and of
timm and DINOv2 through `graft adapt` (masked autoencoding; the result is a ViTMAEForPreTraining, and in timm and DINOv2 a model
without classes). Bare files load strictly into torchvision's and timm's classes, in the names that they came with.
"""
import json
import pathlib
import random
import shutil
import struct
import subprocess
import sys
import tempfile
import warnings
import zlib

try:
    import timm
    import torch
    import torchvision
    import transformers
    from safetensors.torch import load_file, save_file
except ImportError as missing:
    print(f"skipped: {missing}; make interop installs what is compared with")
    sys.exit(77)

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()
warnings.filterwarnings("ignore")
graft = pathlib.Path(sys.argv[1]).resolve()
parity = pathlib.Path(__file__).resolve().parent.parent.parent / "tests/parity"
scratch = pathlib.Path(tempfile.mkdtemp(prefix="graft-interop-"))
FINETUNED = ["vit-hf-classifier", "vit-mae-pretraining", "rad-dino-classifier", "swin-classifier", "resnet-hf-basic", "resnet-hf-bottleneck",
             "efficientnet-hf-classifier", "vit-timm-token", "vit-timm-avg", "swin-timm", "resnet-timm-basic", "resnet-timm-bottleneck",
             "efficientnet-timm-b0", "efficientnet-timm-tf-b0", "dinov2-swiglu", "vit-timm-registers", "vit-timm-gap-registers",
             "vit-timm-swiglu", "resnet-timm-d", "resnext-timm", "efficientnet-torchvision", "vit-torchvision", "swin-torchvision", "swin-authors", "vit-mae-authors"]
ADAPTED = ["vit-hf-classifier", "vit-mae-pretraining", "vit-timm-token", "rad-dino-model"]
SIDES = {"swin-authors": 16}  # its code takes one size only
SHORT = ["finetune.head.epochs=1", "finetune.head.min_epochs=1", "finetune.head.learning_rates=[1e-2]", "finetune.head.weight_decays=[0.01]",
         "finetune.head.verdict=false", "finetune.unfreeze.max_units=1", "finetune.unfreeze.epochs=1", "finetune.full.when=always",
         "finetune.full.epochs=1", "train.batch_size=8", "train.threads=1", "adapt.epochs=1", "adapt.head_epochs=0", "adapt.batch_size=8",
         "adapt.held_out_fraction=0.3", "adapt.images.decoder_width=16", "adapt.images.decoder_heads=2", "adapt.images.decoder_layers=1"]


def png(path, side, draw):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    rows = b"".join(b"\0" + draw.randbytes(3 * side) for _ in range(side))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)) +
                     chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))


def made_up_images():
    draw = random.Random(1)
    for split, count in ("train", 12), ("validation", 6), ("test", 4):
        for i in range(count):
            png(scratch / "data" / split / "ab"[i % 2] / f"{i}.png", 40, draw)


def config_of(folder):
    file = folder / "config.json"
    return json.loads((file if file.exists() else folder / "graft.json").read_text())


def side_of(config):
    return config["pretrained_cfg"]["input_size"][-1] if "architecture" in config else config.get("image_size", 32 if "layout" in config else 64)


def source_of(name):
    """A fixture's model as published, with a file that says how its images are prepared."""
    folder = scratch / "sources" / name
    if not folder.exists():
        shutil.copytree(parity / name / "model", folder)
        if not (folder / "config.json").exists():
            (folder / "transform.json").write_text(json.dumps({"resize_size": SIDES.get(name, 32), "crop_size": SIDES.get(name, 32)}))
        elif "architecture" not in (config := config_of(folder)):
            side = side_of(config)
            (folder / "preprocessor_config.json").write_text(json.dumps({
                "image_processor_type": "ViTImageProcessor", "do_resize": True, "size": {"height": side, "width": side}, "resample": 2,
                "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}))
    return folder


def ran(command, name, *arguments):
    out = scratch / f"{command}-{name}"
    settings = [part for setting in SHORT for part in ("--set", setting)]
    subprocess.run([graft, command, "--source", source_of(name), "--out", out, "--quiet", *arguments, *settings], check=True, stdout=subprocess.DEVNULL)
    return out / "model"


def timm_model(config, folder):
    name, arguments = config["architecture"], {**config.get("model_args", {}), "num_classes": config["num_classes"]}
    if "channel_multiplier" not in arguments:
        model = timm.create_model(name, **arguments)
    else:  # widths that only timm's own builder takes
        from timm.models import efficientnet
        same = dict(bn_eps=efficientnet.BN_EPS_TF_DEFAULT, pad_type="same") if name.startswith("tf_") else {}
        model = efficientnet._gen_efficientnet(name, **arguments, **same)
    model.load_state_dict(load_file(folder / "model.safetensors"), strict=True)
    return model


def bare_model(name, classes):
    """What the authors of a bare file build for it, as in tests/parity/make_*.py."""
    from torchvision.models.efficientnet import EfficientNet, MBConvConfig
    from torchvision.models.swin_transformer import SwinTransformer
    from torchvision.models.vision_transformer import VisionTransformer
    if name == "vit-torchvision":
        return VisionTransformer(image_size=32, patch_size=8, num_layers=2, num_heads=2, hidden_dim=24, mlp_dim=48, num_classes=classes)
    if name == "swin-torchvision":
        return SwinTransformer(patch_size=[2, 2], embed_dim=8, depths=[2, 2, 2], num_heads=[2, 2, 4], window_size=[4, 4], mlp_ratio=2, num_classes=classes)
    if name == "swin-authors":  # timm takes the authors' names
        return timm.create_model("swin_tiny_patch4_window7_224", img_size=16, patch_size=2, window_size=4, embed_dim=8, depths=[2, 2], num_heads=[2, 4], mlp_ratio=2, num_classes=classes)
    if name == "vit-mae-authors":  # fine-tuned as timm's ViT, as their own code does
        return timm.create_model("vit_base_patch16_224", img_size=32, patch_size=8, embed_dim=24, depth=2, num_heads=2, mlp_ratio=2, num_classes=classes)
    if name == "efficientnet-torchvision":
        def block(*arguments):
            return MBConvConfig(*arguments, width_mult=0.125, depth_mult=0.5)
        return EfficientNet([block(1, 3, 1, 32, 16, 1), block(6, 3, 2, 16, 24, 2), block(6, 5, 2, 24, 40, 2), block(6, 3, 2, 40, 80, 3),
                             block(6, 5, 1, 80, 112, 3), block(6, 5, 2, 112, 96, 4), block(6, 3, 1, 96, 64, 1)], dropout=0.2, num_classes=classes)
    sys.exit(f"{name}: no class is written down for it here")


def loaded_bare(name, config, folder):
    model, state = bare_model(name, config["num_classes"]), load_file(folder / "model.safetensors")
    if name == "swin-authors":
        state = timm.models.swin_transformer.checkpoint_filter_fn(state, model)
    missing, unexpected = model.load_state_dict(state, strict=False)
    if unexpected or any("relative_position_index" not in key for key in missing):
        sys.exit(f"{name}: missing {missing}, unexpected {unexpected}")
    return model.eval()


def difference(name, folder):
    """Of graft's logits and the library's, relative to the largest."""
    config = config_of(folder)
    torch.manual_seed(1)
    side, inputs = SIDES.get(name, side_of(config)), {}
    pixels = inputs["pixel_values"] = torch.randn(4, 3, side, side)
    output = "logits"
    if "architecture" in config:
        model = timm_model(config, folder).eval()
        forward = lambda: model(pixels)
        if config["num_classes"] == 0:
            output, forward = "forward_features", lambda: model.forward_features(pixels)
    elif "layout" in config:
        model = loaded_bare(name, config, folder)
        forward = lambda: model(pixels)
    elif config["architectures"] == ["ViTMAEForPreTraining"]:
        model = transformers.ViTMAEForPreTraining.from_pretrained(folder).eval()
        noise = inputs["noise"] = torch.rand(4, (side // config["patch_size"]) ** 2)
        forward = lambda: model(pixel_values=pixels, noise=noise).logits
    elif config["architectures"] == ["Dinov2Model"]:
        model = transformers.AutoModel.from_pretrained(folder).eval()
        output, forward = "last_hidden_state", lambda: model(pixel_values=pixels).last_hidden_state
    else:
        model = transformers.AutoModelForImageClassification.from_pretrained(folder).eval()
        forward = lambda: model(pixel_values=pixels).logits
    save_file(inputs, scratch / "in.safetensors")
    subprocess.run([graft, "forward", "--model", folder, "--inputs", scratch / "in.safetensors", "--outputs", scratch / "out.safetensors"],
                   check=True, stdout=subprocess.DEVNULL)
    with torch.no_grad():
        theirs = forward()
    return ((load_file(scratch / "out.safetensors")[output] - theirs).abs().max() / theirs.abs().max()).item()


def main():
    folders = [("", "", pathlib.Path(folder)) for folder in sys.argv[2:]]
    if not folders:
        made_up_images()
        folders = [(name, "trained", ran("finetune", name, "--data", scratch / "data")) for name in FINETUNED]
        folders += [(name, "adapted", ran("adapt", name, "--corpus", scratch / "data/train")) for name in ADAPTED]
    failures = 0
    for name, how, folder in folders:
        largest = difference(name, folder)
        failures += not largest <= 1e-5
        print(f"{f'{name}, {how}' if name else folder}: logits differ by at most {largest:.1e} of the largest")
    return failures


failures = main()
shutil.rmtree(scratch)
sys.exit(failures > 0)
