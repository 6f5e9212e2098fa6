#!/usr/bin/env python3
"""What [retain] costs: seconds of each term relative to the steps that it is added to, and of the Fisher.

usage: retain_cost.py --first DIR --second DIR

MiniLM is trained on --first for an epoch, then fully on --second with each term; the journal says how long the terms
took within the epochs. The Fisher is timed as the program is, the loading of the model taken off by a run on one example.
"""
import pathlib
import time

from retain_text import recipe, trained
from side_by_side import BENCH, GRAFT, Results, arguments, checked, cut_data, events, run, threads, wait_for_quiet

TERMS = {"ewc": {"retain.ewc.strength": 100.0}, "l2sp": {"retain.l2sp": 0.1}, "lwf": {"retain.lwf.weight": 1.0}, "replay": {"retain.replay.fraction": 0.05}}


def term_cost(options, first, second, name, settings):
    folder = options.out / "runs" / name
    trained(options, options.out / "runs" / "first" / "model", second, folder, 0, 1e-5,
            {"retain.source_data.path": str(first), "finetune.head.epochs": 1, "finetune.head.min_epochs": 1, **settings})
    phase = [event for event in events(folder, "phase_end") if event["phase"] == "full"][0]
    seconds = sum(event["terms"][name]["seconds"] for event in events(folder, "epoch")
                  if event["phase"] == "full" and "terms" in event)
    plain = phase["seconds"] - seconds
    return {"term_seconds": seconds, "other_seconds": plain, "percent_of_plain_phase": 100 * seconds / plain}


def fisher_cost(options, first, examples):
    def timed(count):
        start = time.monotonic()
        run([GRAFT, "retain", "fisher", "--json", "--model", options.out / "runs/first/model", "--data", first, "--examples", count,
             "--threads", threads(), "--out", options.out / "fisher.safetensors"])
        return time.monotonic() - start
    none = min(timed(1) for _ in range(2))
    return {"examples": examples, "seconds": timed(examples) - none}


def main():
    parser = arguments(__doc__, out="retain_cost")
    parser.add_argument("--first", type=pathlib.Path, required=True, help="the source's task")
    parser.add_argument("--second", type=pathlib.Path, required=True, help="the new task")
    parser.add_argument("--epochs", type=int, default=1)
    for action in parser._actions:
        if action.dest == "data":
            action.required = False
    parser.set_defaults(data=BENCH)
    options = checked(parser)
    wait_for_quiet(options.allow_busy)
    first = cut_data(options.first, options.out / "first", train=1250, validation=100, test=200)
    second = cut_data(options.second, options.out / "second", train=1000, validation=50, test=50)
    results = Results(options.out / "results.json", {"epochs": options.epochs})

    def source():
        result, seconds = trained(options, options.model, first, options.out / "runs" / "first", 0, 1e-5,
                                  {"retain.report": False, "finetune.head.epochs": 1, "finetune.head.min_epochs": 1})
        phase = result["finetune"]["phases"][-1]
        return {"seconds_of_the_full_phase": phase["seconds"], "examples": 1250 * options.epochs}
    plain = results.part("the first task", source)
    print(f"a full epoch of {plain['examples']} examples, evaluation included: {plain['seconds_of_the_full_phase']:.1f} s")
    for name, settings in TERMS.items():
        cost = results.part(name, lambda: term_cost(options, first, second, name, settings))
        print(f"{name:<8}{cost['term_seconds']:.2f} s beside {cost['other_seconds']:.1f} s: {cost['percent_of_plain_phase']:.1f} %")
    fisher = results.part("fisher", lambda: fisher_cost(options, first, 1000))
    print(f"Fisher of {fisher['examples']} examples: {fisher['seconds']:.1f} s")


if __name__ == "__main__":
    main()
