#!/usr/bin/env python3
"""What MiniLM, trained on one task, keeps of it while it learns another: each method and strength of [retain].

usage: retain_text.py --first DIR --second DIR [--full] [--seeds 1]

The source is trained on --first (movie reviews) once a seed; from there every method trains on --second (product
reviews). Printed: accuracy on both test sets with its spread over seeds, the curve of gain against loss, and which methods
lose at most a point at no more than half a point less than unprotected. 1,000 training rows of each, or all by --full. The methods share the
schedule (head, then everything at a rate that forgets) and differ in the [retain] section alone; --rate is the learning
rate of the full phase. Results are kept after each run; the same command goes on.
"""
import pathlib

from retain_table import numbers, table
from side_by_side import BENCH, GRAFT, Results, arguments, checked, cut_data, fresh, result_of, run, settings, threads

METHODS = {
    "none": {},
    "lower rate (a tenth)": {"rate": 0.1},
    "l2sp 0.1": {"retain.l2sp": 0.1},
    "l2sp 1": {"retain.l2sp": 1.0},
    "l2sp 10": {"retain.l2sp": 10.0},
    "ewc 100": {"retain.ewc.strength": 100.0},
    "ewc 1e3": {"retain.ewc.strength": 1e3},
    "ewc 1e4": {"retain.ewc.strength": 1e4},
    "ewc 1e5": {"retain.ewc.strength": 1e5},
    "ewc 1e4, own labels": {"retain.ewc.strength": 1e4, "retain.ewc.labels": "own"},
    "lwf 1": {"retain.lwf.weight": 1.0},
    "replay 5 %": {"retain.replay.fraction": 0.05},
    "replay 20 %": {"retain.replay.fraction": 0.2},
    "replay 20 % + ewc 1e4": {"retain.replay.fraction": 0.2, "retain.ewc.strength": 1e4},
    "WiSE-FT": {"retain.interpolate": True},
    "budget 1 %": {"retain.max_forgetting": 0.01},
    "budget 1 %, ewc": {"retain.max_forgetting": 0.01, "retain.ewc.strength": 1e3},
    "budget 1 %, replay": {"retain.max_forgetting": 0.01, "retain.replay.fraction": 0.05},
}


def recipe(options, rate):
    return {"train.threads": threads(), "finetune.head.verdict": False, "finetune.head.learning_rates": [1e-3],
            "finetune.head.weight_decays": [0.01], "finetune.unfreeze.max_units": 0, "finetune.full.when": "always",
            "finetune.full.epochs": options.epochs, "finetune.full.patience": 0, "finetune.full.learning_rate": rate,
            "retain.examples": 4000, "retain.ewc.carry": False, "retain.curve": True}


def trained(options, source, data, folder, seed, rate, more):
    output = run([GRAFT, "run", "--source", source, "--data", data, "--out", fresh(folder), "--json", "--quiet",
                  *settings({"seed": seed, **recipe(options, rate), **more})])
    return result_of(output.output), output.seconds


def second_task(options, seed, name, method, first, second):
    method = dict(method)
    rate = options.rate * method.pop("rate", 1)
    folder = options.out / "runs" / f"{seed}-{name.replace(' ', '-').replace('%', '')}"
    result, seconds = trained(options, options.out / "runs" / f"{seed}-first" / "model", second, folder, seed, rate,
                              {"retain.source_data.path": str(first), **method})
    return numbers(result, seconds)


def main():
    parser = arguments(__doc__, out="retain_text")
    parser.add_argument("--first", type=pathlib.Path, required=True, help="the source's task: train, validation, test.jsonl")
    parser.add_argument("--second", type=pathlib.Path, required=True, help="the new task")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--full", action="store_true", help="all rows instead of 1,000 of each task")
    parser.add_argument("--epochs", type=int, default=3, help="of full fine-tuning")
    parser.add_argument("--rate", type=float, default=1e-4, help="learning rate of full fine-tuning on the second task")
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.set_defaults(data=BENCH)
    for action in parser._actions:
        if action.dest == "data":
            action.required = False
    options = checked(parser)
    limits = {} if options.full else {"train": 1000, "validation": 300}
    first = cut_data(options.first, options.out / "first", **limits)
    second = cut_data(options.second, options.out / "second", **({} if options.full else {**limits, "test": 1000}))
    results = Results(options.out / "results.json", {"epochs": options.epochs, "rate": options.rate, **limits})
    rows = {name: [] for name in options.methods}
    for seed in range(options.seeds):
        def source():
            result, seconds = trained(options, options.model, first, options.out / "runs" / f"{seed}-first", seed, 1e-4,
                                      {"retain.report": False})
            return {"test": result["test"]["accuracy"], "seconds": seconds}
        results.part(f"seed {seed}, the first task", source)
        for name in options.methods:
            rows[name].append(results.part(f"seed {seed}, {name}", lambda name=name: second_task(
                options, seed, name, METHODS[name], first, second)))
    table(rows)


if __name__ == "__main__":
    main()
