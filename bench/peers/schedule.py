"""What the peers of text_schedule.py share: the task's rows as tokens, the source model, its groups from the embeddings to the head."""
import json
import pathlib
import sys

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, DataCollatorWithPadding, set_seed

data, source, out = map(pathlib.Path, sys.argv[1:4])
schedule = json.loads(pathlib.Path(sys.argv[4]).read_text())
seed = int(sys.argv[5])
set_seed(seed)


def read(split):
    return [json.loads(line) for line in open(data / f"{split}.jsonl", encoding="utf-8")]


splits = {split: read(split) for split in ("train", "validation", "test")}
labels = sorted({row["label"] for row in splits["train"]})
tokenizer = AutoTokenizer.from_pretrained(source)
collate = DataCollatorWithPadding(tokenizer)
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
groups = {"embeddings": [model.base_model.embeddings],
          **{f"layer {i}": [layer] for i, layer in enumerate(model.base_model.encoder.layer)},
          "head": [model.base_model.pooler, model.classifier]}


def run_phases(train):
    """Runs the schedule: train(phase, folder) gives the seconds and the best validation accuracy, and leaves the model at
    those weights. When none beats the weights that a phase starts from, those are kept."""
    phases, validation = [], -1.0
    for phase in schedule["phases"]:
        before = {key: value.clone() for key, value in model.state_dict().items()}
        seconds, best = train(phase, out / phase["name"].replace(" ", "-"))
        if best > validation:
            validation = best
        else:
            model.load_state_dict(before)
        phases.append({"phase": phase["name"], "seconds": seconds, "validation": validation})
        print(phases[-1], file=sys.stderr, flush=True)
    return phases
