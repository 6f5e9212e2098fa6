#!/usr/bin/env python3
"""The peer of forward_speed.py: labels of texts, and a first training step from nothing.

usage: forward.py predict MODEL FILE    one JSON line per text: label, probability
       forward.py start MODEL DATA      prints a line when the first training step is done

As a careful user would write it: texts in order of length, batches of 32 padded to their longest, SDPA, inference mode.
"""
import json
import pathlib
import sys

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer


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


if __name__ == "__main__":
    {"predict": predict, "start": start}[sys.argv[1]](*sys.argv[2:])
