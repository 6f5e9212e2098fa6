#!/usr/bin/env python3
"""The peer of gpu_step.py.

usage: gpu_step.py make SHAPE FOLDER COUNT | plain|compiled|head SHAPE FOLDER EPOCHS    one line of JSON
"""
import json
import pathlib
import random
import sys
import time

import numpy as np
import torch
from transformers import (BertConfig, BertForSequenceClassification, BertTokenizerFast, DataCollatorWithPadding, Trainer, TrainerCallback,
                          TrainingArguments, ViTConfig, ViTForImageClassification, ViTImageProcessor, set_seed)

what, shape, folder = sys.argv[1], sys.argv[2], pathlib.Path(sys.argv[3])
number = int(sys.argv[4])
MEAN = STD = 0.5


def make(count):
    set_seed(1)
    model, data = folder / "model", folder / "data"
    model.mkdir(parents=True, exist_ok=True)
    data.mkdir(parents=True, exist_ok=True)
    draw = random.Random(1)
    if shape == "bert":
        words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{i}" for i in range(30517))]
        (model / "vocab.txt").write_text("\n".join(words) + "\n")
        BertTokenizerFast(str(model / "vocab.txt")).save_pretrained(model)
        BertForSequenceClassification(BertConfig(num_labels=2)).save_pretrained(model)
        tokens = []
        for split, rows in ("train", count), ("validation", 64), ("test", 64):
            with open(data / f"{split}.jsonl", "w") as out:
                for i in range(rows):
                    length = min(126, max(6, int(draw.lognormvariate(3.5, 0.6))))
                    out.write(json.dumps({"text": " ".join(f"w{draw.randrange(30517)}" for _ in range(length)), "label": "ab"[i % 2]}) + "\n")
                    if split == "train":
                        tokens.append(length + 2)
    else:
        from PIL import Image
        ViTImageProcessor(do_resize=True, size={"height": 224, "width": 224}).save_pretrained(model)
        ViTForImageClassification(ViTConfig(num_labels=2)).save_pretrained(model)
        for split, rows in ("train", count), ("validation", 64), ("test", 64):
            for i in range(rows):
                place = data / split / "ab"[i % 2]
                place.mkdir(parents=True, exist_ok=True)
                small = np.frombuffer(draw.randbytes(28 * 28 * 3), np.uint8).reshape(28, 28, 3)
                Image.fromarray(small).resize((224, 224)).save(place / f"{i}.png", compress_level=1)
        tokens = [197] * count
    return {"tokens": tokens, "gpu": torch.cuda.get_device_name()}


class Rows(torch.utils.data.Dataset):
    """Everything in memory, texts as ids and images as pixel values."""

    def __init__(self, split):
        if shape == "bert":
            tokenizer = BertTokenizerFast.from_pretrained(folder / "model")
            rows = [json.loads(line) for line in open(folder / "data" / f"{split}.jsonl")]
            encoded = tokenizer([row["text"] for row in rows], truncation=True, max_length=160)
            self.items = [{**{key: encoded[key][i] for key in encoded}, "labels": "ab".index(row["label"])} for i, row in enumerate(rows)]
        else:
            from PIL import Image
            files = sorted((folder / "data" / split).rglob("*.png"))
            self.items = [{"pixel_values": torch.from_numpy((np.asarray(Image.open(file), np.float32).transpose(2, 0, 1) / 255 - MEAN) / STD),
                           "labels": "ab".index(file.parent.name)} for file in files]

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        return self.items[index]


class Clock(TrainerCallback):
    def __init__(self):
        self.seconds = []

    def on_epoch_begin(self, *_, **__):
        torch.cuda.synchronize()
        self.start = time.monotonic()

    def on_epoch_end(self, *_, **__):
        torch.cuda.synchronize()
        self.seconds.append(time.monotonic() - self.start)


def train(epochs):
    set_seed(1)
    kind = BertForSequenceClassification if shape == "bert" else ViTForImageClassification
    model = kind.from_pretrained(folder / "model", attn_implementation="sdpa", dtype=torch.float32)
    if what == "head":
        model.base_model.requires_grad_(False)
        if getattr(model.base_model, "pooler", None) is not None:
            model.base_model.pooler.requires_grad_(True)
    rows, validation = Rows("train"), Rows("validation")
    more = {"data_collator": DataCollatorWithPadding(BertTokenizerFast.from_pretrained(folder / "model"))} if shape == "bert" else {}
    clock = Clock()
    length = {"train_sampling_strategy": "group_by_length"} if shape == "bert" else {}
    arguments = dict(output_dir=str(folder / "trainer"), num_train_epochs=epochs, per_device_train_batch_size=32, learning_rate=1e-5, bf16=True,
                     torch_compile=what == "compiled", optim="adamw_torch_fused", dataloader_num_workers=4, dataloader_persistent_workers=True,
                     dataloader_pin_memory=True, eval_strategy="epoch" if what == "head" else "no", save_strategy="no", report_to="none",
                     disable_tqdm=True, logging_strategy="no", remove_unused_columns=False, **length)
    try:
        arguments = TrainingArguments(**arguments)
    except TypeError:  # the option's name before transformers 5
        arguments.pop("train_sampling_strategy")
        arguments = TrainingArguments(group_by_length=True, **arguments)
    trainer = Trainer(model=model, train_dataset=rows, eval_dataset=validation, callbacks=[clock], args=arguments, **more)
    start = time.monotonic()
    trainer.train()
    return {"epoch_seconds": clock.seconds, "seconds": time.monotonic() - start}


print(json.dumps(make(number) if what == "make" else train(number)))
