#!/usr/bin/env python3
"""Compares graft's predictions with those of transformers for the same model folder and texts.

usage: interop.py GRAFT MODEL TEXTS.jsonl    exit 1 when a probability differs by more than 1e-5
"""
import json
import subprocess
import sys

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

graft, folder, texts = sys.argv[1:]
rows = [json.loads(line) for line in open(texts, encoding="utf-8")][:200]
output = subprocess.run([graft, "predict", "--model", folder, "--json"], input="\n".join(map(json.dumps, rows)),
                        stdout=subprocess.PIPE, text=True, check=True).stdout
predicted = [json.loads(line)["probabilities"] for line in output.splitlines()]
tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForSequenceClassification.from_pretrained(folder).eval()
largest = 0.0
with torch.no_grad():
    for row, ours in zip(rows, predicted, strict=True):
        theirs = model(**tokenizer(row["text"], return_tensors="pt", truncation=True)).logits.softmax(-1)[0]
        largest = max(largest, *(abs(theirs[i].item() - ours[name]) for i, name in model.config.id2label.items()))
print(f"{folder}: {len(rows)} texts, probabilities differ by at most {largest:.1e}")
sys.exit(largest > 1e-5)
