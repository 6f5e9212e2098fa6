#!/usr/bin/env python3
"""The peer of causal_speed.py: causal fine-tuning with TRL's SFTTrainer and packing, and transformers' generate(); and of
retain_cost.py: the same with a penalty on the divergence from the model as it came.

usage: sft.py train MODEL CORPUS OUT SETTINGS.json    prints one JSON object: seconds of train(), tokens, last loss
       sft.py reference MODEL ROWS OUT SETTINGS.json  the same; the last block and the head learn rows of `text`, not packed
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


def fit(trainer_class, network, folder, texts, out, s, **packing):
    from datasets import Dataset
    from trl import SFTConfig
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.pad_token = tokenizer.eos_token
    trainer = trainer_class(network, train_dataset=Dataset.from_dict({"text": texts}), processing_class=tokenizer, args=SFTConfig(
        output_dir=out, max_length=s["max_length"], **packing,
        per_device_train_batch_size=s["batch_size"], num_train_epochs=1, learning_rate=s["learning_rate"], optim="adamw_torch_fused",
        gradient_checkpointing=False, bf16=False, use_cpu=True, save_strategy="no", eval_strategy="no", logging_strategy="no",
        report_to="none", disable_tqdm=True, max_grad_norm=1.0, warmup_steps=0.1, lr_scheduler_type="linear", seed=0))
    tokens = sum(len(row["input_ids"]) for row in trainer.train_dataset)
    start = time.monotonic()
    result = trainer.train()
    print(json.dumps({"seconds": time.monotonic() - start, "tokens": tokens, "loss": result.training_loss}))


def train(model, corpus, out, settings):
    from trl import SFTTrainer
    s = json.load(open(settings))
    texts = open(corpus, encoding="utf-8").read().splitlines()
    fit(SFTTrainer, load(model), model, texts, out, s, packing=True, packing_strategy=s["strategy"])


def reference(model, rows, out, settings):
    """KL(tuned || source) of each token that the loss counts, the source a second model beside the first."""
    from trl import SFTTrainer
    s = json.load(open(settings))
    network, source = load(model), load(model).eval() if s["kl"] else None
    network.model.requires_grad_(False)
    network.model.layers[-1].requires_grad_(True)
    network.model.norm.requires_grad_(True)

    class WithReference(SFTTrainer):
        def compute_loss(self, tuned, inputs, return_outputs=False, num_items_in_batch=None):
            outputs = tuned(**inputs)
            loss = outputs.loss
            if source:
                with torch.no_grad():
                    theirs = source(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits
                counted = inputs["labels"][:, 1:] != -100
                p, q = outputs.logits[:, :-1][counted].log_softmax(-1), theirs[:, :-1][counted].log_softmax(-1)
                loss = loss + s["kl"] * (p.exp() * (p - q)).sum(-1).mean()
            return (loss, outputs) if return_outputs else loss
    texts = [json.loads(line)["text"] for line in open(rows, encoding="utf-8")]
    fit(WithReference, network, model, texts, out, s)


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
    {"train": train, "reference": reference, "generate": generate}[sys.argv[1]](*sys.argv[2:])
