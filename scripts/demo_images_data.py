#!/usr/bin/env python3
"""Makes the data of the image demo: Fashion-MNIST from Debian's package, and a small ViT with random weights.

usage: demo_images_data.py --out DIR [--unlabelled N --train N ... --validation N --test N]

  DIR/images.zip                        unlabelled images, for masked autoencoding (--unlabelled, of the 60,000)
  DIR/labelled-N.zip                    train/CLASS, validation/CLASS and test/CLASS: N training images, one set inside the next
  DIR/vit/                              config.json, model.safetensors, preprocessor_config.json: an untrained ViT (ViT-MAE's
                                        initialisation, sin-cos positions), for images of 28 x 28 in patches of 4
Validation and test images come from the package's 10,000 test images, so none of them is in images.zip.
Needs Python alone. The package (31 MB, MIT) is taken from the system, or fetched by apt without root. A second call finds
everything and returns at once.
"""
import argparse
import array
import gzip
import json
import math
import pathlib
import random
import struct
import subprocess
import sys
import tempfile
import zipfile
import zlib

PACKAGE = "dataset-fashion-mnist"
INSTALLED = pathlib.Path("/usr/share/datasets/fashion-mnist")
CLASSES = ["t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot"]
SIDE = 28
VIT = {"hidden_size": 96, "num_hidden_layers": 6, "num_attention_heads": 3, "intermediate_size": 384, "image_size": SIDE,
       "patch_size": 4, "num_channels": 3, "layer_norm_eps": 1e-6, "hidden_act": "gelu", "qkv_bias": True,
       "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


def stop(sentence):
    print(f"demo data: {sentence}", file=sys.stderr)
    sys.exit(8)


def say(sentence):
    print(f"==> {sentence}", file=sys.stderr)


def fetch(place):
    """The package's files below `place`; the system's own package lists stay as they are."""
    (place / "lists" / "partial").mkdir(parents=True)
    (place / "cache" / "archives" / "partial").mkdir(parents=True)
    options = {"Dir::State::lists": place / "lists", "Dir::Cache": place / "cache", "Debug::NoLocking": "true",
               "APT::Sandbox::User": "root", "Acquire::Languages": "none"}
    apt = ["apt-get", "-q", *(part for key, value in options.items() for part in ("-o", f"{key}={value}"))]
    for command in ([*apt, "update"], [*apt, "download", PACKAGE]):
        result = subprocess.run(command, cwd=place, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    packages = sorted(place.glob(f"{PACKAGE}_*.deb"))
    if not packages:
        stop(f"apt could not fetch {PACKAGE}; install it (apt-get install {PACKAGE}) and run this again. It said:\n" + result.stdout[-1000:])
    subprocess.run(["dpkg-deb", "-x", packages[0], place / "files"], check=True)
    return place / "files" / INSTALLED.relative_to("/")


def read(folder, name):
    """Images (28 x 28 bytes each) and labels of one of the package's two sets."""
    images = gzip.decompress((folder / f"{name}-images-idx3-ubyte.gz").read_bytes())
    labels = gzip.decompress((folder / f"{name}-labels-idx1-ubyte.gz").read_bytes())
    count, rows, columns = struct.unpack(">III", images[4:16])
    if (rows, columns) != (SIDE, SIDE) or struct.unpack(">I", labels[4:8]) != (count,):
        stop(f"{folder}: the {name} set is not of {SIDE} x {SIDE} images with as many labels")
    size = SIDE * SIDE
    return [images[16 + i * size:16 + (i + 1) * size] for i in range(count)], labels[8:]


def png(pixels, side=SIDE):
    """A gray PNG."""
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    rows = b"".join(b"\0" + pixels[y * side:(y + 1) * side] for y in range(side))
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)) +
            chunk(b"IDAT", zlib.compress(rows, 1)) + chunk(b"IEND", b""))


def write_archive(path, files):
    beside = path.with_suffix(".tmp")
    with zipfile.ZipFile(beside, "w", zipfile.ZIP_STORED) as archive:
        for name, pixels in files:
            archive.writestr(zipfile.ZipInfo(name), png(pixels))
    beside.rename(path)


def balanced(labels, order, count):
    """The first images of each class in `order`, `count` in all."""
    taken, quota = [], {label: count // len(CLASSES) for label in range(len(CLASSES))}
    for i in order:
        if quota[labels[i]] > 0:
            quota[labels[i]] -= 1
            taken.append(i)
    return taken


def make_archives(folder, out, limits):
    images, labels = read(folder, "train")
    order = random.Random("fashion").sample(range(len(images)), len(images))
    write_archive(out / "images.zip", ((f"{i:05}.png", images[i]) for i in order[:limits["unlabelled"]]))
    held_images, held_labels = read(folder, "t10k")
    held = random.Random("held out").sample(range(len(held_images)), len(held_images))
    validation = balanced(held_labels, held, limits["validation"])
    rest = [i for i in held if i not in set(validation)]
    test = balanced(held_labels, rest, limits["test"])
    for count in limits["train"]:
        parts = [("train", images, labels, balanced(labels, order, count)), ("validation", held_images, held_labels, validation),
                 ("test", held_images, held_labels, test)]
        write_archive(out / f"labelled-{count}.zip",
                      ((f"{split}/{CLASSES[of[i]]}/{i:05}.png", pixels[i]) for split, pixels, of, some in parts for i in some))
    say(f"{limits['unlabelled']} unlabelled images; {', '.join(map(str, limits['train']))} labelled ones, "
        f"{len(validation)} for validation, {len(test)} for the test")


def positions():
    """ViT-MAE's fixed table: a row of 0, then sines and cosines of each patch's column and row."""
    width, side = VIT["hidden_size"], SIDE // VIT["patch_size"]
    waves = [10000 ** (-i / (width // 4)) for i in range(width // 4)]
    table = [0.0] * width
    for row in range(side):
        for column in range(side):
            for place in (column, row):
                table += [math.sin(place * wave) for wave in waves] + [math.cos(place * wave) for wave in waves]
    return [1, side * side + 1, width], table


def make_vit(folder):
    """transformers' layout, initialised as ViT-MAE: Xavier-uniform matrices, biases 0, norms 1 and 0."""
    draw = random.Random("vit")
    width, inner, patch = VIT["hidden_size"], VIT["intermediate_size"], VIT["patch_size"]
    tensors = {}

    def matrix(name, *shape):
        fan = shape[0] + math.prod(shape[1:])
        bound = math.sqrt(6 / fan)
        tensors[f"vit.{name}.weight"] = list(shape), [draw.uniform(-bound, bound) for _ in range(math.prod(shape))]
        tensors[f"vit.{name}.bias"] = [shape[0]], [0.0] * shape[0]

    def norm(name):
        tensors[f"vit.{name}.weight"] = [width], [1.0] * width
        tensors[f"vit.{name}.bias"] = [width], [0.0] * width
    tensors["vit.embeddings.cls_token"] = [1, 1, width], [draw.gauss(0, 0.02) for _ in range(width)]
    tensors["vit.embeddings.position_embeddings"] = positions()
    matrix("embeddings.patch_embeddings.projection", width, VIT["num_channels"], patch, patch)
    for i in range(VIT["num_hidden_layers"]):
        layer = f"encoder.layer.{i}."
        norm(layer + "layernorm_before")
        for part in ("query", "key", "value"):
            matrix(f"{layer}attention.attention.{part}", width, width)
        matrix(layer + "attention.output.dense", width, width)
        norm(layer + "layernorm_after")
        matrix(layer + "intermediate.dense", inner, width)
        matrix(layer + "output.dense", width, inner)
    norm("layernorm")

    header, offset = {}, 0
    for name, (shape, values) in tensors.items():
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [offset, offset + 4 * len(values)]}
        offset += 4 * len(values)
    text = json.dumps(header).encode()
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "model.safetensors", "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for _, values in tensors.values():
            numbers = array.array("f", values)
            if sys.byteorder == "big":
                numbers.byteswap()
            file.write(numbers.tobytes())
    (folder / "config.json").write_text(json.dumps({"model_type": "vit_mae", "architectures": ["ViTMAEModel"], **VIT}, indent=1) + "\n")
    (folder / "preprocessor_config.json").write_text(json.dumps({
        "image_processor_type": "ViTImageProcessor", "do_resize": True, "size": {"height": SIDE, "width": SIDE}, "resample": 3,
        "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True, "image_mean": [0.286] * 3, "image_std": [0.353] * 3},
        indent=1) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, required=True, help="folder for archives and model")
    parser.add_argument("--unlabelled", type=int, default=60000, help="images for pre-training (default 60000)")
    parser.add_argument("--train", type=int, nargs="+", default=[100, 1000], help="sizes of the training sets (default 100 1000)")
    parser.add_argument("--validation", type=int, default=1000, help="default 1000")
    parser.add_argument("--test", type=int, default=5000, help="default 5000")
    arguments = parser.parse_args()
    limits = {name: getattr(arguments, name) for name in ("unlabelled", "train", "validation", "test")}

    made = arguments.out / "made.json"  # written last: what is here is complete, and was made with these limits
    if made.exists() and json.loads(made.read_text()) == limits:
        return
    arguments.out.mkdir(parents=True, exist_ok=True)
    made.unlink(missing_ok=True)
    if INSTALLED.is_dir():
        make_archives(INSTALLED, arguments.out, limits)
    else:
        say(f"fetching Debian's {PACKAGE} (31 MB)")
        with tempfile.TemporaryDirectory(prefix="graft-demo-") as place:
            make_archives(fetch(pathlib.Path(place)), arguments.out, limits)
    make_vit(arguments.out / "vit")
    made.write_text(json.dumps(limits) + "\n")


if __name__ == "__main__":
    main()
