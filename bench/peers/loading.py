"""Loads a model with transformers and says what it took; the peer of bench/loading.py."""
import json
import sys
import time

import torch
from transformers import AutoModelForCausalLM

folder, type_name = sys.argv[1:3]
started = time.monotonic()
model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, type_name))
total = sum(float(parameter.sum()) for parameter in model.parameters())  # every weight is read once, as graft's check does
print(json.dumps({"seconds": time.monotonic() - started, "sum": total}))
