#!/usr/bin/env python3
"""Time and memory at 1, 10 and 100 times the data: time should grow in a line, memory hardly.

usage: growth.py --data DIR [--rows 284]

Head training (5 epochs) and one unfreezing (1 epoch) on `--rows` training rows, 10 times and 100 times as many. Rows
repeat, with a number behind the text, where the data have fewer. Only graft is measured; there is no peer side.
"""
import json

from side_by_side import GRAFT, Results, arguments, checked, events, fresh, head_of, run, say, settings, threads, wait_for_quiet

RECIPE = {"max_length": 64, "finetune.head.closed_form": False, "finetune.head.learning_rates": [1e-3], "finetune.head.weight_decays": [0.01],
          "finetune.head.epochs": 5, "finetune.head.min_epochs": 5, "finetune.head.patience": 0, "finetune.head.verdict": False,
          "finetune.unfreeze.max_units": 1, "finetune.unfreeze.epochs": 1, "finetune.full.when": "never",
          "retain.report": False}


def data_of(source, place, rows):
    place.mkdir(parents=True, exist_ok=True)
    lines = [json.loads(line) for line in open(source / "train.jsonl", encoding="utf-8")]
    with open(place / "train.jsonl", "w", encoding="utf-8") as out:
        for i in range(rows):
            row = lines[i % len(lines)]
            out.write(json.dumps(row if i < len(lines) else {**row, "text": f"{row['text']} {i // len(lines)}"}) + "\n")
    head_of(source / "validation.jsonl", 200, place / "validation.jsonl")
    return place


def main():
    parser = arguments(__doc__, out="growth")
    parser.add_argument("--rows", type=int, default=284, help="training rows of the smallest (default 284)")
    options = checked(parser)
    results = Results(options.out / f"{options.data.name}-{options.rows}.json", {"recipe": RECIPE, "rows": options.rows, "data": options.data, "model": options.model})
    for times in (1, 10, 100):
        def measured(times=times):
            data = data_of(options.data, options.out / f"data-{times}", options.rows * times)
            folder = options.out / "runs" / str(times)
            wait_for_quiet(options.allow_busy)
            ran = run([GRAFT, "run", "--source", options.model, "--data", data, "--out", fresh(folder), "--json", "--quiet",
                       *settings({**RECIPE, "train.threads": threads()})])
            first = events(folder, "first_capture", "sessions.jsonl")[0]["seconds_since_start"]
            return {"seconds": ran.seconds, "first_capture_seconds": first, "peak_bytes": ran.peak_bytes,
                    "phases": {event["phase"]: event["seconds"] for event in events(folder, "phase_end")}}
        results.part(str(times), measured)
    print(f"{'rows':>8}{'head s':>9}{'unfreeze s':>12}{'all s':>8}{'peak MB':>9}{'first capture s':>17}")
    for times, part in results.json["parts"].items():
        print(f"{options.rows * int(times):8}{part['phases']['head']:9.1f}{part['phases']['unfreeze 1']:12.1f}{part['seconds']:8.1f}"
              f"{part['peak_bytes'] / 1e6:9.0f}{part['first_capture_seconds']:17.2f}")
    say(f"written to {results.path}")


if __name__ == "__main__":
    main()
