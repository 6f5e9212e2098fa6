#!/usr/bin/env python3
"""The peer of text_schedule.py: the same schedule with transformers' Trainer, as a careful user would write it.

usage: trainer_schedule.py DATA MODEL OUT SCHEDULE.json SEED    prints one JSON object

Frozen modules have requires_grad off and stay in evaluation mode; SDPA, fused AdamW and batches grouped by length are
on; each phase is a Trainer of its own (fresh optimizer and schedule) that evaluates every epoch and ends with the
best weights by validation accuracy; when none beats the weights that a later phase starts from, those are kept.
Seconds of a phase are those of Trainer.train(), evaluations included.
"""
import json
import pathlib
import shutil
import sys
import time

import numpy as np
import torch
from transformers import (AutoModelForSequenceClassification, AutoTokenizer, DataCollatorWithPadding, Trainer,
                          TrainingArguments, set_seed)

data, source, out = map(pathlib.Path, sys.argv[1:4])
schedule = json.loads(pathlib.Path(sys.argv[4]).read_text())
seed = int(sys.argv[5])
set_seed(seed)


def read(split):
    return [json.loads(line) for line in open(data / f"{split}.jsonl", encoding="utf-8")]


splits = {split: read(split) for split in ("train", "validation", "test")}
labels = sorted({row["label"] for row in splits["train"]})
tokenizer = AutoTokenizer.from_pretrained(source)
model = AutoModelForSequenceClassification.from_pretrained(source, num_labels=len(labels), attn_implementation="sdpa",
                                                          dtype=torch.float32)


class Rows(torch.utils.data.Dataset):
    def __init__(self, rows):
        encoded = tokenizer([row["text"] for row in rows], truncation=True, max_length=schedule["max_length"])
        self.items = [{**{key: encoded[key][i] for key in encoded}, "labels": labels.index(row["label"])}
                      for i, row in enumerate(rows)]

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        return self.items[index]


rows = {split: Rows(examples) for split, examples in splits.items()}
layers = model.base_model.encoder.layer
groups = {"head": [model.base_model.pooler, model.classifier], "embeddings": [model.base_model.embeddings],
          **{f"layer {i}": [layer] for i, layer in enumerate(layers)}}


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
                        data_collator=DataCollatorWithPadding(tokenizer), args=TrainingArguments(
        output_dir=str(folder), num_train_epochs=epochs, per_device_train_batch_size=schedule["batch_size"],
        per_device_eval_batch_size=schedule["batch_size"], warmup_steps=int(steps * schedule["warmup_fraction"]),
        lr_scheduler_type="linear", max_grad_norm=schedule["max_gradient_norm"], eval_strategy="epoch",
        save_strategy="epoch", save_total_limit=1, save_only_model=True, load_best_model_at_end=True, metric_for_best_model="accuracy",
        train_sampling_strategy="group_by_length", remove_unused_columns=False,
        seed=seed, report_to="none", use_cpu=True, disable_tqdm=True, logging_strategy="no"))


result, validation = {"phases": []}, -1.0
for phase in schedule["phases"]:
    folder = out / phase["name"].replace(" ", "-")
    before = {key: value.clone() for key, value in model.state_dict().items()}
    part = trainer(phase["rates"], phase["epochs"], folder)
    start = time.monotonic()
    part.train()
    seconds = time.monotonic() - start
    if part.state.best_metric > validation:
        validation = part.state.best_metric
    else:
        model.load_state_dict(before)
    result["phases"].append({"phase": phase["name"], "seconds": seconds, "validation": validation})
    shutil.rmtree(folder, ignore_errors=True)
    print(result["phases"][-1], file=sys.stderr, flush=True)
last = trainer({"head": 0.0}, 1, out / "test")
result["test"] = last.evaluate(rows["test"])["eval_accuracy"]
print(json.dumps(result))
