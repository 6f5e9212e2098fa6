#!/usr/bin/env python3
"""The peer of causal_speed.py: causal fine-tuning with TRL's SFTTrainer and packing, and transformers' generate().

usage: sft.py train MODEL CORPUS OUT SETTINGS.json    prints one JSON object: seconds of train(), tokens, last loss
       sft.py generate MODEL PROMPTS FEW MANY BATCH   prints seconds of generate() for FEW and for MANY new tokens

As a careful user would write it: float32, SDPA, fused AdamW, no gradient checkpointing, no saving and no evaluation. Packing
`bfd` keeps documents apart by their positions; `wrapped` is faster and lets a document see the one before it.
"""
import json
import sys
import time

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer


def load(folder):
    return AutoModelForCausalLM.from_pretrained(folder, attn_implementation="sdpa", dtype=torch.float32)


def train(model, corpus, out, settings):
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer
    s = json.load(open(settings))
    texts = open(corpus, encoding="utf-8").read().splitlines()
    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.pad_token = tokenizer.eos_token
    trainer = SFTTrainer(load(model), train_dataset=Dataset.from_dict({"text": texts}), processing_class=tokenizer, args=SFTConfig(
        output_dir=out, packing=True, packing_strategy=s["strategy"], max_length=s["max_length"],
        per_device_train_batch_size=s["batch_size"], num_train_epochs=1, learning_rate=s["learning_rate"], optim="adamw_torch_fused",
        gradient_checkpointing=False, bf16=False, use_cpu=True, save_strategy="no", eval_strategy="no", logging_strategy="no",
        report_to="none", disable_tqdm=True, max_grad_norm=1.0, warmup_steps=0.1, lr_scheduler_type="linear", seed=0))
    tokens = sum(len(row["input_ids"]) for row in trainer.train_dataset)
    start = time.monotonic()
    result = trainer.train()
    print(json.dumps({"seconds": time.monotonic() - start, "tokens": tokens, "loss": result.training_loss}))


def generate(model, prompts, few, many, batch):
    texts = [json.loads(line)["text"] for line in open(prompts, encoding="utf-8")]
    tokenizer = AutoTokenizer.from_pretrained(model, padding_side="left")
    tokenizer.pad_token = tokenizer.eos_token
    network, seconds = load(model).eval(), {}
    with torch.inference_mode():
        for new in (int(few), int(few), int(many)):  # the first warms up
            start = time.monotonic()
            for first in range(0, len(texts), int(batch)):
                inputs = tokenizer(texts[first:first + int(batch)], padding=True, return_tensors="pt", return_token_type_ids=False)
                network.generate(**inputs, min_new_tokens=new, max_new_tokens=new, do_sample=False)
            seconds[new] = time.monotonic() - start
    print(json.dumps({"few": seconds[int(few)], "many": seconds[int(many)], "tokens": len(texts) * (int(many) - int(few))}))


if __name__ == "__main__":
    {"train": train, "generate": generate}[sys.argv[1]](*sys.argv[2:])
