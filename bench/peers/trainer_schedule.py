#!/usr/bin/env python3
"""The peer of text_schedule.py: the same schedule with transformers' Trainer, as a careful user would write it.

usage: trainer_schedule.py DATA MODEL OUT SCHEDULE.json SEED    prints one JSON object

Frozen modules have requires_grad off and stay in evaluation mode; SDPA, fused AdamW and batches grouped by length are
on; each phase is a Trainer of its own (fresh optimizer and schedule) that evaluates every epoch and ends with the
best weights by validation accuracy; when none beats the weights that a later phase starts from, those are kept.
Seconds of a phase are those of Trainer.train(), evaluations included.
"""
import json
import shutil
import time

import numpy as np
import torch
from transformers import Trainer, TrainingArguments

from schedule import collate, groups, model, out, rows, run_phases, schedule, seed


class PhaseTrainer(Trainer):
    """Trains the groups of `rates`; all others give no gradients and stay in evaluation mode."""

    def __init__(self, rates, **keywords):
        self.rates = rates
        model.requires_grad_(False)
        for group in rates:
            for module in groups[group]:
                module.requires_grad_(True)
        super().__init__(model=model, **keywords)

    def create_optimizer(self, *_):
        parameters = []
        for group, rate in self.rates.items():
            for module in groups[group]:
                for name, parameter in module.named_parameters():
                    no_decay = name.endswith("bias") or "LayerNorm" in name
                    parameters.append({"params": [parameter], "lr": rate, "weight_decay": 0.0 if no_decay else schedule["weight_decay"]})
        self.optimizer = torch.optim.AdamW(parameters, betas=(0.9, 0.999), fused=True)
        return self.optimizer

    # Trainer puts the whole model into training mode right before it asks for the loss.
    def compute_loss(self, model, *given, **keywords):
        if model.training:
            for group, modules in groups.items():
                for module in modules:
                    module.train(group in self.rates)
        return super().compute_loss(model, *given, **keywords)


def accuracy(prediction):
    return {"accuracy": float((np.argmax(prediction.predictions, -1) == prediction.label_ids).mean())}


def trainer(rates, epochs, folder):
    steps = -(-len(rows["train"]) // schedule["batch_size"]) * epochs
    return PhaseTrainer(rates, train_dataset=rows["train"], eval_dataset=rows["validation"], compute_metrics=accuracy,
                        data_collator=collate, args=TrainingArguments(
        output_dir=str(folder), num_train_epochs=epochs, per_device_train_batch_size=schedule["batch_size"],
        per_device_eval_batch_size=schedule["batch_size"], warmup_steps=int(steps * schedule["warmup_fraction"]),
        lr_scheduler_type="linear", max_grad_norm=schedule["max_gradient_norm"], eval_strategy="epoch",
        save_strategy="epoch", save_total_limit=1, save_only_model=True, load_best_model_at_end=True, metric_for_best_model="accuracy",
        train_sampling_strategy="group_by_length", remove_unused_columns=False,
        seed=seed, report_to="none", use_cpu=True, bf16=schedule["precision"] == "bfloat16", disable_tqdm=True, logging_strategy="no"))


def train(phase, folder):
    part = trainer(phase["rates"], phase["epochs"], folder)
    start = time.monotonic()
    part.train()
    seconds = time.monotonic() - start
    shutil.rmtree(folder, ignore_errors=True)
    return seconds, part.state.best_metric


phases = run_phases(train)
test = trainer({"head": 0.0}, 1, out / "test").evaluate(rows["test"])["eval_accuracy"]
print(json.dumps({"phases": phases, "test": test}))
