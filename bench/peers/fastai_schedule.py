#!/usr/bin/env python3
"""A second peer of text_schedule.py: the same schedule with fastai's Learner, as its user would write it.

usage: fastai_schedule.py DATA MODEL OUT SCHEDULE.json SEED    prints one JSON object

The transformers model in a Learner that is split into groups and frozen up to the first that trains (fastai freezes from
the front only, which these schedules do); a rate for each group, decoupled weight decay except on norms and biases, batches
sorted by length (SortedDL). Frozen groups stay in evaluation mode. Seconds of a phase are those of Learner.fit().
"""
import json
import time
from functools import partial

import numpy as np
import torch
from fastai.callback.core import Callback
from fastai.callback.schedule import ParamScheduler, SchedLin, combine_scheds
from fastai.callback.tracker import SaveModelCallback
from fastai.callback.training import GradientClip
from fastai.data.core import DataLoaders
from fastai.learner import Learner
from fastai.losses import CrossEntropyLossFlat
from fastai.metrics import accuracy
from fastai.optimizer import Adam
from fastai.text.data import SortedDL

from schedule import collate, groups, model, out, rows, run_phases, schedule, seed


class Logits(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.model = model

    def forward(self, inputs):
        return self.model(**inputs).logits


def create_batch(items):
    batch = collate(items)
    return {key: value for key, value in batch.items() if key != "labels"}, batch["labels"]


def loader(split):
    return SortedDL(rows[split], res=[len(item["input_ids"]) for item in rows[split].items], bs=schedule["batch_size"],
                    shuffle=split == "train", num_workers=0, create_batch=create_batch, retain=lambda batch, _: batch)


class FrozenInEvaluationMode(Callback):
    def __init__(self, trained):
        self.trained = trained

    def before_train(self):
        for group, modules in groups.items():
            for module in modules:
                module.train(group in self.trained)


learner = Learner(DataLoaders(loader("train"), loader("validation")), Logits(), loss_func=CrossEntropyLossFlat(), metrics=accuracy,
                  opt_func=partial(Adam, decouple_wd=True), wd=schedule["weight_decay"], wd_bn_bias=False, train_bn=False, path=out,
                  splitter=lambda _: [[p for module in modules for p in module.parameters()] for modules in groups.values()])


def train(phase, _):
    names = list(groups)
    learner.freeze_to(min(names.index(group) for group in phase["rates"]))
    rates = np.array([phase["rates"].get(group, 0.0) for group in names])
    warmup = schedule["warmup_fraction"]
    best = SaveModelCallback(monitor="accuracy")
    start = time.monotonic()
    with learner.no_bar(), learner.no_logging():
        learner.fit(phase["epochs"], cbs=[
            ParamScheduler({"lr": combine_scheds([warmup, 1 - warmup], [SchedLin(0 * rates, rates), SchedLin(rates, 0 * rates)])}),
            GradientClip(schedule["max_gradient_norm"]), FrozenInEvaluationMode(set(phase["rates"])), best])
    return time.monotonic() - start, float(best.best)


phases = run_phases(train)
with learner.no_bar():
    test = learner.validate(dl=loader("test"))[1]
print(json.dumps({"phases": phases, "test": test}))
