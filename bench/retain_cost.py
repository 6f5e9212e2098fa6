#!/usr/bin/env python3
"""What [retain] costs: seconds of steps with each term against plain steps, and of the Fisher against three passes.

usage: retain_cost.py --first DIR --second DIR [--pairs 3] [--parts classifier language fisher]

MiniLM is trained on --first for an epoch, then fully on --second, plainly and with each term in turn; the journal has the
seconds of an epoch's steps, evaluation apart. Each pair is a plain run and one with the term, one after the other; printed
is the median of their ratios, beside what the program itself charges to the term. The Fisher of 1,000 examples is timed as
the program is, its start taken off by a run on one example, against three times the plain steps of 1,000 examples of the same data.

The divergence of a language model from its source (retain.kl) is measured on a LLaMA of 4 layers, 512 wide (causal_speed.py), whose
last block and head learn texts: with the teacher live and the block's inputs stored or computed in each step, and with its 64
likeliest tokens stored once. Beside it a peer as TRL would have it: SFTTrainer with a whole second model as reference.
"""
import json
import pathlib
import statistics
import time

from causal_speed import made
from retain_text import trained
from side_by_side import (BENCH, GRAFT, Results, arguments, checked, cut_data, events, fresh, peer_python, result_of, run, settings,
                          threads, wait_for_quiet)

TERMS = {"ewc": {"retain.ewc.strength": 100.0}, "l2sp": {"retain.l2sp": 0.1}, "lwf": {"retain.lwf.weight": 1.0},
         "replay": {"retain.replay.fraction": 0.05}}
SHORT = {"finetune.head.epochs": 1, "finetune.head.min_epochs": 1}
KL = {"retain.kl.coefficient": 0.1}
NOT_STORED = {"features.enabled": False}
LANGUAGE = {  # what differs from plain steps, what both have, and how much of plain steps the first may cost more
    "kl, live teacher, stored inputs": ({**KL, "retain.kl.teacher": "live"}, {}, 35),
    "kl, live teacher, nothing stored": ({**KL, "retain.kl.teacher": "live"}, NOT_STORED, 20),
    "kl, stored teacher": ({**KL, "retain.kl.teacher": "top_k"}, {}, 5)}
TARGETS = {"ewc": 5, "lwf": 5}
BATCH, LENGTH, RATE = 8, 256, 1e-4


def steps_of(folder, phase="full"):
    """Seconds of the steps of a phase."""
    return sum(event["seconds"] for event in events(folder, "epoch") if event["phase"] == phase)


def pair(options, first, second, name, settings, number):
    source = options.out / "runs" / "first" / "model"
    told = {}
    for side, more in (("plain", {"retain.report": False}), (name, {"retain.source_data.path": str(first), "retain.curve": False,
                                                                   **settings})):
        folder = options.out / "runs" / f"{name}-{side}-{number}"
        trained(options, source, second, folder, 0, 1e-5, {**SHORT, **more})
        told[side] = steps_of(folder)
    charged = sum(event["terms"][name]["seconds"] for event in events(folder, "epoch") if event["phase"] == "full")
    return {"plain": told["plain"], "with": told[name], "charged": charged}


def language_texts(options):
    """The LLaMA, and a folder of rows of text."""
    data = made(options.out / "language", 0.25)
    lines = (data / "corpus.txt").read_text(encoding="utf-8").splitlines()
    for split, rows in ("train", lines[:options.rows]), ("validation", lines[-20:]):
        (data / "rows").mkdir(exist_ok=True)
        (data / "rows" / f"{split}.jsonl").write_text("".join(json.dumps({"text": line}) + "\n" for line in rows), encoding="utf-8")
    return data


def language_pair(options, data, name, number):
    different, both, _ = LANGUAGE[name]
    told = {}
    for side, more in ("plain", {}), ("with", different):
        folder = fresh(options.out / "runs" / f"language-{side}-{number}")
        run([GRAFT, "finetune", "--source", data / "llama", "--data", data / "rows", "--out", folder, "--json", "--quiet",
             *settings({**SHORT, "data.task": "causal_lm", "max_length": LENGTH, "train.batch_size": BATCH, "train.threads": threads(),
                        "finetune.head.verdict": False, "finetune.head.closed_form": False, "finetune.head.learning_rates": [RATE],
                        "finetune.head.weight_decays": [0.01], "finetune.unfreeze.max_units": 1, "finetune.unfreeze.patience_units": 0,
                        "finetune.unfreeze.epochs": 1, "finetune.full.when": "never", "retain.report": False, **both, **more})])
        told[side] = steps_of(folder, "unfreeze 1")
    told["charged"] = sum(event["terms"]["kl"]["seconds"] for event in events(folder, "epoch") if event["phase"] == "unfreeze 1")
    return told


def peer_pair(options, data):
    told = {}
    for side, coefficient in ("plain", 0), ("with", KL["retain.kl.coefficient"]):
        chosen = options.out / "sft.json"
        chosen.write_text(json.dumps({"kl": coefficient, "max_length": LENGTH, "batch_size": BATCH, "learning_rate": RATE}))
        told[side] = result_of(run([peer_python(), BENCH / "peers/sft.py", "reference", data / "llama", data / "rows/train.jsonl",
                                    options.out / "trl", chosen]).output)["seconds"]
    return told


def costs(name, pairs, target=None):
    ratios = [100 * (part["with"] / part["plain"] - 1) for part in pairs]
    charged = f"; charged to the term {statistics.median(100 * part['charged'] / part['plain'] for part in pairs):.1f} %" if "charged" in pairs[0] else ""
    aim = f", target {target}" if target else ""
    print(f"{name:<34}{statistics.median(ratios):+.1f} % of plain steps{aim} (pairs from {min(ratios):+.1f} to {max(ratios):+.1f}{charged})")


def fisher_cost(options, first, examples):
    def timed(count):
        start = time.monotonic()
        run([GRAFT, "retain", "fisher", "--json", "--model", options.out / "runs/first/model", "--data", first, "--examples", count,
             "--threads", threads(), "--out", options.out / "fisher.safetensors"])
        return time.monotonic() - start
    none = min(timed(1) for _ in range(2))
    return {"examples": examples, "seconds": min(timed(examples) for _ in range(2)) - none}


def main():
    parser = arguments(__doc__, out="retain_cost")
    parser.add_argument("--first", type=pathlib.Path, required=True, help="the source's task")
    parser.add_argument("--second", type=pathlib.Path, required=True, help="the new task")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--pairs", type=int, default=3, help="of runs, for each term")
    parser.add_argument("--rows", type=int, default=1000, help="of the second task, of the texts, and of the Fisher")
    parser.add_argument("--parts", nargs="+", choices=["classifier", "language", "fisher"], default=["classifier", "language", "fisher"])
    for action in parser._actions:
        if action.dest == "data":
            action.required = False
    parser.set_defaults(data=BENCH)
    options = checked(parser)
    first = cut_data(options.first, options.out / "first", train=options.rows, validation=100, test=200)
    second = cut_data(options.second, options.out / "second", train=options.rows, validation=50, test=50)
    results = Results(options.out / "results.json", {"epochs": options.epochs, "rows": options.rows})

    def part(name, measure):
        def measured():
            wait_for_quiet(options.allow_busy)
            return measure()
        return results.part(name, measured)

    def source():
        folder = options.out / "runs" / "first"
        trained(options, options.model, first, folder, 0, 1e-5, {**SHORT, "retain.report": False})
        return {"seconds": steps_of(folder) / options.epochs, "examples": options.rows}
    plain = part("the first task", source)
    print(f"plain steps of {plain['examples']} examples: {plain['seconds']:.1f} s")
    if "classifier" in options.parts:
        for name, term in TERMS.items():
            costs(name, [part(f"{name}, pair {number}", lambda: pair(options, first, second, name, term, number))
                         for number in range(options.pairs)], TARGETS.get(name))
    if "fisher" in options.parts:
        fisher = part("fisher", lambda: fisher_cost(options, first, options.rows))
        print(f"Fisher of {fisher['examples']} examples: {fisher['seconds']:.1f} s, {fisher['seconds'] / (3 * plain['seconds']):.2f} of "
              f"three forward and backward passes")
    if "language" in options.parts:
        data = language_texts(options)
        for name, (_, _, target) in LANGUAGE.items():
            costs(name, [part(f"{name}, pair {number}", lambda: language_pair(options, data, name, number)) for number in range(options.pairs)], target)
        costs("peer: a second model as reference", [part(f"peer, pair {number}", lambda: peer_pair(options, data)) for number in range(options.pairs)])


if __name__ == "__main__":
    main()
