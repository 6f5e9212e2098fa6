#!/usr/bin/env python3
"""One schedule on one task, by graft and by transformers' Trainer, side by side: accuracy and time per phase.

usage: text_schedule.py --data DIR [--full] [--seeds 3] [--sides graft peer]

Head alone 5 epochs, the last layer 5, the layer below it 5, then everything 2. AdamW, warm-up over a tenth, linear
decay, gradients clipped at 1, batch 32. Each phase starts from the best weights, by validation accuracy, of the one
before, and keeps them when no epoch is better. 1,500 training and 500 validation rows, or all by --full. Both sides
read the same files, use the same number of threads and take turns; seconds of a phase include its evaluations and, for
graft, computing the frozen blocks. The sweep of the head and the verdict are off, so that both do the same work.
"""
import json
import math
import statistics

from side_by_side import (BENCH, GRAFT, Results, arguments, checked, cut_data, events, fresh, peer_python, result_of, run, say, settings,
                          threads, wait_for_quiet)

SHARED = {"batch_size": 32, "warmup_fraction": 0.1, "weight_decay": 0.01, "max_gradient_norm": 1.0, "max_length": 128}
HEAD, UNFREEZE, FULL, DIVISOR = 1e-3, 1e-4, 1e-5, 2.6


def schedule_of(model, epochs):
    """The phases, with the learning rate of each group, for a BERT of any depth."""
    top = json.loads((model / "config.json").read_text())["num_hidden_layers"] - 1
    last, second = f"layer {top}", f"layer {top - 1}"
    everything = ["head", *(f"layer {i}" for i in range(top, -1, -1)), "embeddings"]
    return {**SHARED, "phases": [
        {"name": "head", "epochs": epochs[0], "rates": {"head": HEAD}},
        {"name": "unfreeze 1", "epochs": epochs[1], "rates": {"head": UNFREEZE, last: UNFREEZE}},
        {"name": "unfreeze 2", "epochs": epochs[2], "rates": {"head": UNFREEZE, last: UNFREEZE, second: UNFREEZE / DIVISOR}},
        {"name": "full", "epochs": epochs[3], "rates": {group: FULL for group in everything}}]}


def recipe_of(schedule):
    """The same schedule as keys of graft's recipe: one setting of the head, no early end, whatever the evidence says."""
    head, first, _, full = (phase["epochs"] for phase in schedule["phases"])
    return {"train.batch_size": schedule["batch_size"], "train.warmup_fraction": schedule["warmup_fraction"],
            "train.weight_decay": schedule["weight_decay"], "train.max_gradient_norm": schedule["max_gradient_norm"],
            "train.threads": threads(), "max_length": schedule["max_length"], "finetune.metric": "accuracy",
            "finetune.head.learning_rates": [HEAD], "finetune.head.weight_decays": [schedule["weight_decay"]],
            "finetune.head.epochs": head, "finetune.head.min_epochs": head, "finetune.head.patience": 0,
            "finetune.head.verdict": False,
            "finetune.unfreeze.max_units": 2, "finetune.unfreeze.patience_units": 0, "finetune.unfreeze.epochs": first,
            "finetune.unfreeze.learning_rate": UNFREEZE, "finetune.unfreeze.divisor": DIVISOR,
            "finetune.unfreeze.head_learning_rate": UNFREEZE,
            "finetune.full.when": "always", "finetune.full.epochs": full, "finetune.full.patience": 0,
            "finetune.full.learning_rate": FULL}


def graft_side(data, model, folder, schedule, seed):
    output, seconds = run([GRAFT, "run", "--source", model, "--data", data, "--out", fresh(folder), "--json", "--quiet",
                           *settings({"seed": seed, **recipe_of(schedule)})])
    phases = [{"phase": event["phase"], "seconds": event["seconds"], "capture_seconds": event["capture"]["seconds"],
               "validation": event["validation"]} for event in events(folder, "phase_end")]
    return {"phases": phases, "test": result_of(output)["test"]["accuracy"], "wall_seconds": seconds}


def peer_side(data, model, folder, schedule, seed):
    fresh(folder).mkdir()
    (folder / "schedule.json").write_text(json.dumps(schedule))
    output, seconds = run([peer_python(), BENCH / "peers/trainer_schedule.py", data, model, folder, folder / "schedule.json", seed])
    return {**result_of(output), "wall_seconds": seconds}


def show(parts, schedule, seeds):
    """Both test accuracies over the seeds and, per phase, how many times graft's seconds go into the peer's."""
    sides = {side: [parts[f"{side} {seed}"] for seed in range(seeds) if f"{side} {seed}" in parts] for side in ("graft", "peer")}
    for side, measured in sides.items():
        tests = [part["test"] for part in measured]
        if tests:
            spread = f"standard deviation {statistics.stdev(tests):.4f}, {len(tests)} seeds" if len(tests) > 1 else "one seed"
            print(f"{side:6} test accuracy {statistics.mean(tests):.4f} ({spread})")
    if not (sides["graft"] and sides["peer"]):
        return
    print(f"{'phase':12}{'graft s':>10}{'peer s':>10}{'ratio':>8}")
    for name in [phase["name"] for phase in schedule["phases"]] + ["all"]:
        ours, theirs = (statistics.median(sum(phase["seconds"] for phase in part["phases"] if name in ("all", phase["phase"]))
                                          for part in sides[side]) for side in ("graft", "peer"))
        print(f"{name:12}{ours:10.1f}{theirs:10.1f}{theirs / ours if ours else math.inf:8.2f}")


def main():
    parser = arguments(__doc__, out="text-schedule")
    parser.add_argument("--full", action="store_true", help="all training and validation rows")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--train", type=int, default=1500, help="training rows (default 1500)")
    parser.add_argument("--validation", type=int, default=500, help="validation rows (default 500)")
    parser.add_argument("--test", type=int, default=0, help="test rows (default: all)")
    parser.add_argument("--epochs", type=int, nargs=4, default=[5, 5, 5, 2], help="of the four phases (default 5 5 5 2)")
    options = checked(parser)
    train, validation = (0, 0) if options.full else (options.train, options.validation)
    if options.epochs[1] != options.epochs[2]:
        parser.error("graft gives each unit of unfreezing the same number of epochs; give the same second and third number")

    data = cut_data(options.data, options.out, train=train, validation=validation, test=options.test)
    schedule = schedule_of(options.model, options.epochs)
    if "peer" in options.sides:
        peer_python()
    results = Results(options.out / f"{data.name}.json", {"schedule": schedule, "data": data.name})
    measure = {"graft": graft_side, "peer": peer_side}
    for seed in range(options.seeds):
        for side in options.sides if seed % 2 == 0 else options.sides[::-1]:
            def measured(side=side, seed=seed):
                wait_for_quiet(options.allow_busy)
                return measure[side](data, options.model, options.out / "runs" / f"{side}-{seed}", schedule, seed)
            results.part(f"{side} {seed}", measured)
    show(results.json["parts"], schedule, options.seeds)
    say(f"written to {results.path}")


if __name__ == "__main__":
    main()
