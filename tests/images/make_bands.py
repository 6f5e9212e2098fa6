#!/usr/bin/env python3
"""Writes bands/: TIFFs of five bands (16 bits; float, in tiles; one with a NaN), and what resizing each band in Pillow's mode F
to 12 pixels, cutting out 10 x 10, and normalising makes of them. usage: make_bands.py   (wants Pillow, numpy, tifffile and
safetensors; the files are committed)"""
import json
import pathlib

import numpy as np
import tifffile
from PIL import Image
from safetensors.numpy import save_file

out = pathlib.Path(__file__).parent / "bands"
out.mkdir(exist_ok=True)
rng = np.random.default_rng(11)
numbers = rng.integers(0, 12000, (18, 25, 5), dtype=np.uint16)
floats = rng.normal(4000, 3000, (9, 14, 5)).astype(np.float32)
settings = {"resize_size": 12, "crop_size": 10, "interpolation": "bicubic", "scale": 1e-4,
            "mean": [0.1, 0.2, 0.3, 0.4, 0.5], "std": [0.2, 0.2, 0.3, 0.4, 0.1]}
(out / "transform.json").write_text(json.dumps(settings, indent=2) + "\n")
tifffile.imwrite(out / "uint16.tif", numbers, photometric="minisblack", planarconfig="contig", compression="adobe_deflate")
tifffile.imwrite(out / "float.tif", floats, photometric="minisblack", planarconfig="contig", tile=(16, 16))
missing = floats.copy()
missing[3, 4, 2] = np.nan
tifffile.imwrite(out / "nan.tif", missing, photometric="minisblack", planarconfig="contig")
expected = {}
for name, image in ("uint16.tif", numbers), ("float.tif", floats):
    height, width = image.shape[:2]
    size = (12 * width // height, 12)
    left, top = round((size[0] - 10) / 2), 1
    bands = [np.asarray(Image.fromarray(image[..., c].astype(np.float32)).resize(size, Image.BICUBIC))[top:top + 10, left:left + 10] for c in range(5)]
    expected[name] = np.stack([(band * settings["scale"] - m) / s for band, m, s in zip(bands, settings["mean"], settings["std"])]).astype(np.float32)
save_file(expected, out / "pixel_values.safetensors")
