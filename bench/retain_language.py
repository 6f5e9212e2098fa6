#!/usr/bin/env python3
"""What a small language model keeps of its first domain while it adapts to another: each method of [retain].

usage: retain_language.py --model DIR --first TEXT --second TEXT [--seeds 1] [--documents 0]

--model is a causal language model that knows --first (the LLaMA of scripts/demo_decoder knows prose); it adapts to --second
(code). Both are files or folders of texts. Printed: perplexity on held-out texts of both, before and after, the time, and what the
term cost. The methods share everything but the [retain] section, learning rate or adapters. Results are kept after each run;
the same command goes on.
"""
import pathlib
import statistics

from side_by_side import GRAFT, Results, arguments, checked, events, fresh, result_of, run, settings, threads, wait_for_quiet

METHODS = {
    "none": {},
    "lower rate (a tenth)": {"rate": 0.1},
    "kl 0.1": {"retain.kl.coefficient": 0.1},
    "kl 1": {"retain.kl.coefficient": 1.0},
    "kl 0.1, source_tuned": {"retain.kl.coefficient": 0.1, "retain.kl.direction": "source_tuned"},
    "kl 0.1, stored": {"retain.kl.coefficient": 0.1, "retain.kl.teacher": "top_k"},
    "replay 5 %": {"retain.replay.fraction": 0.05},
    "replay 20 %": {"retain.replay.fraction": 0.2},
    "kl 0.1 + replay 5 %": {"retain.kl.coefficient": 0.1, "retain.replay.fraction": 0.05},
    "kl 0.1 on both + replay 5 %": {"retain.kl.coefficient": 0.1, "retain.kl.corpus": True, "retain.replay.fraction": 0.05},
    "lora 16": {"rate": 10, "lora.rank": 16},
    "lora 16 + kl 0.1": {"rate": 10, "lora.rank": 16, "retain.kl.coefficient": 0.1},
}


def adapted(options, name, seed):
    method = dict(METHODS[name])
    rate = options.rate * method.pop("rate", 1)
    folder = fresh(options.out / "runs" / f"{seed}-{name.replace(' ', '-').replace('%', '').replace(',', '')}")
    wait_for_quiet(options.allow_busy)
    ran = run([GRAFT, "adapt", "--source", options.model, "--corpus", options.second, "--out", folder, "--json", "--quiet",
               *settings({"seed": seed, "train.threads": threads(), "adapt.epochs": options.epochs, "adapt.learning_rate": rate,
                          "adapt.max_length": options.length, "adapt.max_documents": options.documents,
                          "max_length": options.length, "retain.corpus": str(options.first),
                          "retain.examples": options.examples, **method})])
    result = result_of(ran.output)["adapt"]
    epochs = [event for event in events(folder, "epoch") if event["phase"] == "adapt"]
    seconds = next(event["seconds"] for event in events(folder, "phase_end") if event["phase"] == "adapt")
    return {"first_before": result["retained"]["source"]["value"], "first_after": result["retained"]["after"]["value"],
            "second_before": result["before"]["perplexity"], "second_after": result["after"]["perplexity"],
            "seconds": seconds, "peak_bytes": ran.peak_bytes,
            "terms": {term: sum(event["terms"][term]["seconds"] for event in epochs) for term in epochs[0].get("terms", {})}}


def main():
    parser = arguments(__doc__, out="retain_language")
    parser.add_argument("--first", type=pathlib.Path, required=True, help="text that the model knows: a file or folder")
    parser.add_argument("--second", type=pathlib.Path, required=True, help="text that it adapts to")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--rate", type=float, default=1e-4, help="learning rate of adaptation; adapters take ten times as much")
    parser.add_argument("--length", type=int, default=128, help="tokens of a sequence")
    parser.add_argument("--documents", type=int, default=0, help="most texts of --second; 0: all")
    parser.add_argument("--examples", type=int, default=500, help="most held-out sequences of --first")
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    for action in parser._actions:
        if action.dest == "data":
            action.required = False
    options = checked(parser)
    results = Results(options.out / "results.json", {key: getattr(options, key) for key in (
        "epochs", "rate", "length", "documents", "examples")} | {key: str(getattr(options, key)) for key in ("model", "first", "second")})
    rows = {name: [results.part(f"seed {seed}, {name}", lambda name=name, seed=seed: adapted(options, name, seed))
                   for seed in range(options.seeds)] for name in options.methods}
    before = next(iter(rows.values()))[0]
    print(f"{'method':<30}{'first':>9}{'second':>9}{'seconds':>9}{'of it terms':>12}")
    print(f"{'(before)':<30}{before['first_before']:>9.2f}{before['second_before']:>9.2f}")
    for name, parts in rows.items():
        mean = {key: statistics.mean(part[key] for part in parts) for key in ("first_after", "second_after", "seconds")}
        terms = statistics.mean(sum(part["terms"].values()) for part in parts)
        print(f"{name:<30}{mean['first_after']:>9.2f}{mean['second_after']:>9.2f}{mean['seconds']:>9.0f}{terms:>12.0f}")


if __name__ == "__main__":
    main()
