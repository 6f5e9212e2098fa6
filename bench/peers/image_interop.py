#!/usr/bin/env python3
"""Loads an image model that graft saved with the library it came from and compares the logits on random pixels.

usage: image_interop.py GRAFT MODEL    exit 1 when a logit differs by more than 1e-5 of the largest
"""
import json
import pathlib
import subprocess
import sys
import tempfile

import torch
from safetensors.torch import load_file, save_file

graft, folder = sys.argv[1:]
config = json.loads((pathlib.Path(folder) / "config.json").read_text())
if "architecture" in config:
    import timm
    arguments = {**config.get("model_args", {}), "num_classes": config["num_classes"]}
    model = timm.create_model(config["architecture"], checkpoint_path=f"{folder}/model.safetensors", **arguments)
    side, logits_of = config["pretrained_cfg"]["input_size"][-1], lambda pixels: model(pixels)
else:
    from transformers import AutoModelForImageClassification
    model = AutoModelForImageClassification.from_pretrained(folder)
    side, logits_of = config.get("image_size", 64), lambda pixels: model(pixel_values=pixels).logits
model.eval()
torch.manual_seed(1)
pixels = torch.randn(4, 3, side, side)
with tempfile.TemporaryDirectory() as scratch, torch.no_grad():
    save_file({"pixel_values": pixels}, f"{scratch}/in.safetensors")
    subprocess.run([graft, "forward", "--model", folder, "--inputs", f"{scratch}/in.safetensors", "--outputs",
                    f"{scratch}/out.safetensors"], check=True, stdout=subprocess.DEVNULL)
    ours, theirs = load_file(f"{scratch}/out.safetensors")["logits"], logits_of(pixels)
difference = ((ours - theirs).abs().max() / theirs.abs().max()).item()
print(f"{folder}: logits differ by at most {difference:.1e} of the largest")
sys.exit(difference > 1e-5)
