#!/usr/bin/env python3
"""One schedule on one task, by graft and by transformers' Trainer, side by side: accuracy and time per phase.

usage: text_schedule.py --data DIR [--full] [--seeds 3] [--sides graft peer]

Head alone 5 epochs, the last layer 5, the layer below it 5, then everything 2. AdamW, warm-up over a tenth, linear
decay, gradients clipped at 1, batch 32; each phase starts from the best weights, by validation accuracy, of the one
before. 1,500 training and 500 validation rows, or all by --full. Both sides read the same files, use the same number
of threads and take turns; seconds of a phase include its evaluations.
"""
import json
import math
import statistics

from side_by_side import BENCH, GRAFT, Results, arguments, checked, cut_data, events, fresh, peer_python, run, say, wait_for_quiet

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


def graft_settings(schedule):
    """The same schedule as keys of graft's recipe: no early end, two units, whatever the evidence says."""
    head, first, _, full = (phase["epochs"] for phase in schedule["phases"])
    values = {"train.batch_size": schedule["batch_size"], "train.warmup_fraction": schedule["warmup_fraction"],
              "train.weight_decay": schedule["weight_decay"], "train.max_gradient_norm": schedule["max_gradient_norm"],
              "finetune.metric": "accuracy", "finetune.max_length": schedule["max_length"],
              "finetune.head.learning_rate": HEAD, "finetune.head.epochs": head, "finetune.head.patience": 0,
              "finetune.unfreeze.learning_rate": UNFREEZE, "finetune.unfreeze.divisor": DIVISOR,
              "finetune.unfreeze.epochs": first, "finetune.unfreeze.max_units": 2, "finetune.unfreeze.stop": False,
              "finetune.full.learning_rate": FULL, "finetune.full.epochs": full, "finetune.full.patience": 0,
              "finetune.full.force": True, "finetune.verdict": False}
    return [part for key, value in values.items() for part in ("--set", f"{key}={json.dumps(value)}")]


def graft_side(data, model, folder, schedule, seed):
    fresh(folder)
    _, seconds = run([GRAFT, "run", "--source", model, "--data", data, "--out", folder, "--json",
                      "--set", f"seed={seed}", *graft_settings(schedule)])
    phases = [{"phase": event["phase"], "seconds": event["seconds"], "validation": event["validation"]}
              for event in events(folder, "phase_end")]
    return {"phases": phases, "test": events(folder, "test")[-1]["accuracy"], "wall_seconds": seconds}


def peer_side(data, model, folder, schedule, seed):
    fresh(folder).mkdir()
    (folder / "schedule.json").write_text(json.dumps(schedule))
    output, seconds = run([peer_python(), BENCH / "peers/trainer_schedule.py", data, model, folder, folder / "schedule.json", seed])
    return {**json.loads(output.splitlines()[-1]), "wall_seconds": seconds}


def show(parts, schedule, seeds):
    """Both test accuracies over the seeds and, per phase, how many times graft's seconds go into the peer's."""
    sides = {side: [parts[f"{side} {seed}"] for seed in range(seeds) if f"{side} {seed}" in parts] for side in ("graft", "peer")}
    for side, measured in sides.items():
        tests = [part["test"] for part in measured]
        if tests:
            deviation = statistics.stdev(tests) if len(tests) > 1 else math.nan
            print(f"{side:6} test accuracy {statistics.mean(tests):.4f} (standard deviation {deviation:.4f}, {len(tests)} seeds)")
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
