#!/usr/bin/env python3
"""Writes decode/: images of every kind that graft reads, and what Pillow decodes them to (convert("RGB") after the EXIF
orientation). usage: make_decode.py   (wants Pillow, numpy, tifffile and safetensors; the files are committed beside it)"""
import pathlib
import struct
import zlib

import numpy as np
import tifffile
from PIL import Image, ImageOps
from safetensors.numpy import save_file

here = pathlib.Path(__file__).parent
out = here / "decode"
out.mkdir(exist_ok=True)
rng = np.random.default_rng(5)
y, x = np.mgrid[0:37, 0:45]
smooth = np.stack([5 * x + y, 3 * y + 90 + 20 * np.sin(x / 4), 200 - 3 * x + 2 * y], -1)
rgb = np.clip(smooth + rng.normal(0, 12, smooth.shape), 0, 255).astype(np.uint8)
image = Image.fromarray(rgb)
gray = image.convert("L")
alpha = Image.fromarray(rng.integers(0, 256, (37, 45), dtype=np.uint8))
saved = {}


def save(name, picture, **options):
    picture.save(out / name, **options)
    saved[name] = np.asarray(ImageOps.exif_transpose(Image.open(out / name)).convert("RGB"))


for name, sampling in (("420", 2), ("422", 1), ("444", 0)):
    save(f"jpeg-{name}.jpg", image, quality=85, subsampling=sampling)
save("jpeg-progressive.jpg", image, quality=80, progressive=True)
save("jpeg-gray.jpg", gray, quality=85)
save("jpeg-cmyk.jpg", image.convert("CMYK"), quality=90)
for orientation in range(1, 9):
    exif = Image.Exif()
    exif[0x0112] = orientation
    save(f"jpeg-exif{orientation}.jpg", image, quality=90, exif=exif)
save("png-rgb.png", image)
save("png-gray.png", gray)
save("png-1bit.png", gray.convert("1"))
save("png-palette.png", image.quantize(40))
transparent = image.quantize(40)
save("png-palette-transparent.png", transparent, transparency=3)
with_alpha = image.copy()
with_alpha.putalpha(alpha)
save("png-rgba.png", with_alpha)
gray_alpha = gray.copy()
gray_alpha.putalpha(alpha)
save("png-gray-alpha.png", gray_alpha)
save("png-gray16.png", Image.fromarray((np.asarray(gray).astype(np.uint16) * 3)))
save("tiff-rgb-lzw.tif", image, compression="tiff_lzw")
save("tiff-gray-deflate.tif", gray, compression="tiff_adobe_deflate")
# Tiles, and a pyramid: the first page is the image, smaller ones follow as pages of their own and as sub-pages.
tifffile.imwrite(out / "tiff-tiled.tif", rgb, tile=(16, 16), photometric="rgb", compression="adobe_deflate")
saved["tiff-tiled.tif"] = rgb
with tifffile.TiffWriter(out / "tiff-pyramid.tif") as pyramid:
    pyramid.write(rgb, tile=(16, 16), photometric="rgb", subifds=1)
    pyramid.write(rgb[::2, ::2], tile=(16, 16), photometric="rgb", subfiletype=1)
    pyramid.write(rgb[::4, ::4], tile=(16, 16), photometric="rgb", subfiletype=1)
saved["tiff-pyramid.tif"] = rgb
for name in ("tiff-tiled.tif", "tiff-pyramid.tif"):
    assert (np.asarray(Image.open(out / name).convert("RGB")) == rgb).all()
save("webp-lossless.webp", image, lossless=True)
save("webp-lossy.webp", image, quality=80)
save("bmp.bmp", image)
save("bmp-palette.bmp", image.quantize(40))
save("gif-frames.gif", image.quantize(64), save_all=True, append_images=[gray.quantize(8)])
save_file(saved, here / "decode" / "decoded.safetensors")


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


bad = here / "bad"
bad.mkdir(exist_ok=True)
bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0))
bomb += chunk(b"IDAT", zlib.compress(bytes(300_001))) + chunk(b"IEND", b"")
(bad / "bomb.png").write_bytes(bomb)
jpeg = (out / "jpeg-420.jpg").read_bytes()
(bad / "truncated.jpg").write_bytes(jpeg[: len(jpeg) * 2 // 3])
png = (out / "png-rgb.png").read_bytes()
(bad / "truncated.png").write_bytes(png[: len(png) // 2])
tiff = (out / "tiff-rgb-lzw.tif").read_bytes()
(bad / "truncated.tif").write_bytes(tiff[: len(tiff) // 2])
(bad / "text.jpg").write_text("this is no image\n")
(bad / "empty.png").write_bytes(b"")
tifffile.imwrite(bad / "bands.tif", np.zeros((4, 5, 7), np.uint16), photometric="minisblack", planarconfig="contig")
tifffile.imwrite(bad / "float.tif", np.zeros((4, 5), np.float32))
