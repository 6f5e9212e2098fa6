#!/usr/bin/env python3
"""How far `--dry-run` is off: seconds per phase and peak memory as predicted and as they were.

usage: estimate.py --data DIR [--train 1500] [--repeats 3]

Each repeat predicts and then runs the same recipe (adaptation on the training texts, head, unfreezing, everything), without
early ends, so that the epochs are those predicted. Only graft is measured; there is no peer side.
"""
import json
import statistics

from side_by_side import GRAFT, Results, arguments, checked, cut_data, events, fresh, result_of, run, say, settings, threads, wait_for_quiet

RECIPE = {"max_length": 128, "adapt.epochs": 1, "adapt.head_epochs": 1, "finetune.head.closed_form": False,
          "finetune.head.learning_rates": [1e-3], "finetune.head.weight_decays": [0.01],
          "finetune.head.epochs": 5, "finetune.head.min_epochs": 5, "finetune.head.patience": 0,
          "finetune.unfreeze.max_units": 3, "finetune.unfreeze.patience_units": 0, "finetune.unfreeze.epochs": 2,
          "finetune.full.when": "always", "finetune.full.epochs": 2, "finetune.full.patience": 0}


def corpus_of(data):
    corpus = data / "corpus.txt"
    texts = [json.loads(line)["text"] for line in open(data / "train.jsonl", encoding="utf-8")]
    corpus.write_text("\n\n".join(texts) + "\n", encoding="utf-8")
    return corpus


def measure(data, model, folder):
    command = [GRAFT, "run", "--source", model, "--data", data, "--corpus", corpus_of(data), "--out", fresh(folder), "--json", "--quiet",
               *settings({**RECIPE, "train.threads": threads()})]
    plan = run([*command, "--dry-run"])
    predicted = result_of(plan.output)
    real = run(command)
    took = {event["phase"]: event["seconds"] for event in events(folder, "phase_end")}
    beside = predicted["seconds_beside_phases"]
    foreseen = {}
    for phase in predicted["phases"]:  # a fresh language head learns alone first; the journal has both as one
        name = "adapt" if phase["phase"].startswith("adapt") else phase["phase"]
        foreseen[name] = foreseen.get(name, 0) + phase["seconds_once"] + phase["epochs"] * phase["seconds_per_epoch"]
    foreseen["adapt"] += beside["held-out loss before adapt"]
    foreseen["verdict"], took["verdict"] = beside["verdict"], events(folder, "verdict")[0]["seconds"]
    foreseen["the whole run"], took["the whole run"] = predicted["seconds"]["at_most"], real.seconds
    return {"plan_seconds": plan.seconds, "predicted_peak_bytes": predicted["peak_memory_bytes"], "peak_bytes": real.peak_bytes,
            "phases": {name: {"predicted": seconds, "real": took[name]} for name, seconds in foreseen.items()}}


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
    print(f"{'phase':16}{'predicted s':>12}{'real s':>10}{'off':>8}")
    for phase in parts[0]["phases"]:
        predicted, real = (statistics.median(part["phases"][phase][side] for part in parts) for side in ("predicted", "real"))
        print(f"{phase:16}{predicted:12.1f}{real:10.1f}{predicted / real - 1:+8.0%}")
    predicted, real = (statistics.median(part[side] for part in parts) / 1e6 for side in ("predicted_peak_bytes", "peak_bytes"))
    print(f"{'peak MB':16}{predicted:12.0f}{real:10.0f}{predicted / real - 1:+8.0%}")
    say(f"written to {results.path}")


if __name__ == "__main__":
    main()
