#!/usr/bin/env python3
"""What [retain] costs: seconds of steps with each term against plain steps, and of the Fisher against three passes.

usage: retain_cost.py --first DIR --second DIR [--full] [--parts classifier fisher language]

MiniLM is trained on --first for an epoch, then fully on --second, plainly and with each term in turn; the journal has the
seconds of an epoch's steps, evaluation apart. A round is a plain run and one with each term, one after the other; printed
is the median over rounds of the ratios, beside what the program itself charges to the term. The Fisher of 1,000 examples is timed as
the program is, its start taken off by a run on one example, against three times the plain steps of 1,000 examples of the same data.

The divergence of a language model from its source (retain.kl) is measured on a LLaMA of 4 layers, 512 wide (causal_speed.py), whose
last block and head learn texts: with the teacher live and the block's inputs stored or computed in each step, and with its 64
likeliest tokens stored once. Beside it a peer as TRL would have it: SFTTrainer with a whole second model as reference.
By default two rounds and 200 texts, by --full five rounds and all texts. Results are kept after each run; the same command goes on.
"""
import json
import pathlib
import statistics
import time

from causal_speed import made
from retain_text import trained
from side_by_side import (BENCH, GRAFT, Results, arguments, checked, cut_data, events, fresh, peer_python, result_of, run, settings,
                          threads, wait_for_quiet)

PLAIN = {"retain.report": False}
TERMS = {"plain": PLAIN, "ewc": {"retain.ewc.strength": 100.0}, "l2sp": {"retain.l2sp": 0.1}, "lwf": {"retain.lwf.weight": 1.0},
         "replay": {"retain.replay.fraction": 0.05}}
SHORT = {"finetune.head.epochs": 1, "finetune.head.min_epochs": 1}
KL, NOT_STORED = {"retain.kl.coefficient": 0.1}, {"features.enabled": False}
STORED_INPUTS = {"language, plain": {}, "kl, live teacher": {**KL, "retain.kl.teacher": "live"},
                 "kl, stored teacher": {**KL, "retain.kl.teacher": "top_k"}}
NOTHING_STORED = {"language, plain, nothing stored": NOT_STORED,
                  "kl, live teacher, nothing stored": {**KL, "retain.kl.teacher": "live", **NOT_STORED}}
PEER = {"peer, plain": {"kl": 0}, "peer, a second model as reference": {"kl": KL["retain.kl.coefficient"]}}
TARGETS = {"ewc": 5, "lwf": 5, "kl, live teacher": 35, "kl, stored teacher": 5, "kl, live teacher, nothing stored": 20}
BATCH, LENGTH, RATE = 8, 256, 1e-4


def steps_of(folder, phase="full"):
    """Seconds of the steps of a phase, and what of them was charged to terms."""
    epochs = [event for event in events(folder, "epoch") if event["phase"] == phase]
    return {"seconds": sum(event["seconds"] for event in epochs),
            "charged": sum(term["seconds"] for event in epochs for term in event.get("terms", {}).values())}


def classifier_run(options, first, second, name, term):
    folder = options.out / "runs" / name
    held = {} if term is PLAIN else {"retain.source_data.path": str(first), "retain.curve": False}
    trained(options, options.out / "runs" / "first" / "model", second, folder, 0, 1e-5, {**SHORT, **held, **term})
    return steps_of(folder)


def language_texts(options):
    """The LLaMA, and a folder of rows of text."""
    data = made(options.out / "language", 0.25)
    lines = (data / "corpus.txt").read_text(encoding="utf-8").splitlines()
    for split, rows in ("train", lines[:-20][:options.texts]), ("validation", lines[-20:]):
        (data / "rows").mkdir(exist_ok=True)
        (data / "rows" / f"{split}.jsonl").write_text("".join(json.dumps({"text": line}) + "\n" for line in rows), encoding="utf-8")
    return data


def language_run(options, data, more):
    folder = fresh(options.out / "runs" / "language")
    run([GRAFT, "finetune", "--source", data / "llama", "--data", data / "rows", "--out", folder, "--json", "--quiet",
         *settings({**SHORT, "data.task": "causal_lm", "max_length": LENGTH, "train.batch_size": BATCH, "train.threads": threads(),
                    "finetune.head.verdict": False, "finetune.head.closed_form": False, "finetune.head.learning_rates": [RATE],
                    "finetune.head.weight_decays": [0.01], "finetune.unfreeze.max_units": 1, "finetune.unfreeze.patience_units": 0,
                    "finetune.unfreeze.epochs": 1, "finetune.full.when": "never", **PLAIN, **more})])
    return steps_of(folder, "unfreeze 1")


def peer_run(options, data, more):
    chosen = options.out / "sft.json"
    chosen.write_text(json.dumps({**more, "max_length": LENGTH, "batch_size": BATCH, "learning_rate": RATE}))
    return result_of(run([peer_python(), BENCH / "peers/sft.py", "reference", data / "llama", data / "rows/train.jsonl",
                          options.out / "trl", chosen]).output)


def costs(rounds):
    """`rounds`: by side, a part a round; the first side is the plain one."""
    plain, *terms = rounds
    print(f"{plain}: {statistics.median(part['seconds'] for part in rounds[plain]):.1f} s")
    for name in terms:
        ratios = [100 * (part["seconds"] / base["seconds"] - 1) for part, base in zip(rounds[name], rounds[plain])]
        charged = [100 * part["charged"] / base["seconds"] for part, base in zip(rounds[name], rounds[plain]) if "charged" in part]
        print(f"{name:<36}{statistics.median(ratios):+.1f} % ({min(ratios):+.1f} to {max(ratios):+.1f})"
              + (f", charged to the term {statistics.median(charged):.1f} %" if charged else "")
              + (f", target {TARGETS[name]}" if name in TARGETS else ""))


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
    parser.add_argument("--rows", type=int, default=1000, help="of the second task, and of the Fisher")
    parser.add_argument("--full", action="store_true", help="five rounds, and all texts of the language model")
    parser.add_argument("--parts", nargs="+", choices=["classifier", "fisher", "language"], default=["classifier", "fisher", "language"])
    for action in parser._actions:
        if action.dest == "data":
            action.required = False
    parser.set_defaults(data=BENCH)
    options = checked(parser)
    options.texts, rounds = (None, 5) if options.full else (200, 2)
    first = cut_data(options.first, options.out / "first", train=options.rows, validation=100, test=200)
    second = cut_data(options.second, options.out / "second", train=options.rows, validation=50, test=50)
    results = Results(options.out / "results.json", {"epochs": options.epochs, "rows": options.rows, "texts": options.texts})

    def part(name, measure):
        def measured():
            wait_for_quiet(options.allow_busy)
            return measure()
        return results.part(name, measured)

    def in_rounds(sides, measure):
        told = {name: [] for name in sides}
        for number in range(rounds):
            for name, more in sides.items():
                told[name].append(part(f"{name}, round {number}", lambda: measure(name, more)))
        costs(told)

    def source():
        folder = options.out / "runs" / "first"
        trained(options, options.model, first, folder, 0, 1e-5, {**SHORT, **PLAIN})
        return {"seconds": steps_of(folder)["seconds"] / options.epochs, "examples": options.rows}
    plain = part("the first task", source)
    print(f"plain steps of {plain['examples']} examples: {plain['seconds']:.1f} s")
    if "classifier" in options.parts:
        in_rounds(TERMS, lambda name, term: classifier_run(options, first, second, name, term))
    if "fisher" in options.parts:
        fisher = part("fisher", lambda: fisher_cost(options, first, options.rows))
        print(f"Fisher of {fisher['examples']} examples: {fisher['seconds']:.1f} s, {fisher['seconds'] / (3 * plain['seconds']):.2f} of "
              f"three forward and backward passes")
    if "language" in options.parts:
        data = language_texts(options)
        for sides in STORED_INPUTS, NOTHING_STORED:
            in_rounds(sides, lambda _, more: language_run(options, data, more))
        in_rounds(PEER, lambda _, more: peer_run(options, data, more))


if __name__ == "__main__":
    main()
