#!/usr/bin/env python3
"""The peer of forward_speed.py: labels of texts, hidden states, and a first training step from nothing.

usage: forward.py predict MODEL FILE    one JSON line per text: label, probability
       forward.py start MODEL DATA      prints a line when the first training step is done
       forward.py tokens MODEL FILE T   the texts as one padded batch in T
       forward.py forward MODEL T H     the encoder on T: median seconds, and how far its hidden states are from those in H

As a careful user would write it: texts in order of length, batches of 32 padded to their longest, SDPA, inference mode.
"""
import json
import pathlib
import statistics
import sys
import time

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer


def predict(model, file):
    texts = [json.loads(line)["text"] for line in open(file, encoding="utf-8")]
    tokenizer = AutoTokenizer.from_pretrained(model)
    model = AutoModelForSequenceClassification.from_pretrained(model, attn_implementation="sdpa", dtype=torch.float32).eval()
    encoded = tokenizer(texts, truncation=True, max_length=128)["input_ids"]
    order = sorted(range(len(texts)), key=lambda i: len(encoded[i]))
    rows = [None] * len(texts)
    with torch.inference_mode():
        for first in range(0, len(order), 32):
            part = order[first:first + 32]
            batch = tokenizer.pad({"input_ids": [encoded[i] for i in part]}, return_tensors="pt")
            best = model(**batch).logits.softmax(-1).max(-1)
            for i, probability, label in zip(part, best.values.tolist(), best.indices.tolist()):
                rows[i] = {"label": model.config.id2label[label], "probability": probability}
    print("\n".join(map(json.dumps, rows)))


def start(model, data):
    rows = [json.loads(line) for line, _ in zip(open(pathlib.Path(data) / "train.jsonl", encoding="utf-8"), range(32))]
    labels = sorted({row["label"] for row in rows})
    batch = AutoTokenizer.from_pretrained(model)([row["text"] for row in rows], padding=True, truncation=True,
                                                max_length=128, return_tensors="pt")
    model = AutoModelForSequenceClassification.from_pretrained(model, num_labels=len(labels)).train()
    model.base_model.requires_grad_(False)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3, fused=True)
    model(**batch, labels=torch.tensor([labels.index(row["label"]) for row in rows])).loss.backward()
    optimizer.step()
    print("first step", flush=True)


def tokens(model, file, target):
    texts = [json.loads(line)["text"] for line in open(file, encoding="utf-8")]
    batch = AutoTokenizer.from_pretrained(model)(texts, padding=True, truncation=True, max_length=128, return_tensors="pt")
    save_file({"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}, target)


def forward(model, inputs, others):
    model = AutoModel.from_pretrained(model, attn_implementation="sdpa", dtype=torch.float32).eval()
    inputs, seconds = load_file(inputs), []
    with torch.inference_mode():
        for _ in range(11):
            start = time.perf_counter()
            hidden = model(**inputs).last_hidden_state
            seconds.append(time.perf_counter() - start)
    difference = None
    if pathlib.Path(others).exists():
        valid = inputs["attention_mask"].bool()
        mine, theirs = hidden[valid], load_file(others)["last_hidden_state"][valid]
        difference = ((mine - theirs).abs().max() / mine.abs().max()).item()
    print(json.dumps({"seconds": statistics.median(seconds[1:]), "difference": difference}))


if __name__ == "__main__":
    {"predict": predict, "start": start, "tokens": tokens, "forward": forward}[sys.argv[1]](*sys.argv[2:])
