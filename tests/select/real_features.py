#!/usr/bin/env python3
"""Writes real_features.json beside this file: what a ResNet-20 of CIFAR-10 gives for photographs of blood cells.

usage: real_features.py WEIGHTS.th IMAGES      (needs torch and Pillow; IMAGES has a folder for each class)

Of each class the first 30 files by name, resized to 32 on the short side and cropped. 64 features after the mean over places,
rounded to 4 digits, and the probabilities of the network's own ten classes; features of a trained network are sparse, correlated
and of unequal scale, which random ones are not. Weights: Y. Idelbayev's resnet20 (BSD); images: the BCCD dataset (MIT).
"""
import json
import pathlib
import sys

import numpy as np
import torch
from PIL import Image
from torch.nn.functional import avg_pool2d, batch_norm, conv2d, pad, relu

MEAN, STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
state = torch.load(sys.argv[1], map_location="cpu", weights_only=True)["state_dict"]
state = {key.removeprefix("module."): value for key, value in state.items()}


def norm(x, name):
    return batch_norm(x, state[name + ".running_mean"], state[name + ".running_var"], state[name + ".weight"], state[name + ".bias"])


def block(x, name, stride):
    out = relu(norm(conv2d(x, state[name + ".conv1.weight"], stride=stride, padding=1), name + ".bn1"))
    out = norm(conv2d(out, state[name + ".conv2.weight"], padding=1), name + ".bn2")
    if stride == 2:  # the shortcut without parameters
        x = pad(x[:, :, ::2, ::2], (0, 0, 0, 0, x.shape[1] // 2, x.shape[1] // 2))
    return relu(out + x)


def features(x):
    x = relu(norm(conv2d(x, state["conv1.weight"], padding=1), "bn1"))
    for stage in (1, 2, 3):
        for place in range(3):
            x = block(x, f"layer{stage}.{place}", 2 if stage > 1 and place == 0 else 1)
    return avg_pool2d(x, x.shape[-1]).flatten(1)


def pixels(file):
    image = Image.open(file).convert("RGB")
    scale = 32 / min(image.size)
    image = image.resize([max(32, round(side * scale)) for side in image.size], Image.BILINEAR)
    left, top = (image.width - 32) // 2, (image.height - 32) // 2
    values = torch.tensor(np.array(image.crop((left, top, left + 32, top + 32)))).float() / 255
    return ((values - MEAN) / STD).permute(2, 0, 1)


classes = sorted(path for path in pathlib.Path(sys.argv[2]).iterdir() if path.is_dir())
files = [(file, label) for label, folder in enumerate(classes) for file in sorted(folder.iterdir())[:30]]
# The classes in turn, so that parts of the order hold all of them.
files.sort(key=lambda item: (sorted(item[0].parent.iterdir()).index(item[0]), item[1]))
with torch.no_grad():
    found = features(torch.stack([pixels(file) for file, _ in files]))
    probabilities = (found @ state["linear.weight"].T + state["linear.bias"]).softmax(1).double().numpy()
probabilities = np.round(probabilities, 6)
probabilities[np.arange(len(files)), probabilities.argmax(1)] += 1 - probabilities.sum(1)
dump = {"n": len(files), "d": found.shape[1], "labels": [label for _, label in files],
        "features": np.round(found.double().numpy(), 4).ravel().tolist(), "probabilities": np.round(probabilities, 6).ravel().tolist()}
pathlib.Path(__file__).with_name("real_features.json").write_text(json.dumps(dump) + "\n")
