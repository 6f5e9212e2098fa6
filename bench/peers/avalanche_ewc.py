#!/usr/bin/env python3
"""The peer of retain_tasks.py: Avalanche's EWC through the same archives.

usage: avalanche_ewc.py DATA TASKS SIDE WIDTH EPOCHS BATCH RATE STRENGTH SEED    one line of JSON: accuracies on each task

EWC with a penalty for each earlier task (mode "separate", its default), AdamW with one rate, the last epoch's weights.
"""
import io
import json
import pathlib
import sys
import zipfile

import numpy
import torch
from PIL import Image
from torch import nn
from torch.utils.data import TensorDataset

from avalanche.benchmarks.scenarios.dataset_scenario import benchmark_from_datasets
from avalanche.benchmarks.utils import AvalancheDataset, DataAttribute
from avalanche.training.plugins import EvaluationPlugin
from avalanche.training.supervised import EWC


def read(archive, split):
    images, labels = [], []
    with zipfile.ZipFile(archive) as files:
        for name in sorted(files.namelist()):
            part, label, _ = name.split("/")
            if part == split:
                images.append(numpy.asarray(Image.open(io.BytesIO(files.read(name))).convert("L")))
                labels.append(int(label))
    return (torch.tensor(numpy.stack(images)).float() / 255 - 0.5) / 0.5, torch.tensor(labels)


def as_experience(x, y):
    labels = [int(label) for label in y]
    return AvalancheDataset([TensorDataset(x, y)], data_attributes=[
        DataAttribute(labels, "targets"), DataAttribute([0] * len(labels), "targets_task_labels", use_in_getitem=True)])


def main():
    data = pathlib.Path(sys.argv[1])
    tasks, side, width, epochs, batch = map(int, sys.argv[2:7])
    rate, strength, seed = float(sys.argv[7]), float(sys.argv[8]), int(sys.argv[9])
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Flatten(), nn.Linear(side * side, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 10))
    strategy = EWC(model=model, optimizer=torch.optim.AdamW(model.parameters(), lr=rate), criterion=nn.CrossEntropyLoss(),
                   ewc_lambda=strength, mode="separate", train_mb_size=batch, train_epochs=epochs, eval_mb_size=256,
                   evaluator=EvaluationPlugin())
    stream = benchmark_from_datasets(train=[as_experience(*read(data / f"task-{task}.zip", "train")) for task in range(tasks)])
    for experience in stream.train_stream:
        strategy.train(experience)

    def accuracies(split):
        found = []
        for task in range(tasks):
            x, y = read(data / f"task-{task}.zip", split)
            model.eval()
            with torch.no_grad():
                found.append((model(x).argmax(1) == y).float().mean().item())
        return found
    print(json.dumps({"test": accuracies("test"), "validation": accuracies("validation")}))


if __name__ == "__main__":
    main()
