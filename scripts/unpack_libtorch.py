"""Unpacks what a C++ program needs of the torch wheel: libraries and headers, not the Python package.

usage: unpack_libtorch.py WHEELS_FOLDER TARGET
The wheel's libraries look for CUDA's runtime in ../../nvidia beside them, so the layout is kept.
"""
import pathlib
import sys
import zipfile

wheels, target = map(pathlib.Path, sys.argv[1:])
for wheel in sorted(wheels.glob("*.whl")):
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            keep = name.startswith(("torch/include/", "nvidia/")) or (
                name.startswith("torch/lib/") and ".so" in name and "python" not in name)
            if keep and not name.endswith(".py"):
                archive.extract(name, target)
