#!/usr/bin/env python3
"""How far `--dry-run` is off: seconds per phase as predicted and as they were.

usage: estimate.py --data DIR [--train 1500] [--repeats 3]

Each repeat predicts and then runs the same recipe, without early ends, so that the epochs are those predicted. Only
graft is measured; there is no peer side.
"""
import statistics

from side_by_side import GRAFT, Results, arguments, checked, cut_data, events, fresh, result_of, run, say, settings, threads, wait_for_quiet

RECIPE = {"max_length": 128, "finetune.head.closed_form": False, "finetune.head.learning_rates": [1e-3], "finetune.head.weight_decays": [0.01],
          "finetune.head.epochs": 5, "finetune.head.min_epochs": 5, "finetune.head.patience": 0, "finetune.head.verdict": False,
          "finetune.unfreeze.max_units": 3, "finetune.unfreeze.patience_units": 0, "finetune.unfreeze.epochs": 2,
          "finetune.full.when": "always", "finetune.full.epochs": 2, "finetune.full.patience": 0}


def measure(data, model, folder):
    command = [GRAFT, "run", "--source", model, "--data", data, "--out", fresh(folder), "--json", "--quiet",
               *settings({**RECIPE, "train.threads": threads()})]
    plan = run([*command, "--dry-run"])
    predicted = result_of(plan.output)
    real = run(command)
    phases = {event["phase"]: event for event in events(folder, "phase_end")}
    return {"plan_seconds": plan.seconds, "run_seconds": real.seconds,
            "predicted_peak_bytes": predicted["peak_memory_bytes"], "peak_bytes": real.peak_bytes,
            "phases": {phase["phase"]: {"predicted": phase["seconds_once"] + phase["epochs"] * phase["seconds_per_epoch"],
                                        "real": phases[phase["phase"]]["seconds"]} for phase in predicted["phases"]}}


def main():
    parser = arguments(__doc__, out="estimate")
    parser.add_argument("--train", type=int, default=1500, help="training rows (0: all)")
    parser.add_argument("--validation", type=int, default=500)
    parser.add_argument("--repeats", type=int, default=3)
    options = checked(parser)
    data = cut_data(options.data, options.out, train=options.train, validation=options.validation, test=32)
    results = Results(options.out / f"{options.data.name}-{data.name}.json", {"recipe": RECIPE, "data": options.data, "model": options.model})
    for i in range(options.repeats):
        def measured(i=i):
            wait_for_quiet(options.allow_busy)
            return measure(data, options.model, options.out / "runs" / str(i))
        results.part(str(i), measured)
    parts = [results.json["parts"][str(i)] for i in range(options.repeats)]
    print(f"{'phase':12}{'predicted s':>12}{'real s':>10}{'off':>8}")
    for phase in parts[0]["phases"]:
        predicted, real = (statistics.median(part["phases"][phase][side] for part in parts) for side in ("predicted", "real"))
        print(f"{phase:12}{predicted:12.1f}{real:10.1f}{predicted / real - 1:+8.0%}")
    predicted, real = (statistics.median(part[side] for part in parts) / 1e6 for side in ("predicted_peak_bytes", "peak_bytes"))
    print(f"{'peak MB':12}{predicted:12.0f}{real:10.0f}{predicted / real - 1:+8.0%}")
    say(f"written to {results.path}")


if __name__ == "__main__":
    main()
