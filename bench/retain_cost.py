#!/usr/bin/env python3
"""What [retain] costs: seconds of steps with each term against plain steps, and of the Fisher against three passes.

usage: retain_cost.py --first DIR --second DIR [--pairs 3]

MiniLM is trained on --first for an epoch, then fully on --second, plainly and with each term in turn; the journal has the
seconds of an epoch's steps, evaluation apart. Each pair is a plain run and one with the term, one after the other; printed
is the median of their ratios, beside what the program itself charges to the term. The Fisher of 1,000 examples is timed as
the program is, its start taken off by a run on one example, against three times the plain steps of 1,000 examples of the same data.
"""
import pathlib
import statistics
import time

from retain_text import recipe, trained
from side_by_side import BENCH, GRAFT, Results, arguments, checked, cut_data, events, run, threads, wait_for_quiet

TERMS = {"ewc": {"retain.ewc.strength": 100.0}, "l2sp": {"retain.l2sp": 0.1}, "lwf": {"retain.lwf.weight": 1.0},
         "replay": {"retain.replay.fraction": 0.05}}
SHORT = {"finetune.head.epochs": 1, "finetune.head.min_epochs": 1}


def steps_of(folder):
    """Seconds of the steps of full fine-tuning."""
    return sum(event["seconds"] for event in events(folder, "epoch") if event["phase"] == "full")


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
    parser.add_argument("--rows", type=int, default=1000, help="of the second task, and of the Fisher")
    for action in parser._actions:
        if action.dest == "data":
            action.required = False
    parser.set_defaults(data=BENCH)
    options = checked(parser)
    wait_for_quiet(options.allow_busy)
    first = cut_data(options.first, options.out / "first", train=options.rows, validation=100, test=200)
    second = cut_data(options.second, options.out / "second", train=options.rows, validation=50, test=50)
    results = Results(options.out / "results.json", {"epochs": options.epochs, "rows": options.rows})

    def source():
        folder = options.out / "runs" / "first"
        trained(options, options.model, first, folder, 0, 1e-5, {**SHORT, "retain.report": False})
        return {"seconds": steps_of(folder) / options.epochs, "examples": options.rows}
    plain = results.part("the first task", source)
    print(f"plain steps of {plain['examples']} examples: {plain['seconds']:.1f} s")
    for name, settings in TERMS.items():
        pairs = [results.part(f"{name}, pair {number}", lambda: pair(options, first, second, name, settings, number))
                 for number in range(options.pairs)]
        ratios = [100 * (part["with"] / part["plain"] - 1) for part in pairs]
        charged = statistics.median(100 * part["charged"] / part["plain"] for part in pairs)
        print(f"{name:<8}{statistics.median(ratios):+.1f} % of plain steps (pairs from {min(ratios):+.1f} to {max(ratios):+.1f}; "
              f"charged to the term {charged:.1f} %)")
    fisher = results.part("fisher", lambda: fisher_cost(options, first, options.rows))
    print(f"Fisher of {fisher['examples']} examples: {fisher['seconds']:.1f} s, {fisher['seconds'] / (3 * plain['seconds']):.2f} of "
          f"three forward and backward passes")


if __name__ == "__main__":
    main()
