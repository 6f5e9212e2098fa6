#!/usr/bin/env python3
"""The peer of image_speed.py: Pillow and torchvision's loader, and timm's models in a plain PyTorch loop.

usage: image_speed.py decode FOLDER SIDE | pixels FOLDER SIDE FILE | step NAME FOLDER STEPS BATCH | head NAME FOLDER EPOCHS BATCH    one line of JSON
"""
import json
import os
import pathlib
import sys
import time

import timm
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch.utils.flop_counter import FlopCounterMode
from torchvision import datasets, transforms

threads = len(os.sched_getaffinity(0))
mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def transform(side):
    """As graft's transform.json: the short side to side * 8 / 7, bilinear, the middle cut out."""
    return transforms.Compose([transforms.Resize(side * 8 // 7), transforms.CenterCrop(side), transforms.ToTensor(), transforms.Normalize(mean, std)])


def decode(folder, side):
    """Images a second of a loader with a worker for each core, after its workers have started."""
    data = datasets.ImageFolder(folder, transform(side))
    loader = torch.utils.data.DataLoader(data, batch_size=32, num_workers=threads, persistent_workers=True)
    for _ in loader:
        pass
    start = time.monotonic()
    count = sum(len(images) for images, _ in loader)
    return {"images": count, "seconds": time.monotonic() - start}


def pixels(folder, side, file):
    """The largest difference between the tensors of a file, by name, and this loader's."""
    data, theirs = datasets.ImageFolder(folder, transform(side)), load_file(file)
    largest = max((values - theirs[pathlib.Path(path).name]).abs().max().item() for (path, _), (values, _) in zip(data.samples, data))
    return {"images": len(data), "largest_difference": largest}


def multiplications(function):
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        function()
    return counter.get_total_flops() / 2


def batches_of(folder, batch, side=224):
    data = datasets.ImageFolder(folder, transform(side))
    images, labels = zip(*data)
    return torch.stack(images), torch.tensor(labels)


def step(name, folder, steps, batch):
    """Seconds of a training step of everything, images in memory."""
    images, labels = batches_of(folder, batch)
    model = timm.create_model(name, num_classes=2).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, weight_decay=0.01, fused=True)
    seconds = []
    for i in range(steps + 1):
        rows = torch.arange(i * batch, (i + 1) * batch) % len(images)
        start = time.monotonic()
        optimizer.zero_grad()
        F.cross_entropy(model(images[rows]), labels[rows]).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        seconds.append(time.monotonic() - start)
    return {"seconds_per_step": sum(seconds[1:]) / steps}


def head(name, folder, epochs, batch):
    """Seconds of training the classifier alone: the usual loop, the frozen network forward in each step."""
    images, labels = batches_of(folder + "/train", batch)
    judged, truth = batches_of(folder + "/validation", batch)
    model = timm.create_model(name, num_classes=2).eval().requires_grad_(False)
    classifier = model.get_classifier().requires_grad_(True)
    optimizer = torch.optim.AdamW(classifier.parameters(), lr=1e-3, weight_decay=0.01, fused=True)
    start = time.monotonic()
    for _ in range(epochs):
        for rows in torch.randperm(len(images)).split(batch):
            optimizer.zero_grad()
            F.cross_entropy(model(images[rows]), labels[rows]).backward()
            optimizer.step()
        with torch.no_grad():
            for rows in torch.arange(len(judged)).split(batch):
                model(judged[rows]).argmax(1).eq(truth[rows])
    seconds = time.monotonic() - start
    classes = classifier(torch.zeros(1, classifier.in_features)).numel()
    return {"seconds": seconds, "train": len(images), "validation": len(judged), "forward": multiplications(lambda: model(images[:1])),
            "classifier": classifier.in_features * classes}


torch.set_num_threads(threads)
kind, *rest = sys.argv[1:]
if kind == "decode":
    result = decode(rest[0], int(rest[1]))
elif kind == "pixels":
    result = pixels(rest[0], int(rest[1]), rest[2])
else:
    result = {"step": step, "head": head}[kind](rest[0], rest[1], int(rest[2]), int(rest[3]))
print(json.dumps(result))
