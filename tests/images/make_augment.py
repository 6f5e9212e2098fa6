#!/usr/bin/env python3
"""Writes augment.safetensors: an image of 16 x 16 and what Pillow (equalize, sharpness 1.9 and 0.1) and torchvision (hue, in
floating point) make of it. usage: make_augment.py   (wants Pillow, torchvision and safetensors; the file is committed)"""
import pathlib

import numpy as np
import torch
from PIL import Image, ImageEnhance, ImageOps
from safetensors.numpy import save_file
from torchvision.transforms.functional import adjust_hue

image = np.random.default_rng(7).integers(20, 200, (16, 16, 3), dtype=np.uint8)
image[4:8] = image[4:8, :, :1]  # some of it gray
picture = Image.fromarray(image)
made = {"image": image, "equalize": np.asarray(ImageOps.equalize(picture))}
for factor in (1.9, 0.1):
    made[f"sharpness {factor}"] = np.asarray(ImageEnhance.Sharpness(picture).enhance(factor))
for turns in (0.25, -0.1):
    turned = adjust_hue(torch.from_numpy(image).permute(2, 0, 1) / 255, turns)
    made[f"hue {turns}"] = (turned * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy()
save_file(made, pathlib.Path(__file__).parent / "augment.safetensors")
