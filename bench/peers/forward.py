#!/usr/bin/env python3
"""The peer of forward_speed.py: words per second of a forward pass, and seconds from start to the first training step.

usage: forward.py forward INPUTS.safetensors MODEL REPEATS    {"seconds": [...]}
       forward.py start DATA MODEL                            one training step from nothing, then it ends
"""
import json
import pathlib
import sys
import time

import torch
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer


def forward(inputs, model, repeats):
    from safetensors.torch import load_file
    model = AutoModel.from_pretrained(model, attn_implementation="sdpa", dtype=torch.float32).eval()
    batch = load_file(inputs)
    seconds = []
    with torch.inference_mode():
        for _ in range(int(repeats) + 1):  # the first one warms up
            start = time.perf_counter()
            model(**batch)
            seconds.append(time.perf_counter() - start)
    print(json.dumps({"seconds": seconds[1:]}))


def start(data, model):
    rows = [json.loads(line) for line, _ in zip(open(pathlib.Path(data) / "train.jsonl", encoding="utf-8"), range(32))]
    labels = sorted({row["label"] for row in rows})
    batch = AutoTokenizer.from_pretrained(model)([row["text"] for row in rows], padding=True, truncation=True,
                                                max_length=128, return_tensors="pt")
    model = AutoModelForSequenceClassification.from_pretrained(model, num_labels=len(labels)).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
    model(**batch, labels=torch.tensor([labels.index(row["label"]) for row in rows])).loss.backward()
    optimizer.step()


if __name__ == "__main__":
    {"forward": forward, "start": start}[sys.argv[1]](*sys.argv[2:])
