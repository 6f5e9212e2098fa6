#!/usr/bin/env python3
"""The peer of image_schedule.py: ResNet-20 in plain PyTorch and torchvision, on one schedule or from scratch.

usage: torch_schedule.py DATA WEIGHTS SCHEDULE.json SEED {schedule,scratch}    one line of JSON: accuracies and seconds

Images are decoded, resized and normalised by torchvision once and kept as one tensor. AdamW, warm-up over a tenth, linear
decay, gradients clipped; in frozen stages batch norms keep their statistics. Each phase starts from the best weights, by
validation accuracy, of the one before, and keeps them when no epoch is better.
"""
import copy
import json
import sys
import time

import torch
import torch.nn.functional as F
from torch import nn
from torchvision import datasets, transforms


class Block(nn.Module):
    def __init__(self, channels_in, channels, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.extra = (channels - channels_in) // 2

    def forward(self, x):
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.extra:
            x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.extra, self.extra))
        return F.relu(y + x)


class ResNet20(nn.Module):
    """He et al. 2016 for CIFAR, shortcuts of option A."""
    def __init__(self, classes):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = nn.Sequential(*(Block(16, 16, 1) for _ in range(3)))
        self.layer2 = nn.Sequential(*(Block(16 if i == 0 else 32, 32, 2 if i == 0 else 1) for i in range(3)))
        self.layer3 = nn.Sequential(*(Block(32 if i == 0 else 64, 64, 2 if i == 0 else 1) for i in range(3)))
        self.linear = nn.Linear(64, classes)
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        return self.linear(self.layer3(self.layer2(self.layer1(x))).mean((2, 3)))


GROUPS = {"head": ["linear"], "stage 3": ["layer3"], "stage 2": ["layer2"], "stage 1": ["layer1"], "stem": ["conv1", "bn1"]}


def tensors(data, split):
    normalise = transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    folder = datasets.ImageFolder(data + "/" + split, transforms.Compose(
        [transforms.Resize(32), transforms.CenterCrop(32), transforms.ToTensor(), normalise]))
    images, labels = zip(*folder)
    return torch.stack(images), torch.tensor(labels)


@torch.no_grad()
def accuracy(model, split):
    model.eval()
    return (model(split[0]).argmax(1) == split[1]).float().mean().item()


def train_mode(model, trained):
    model.eval()
    for group in trained:
        for name in GROUPS[group]:
            getattr(model, name).train()


def run_phase(model, phase, splits, settings, generator, best):
    """Returns the best validation accuracy; the model is left with its weights."""
    model.requires_grad_(False)
    sets = []
    for group, rate in phase["rates"].items():
        for name in GROUPS[group]:
            for parameter in getattr(model, name).parameters():
                parameter.requires_grad_(True)
                sets.append({"params": [parameter], "lr": rate, "weight_decay": settings["weight_decay"] if parameter.dim() > 1 else 0})
    optimizer = torch.optim.AdamW(sets)
    images, labels = splits["train"]
    batches = -(-len(images) // settings["batch_size"])
    total, warmup = phase["epochs"] * batches + 1, settings["warmup_fraction"]
    scheduler = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: (step + 1) / total / warmup if (step + 1) / total < warmup else (1 - (step + 1) / total) / (1 - warmup))
    kept = copy.deepcopy(model.state_dict())
    for _ in range(phase["epochs"]):
        train_mode(model, phase["rates"])
        for batch in torch.randperm(len(images), generator=generator).split(settings["batch_size"]):
            optimizer.zero_grad()
            F.cross_entropy(model(images[batch]), labels[batch]).backward()
            nn.utils.clip_grad_norm_([p for p in model.parameters() if p.requires_grad], settings["max_gradient_norm"])
            optimizer.step()
            scheduler.step()
        value = accuracy(model, splits["validation"])
        if value > best:
            best, kept = value, copy.deepcopy(model.state_dict())
    model.load_state_dict(kept)
    return best


def main():
    data, weights, settings, seed, kind = sys.argv[1:]
    settings = json.load(open(settings))
    torch.manual_seed(int(seed))
    generator = torch.Generator().manual_seed(int(seed))
    splits = {split: tensors(data, split) for split in ("train", "validation", "test")}
    model = ResNet20(int(splits["train"][1].max()) + 1)
    phases = settings["phases"] if kind == "schedule" else [settings["scratch"]]
    if kind == "schedule":
        state = torch.load(weights, weights_only=True)["state_dict"]
        missing = model.load_state_dict({key.removeprefix("module."): value for key, value in state.items() if "linear" not in key}, strict=False)
        assert sorted(missing.missing_keys) == ["linear.bias", "linear.weight"] and not missing.unexpected_keys
    result, best = [], -1.0
    for phase in phases:
        start = time.monotonic()
        best = run_phase(model, phase, splits, settings, generator, best)
        result.append({"phase": phase["name"], "seconds": time.monotonic() - start, "validation": best, "test": accuracy(model, splits["test"])})
    print(json.dumps({"phases": result, "test": result[-1]["test"]}))


main()
