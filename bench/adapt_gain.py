#!/usr/bin/env python3
"""What domain-adaptive pre-training gives: perplexity before and after, and the accuracy of the finetuned model.

usage: adapt_gain.py --data DIR [--documents 4000] [--rows 1000] [--seeds 3]

The corpus is the text of the training split without its labels. For each seed graft runs twice on the same `--rows`
labelled rows: finetune alone, and adapt then finetune. Only graft is measured; there is no peer side.
"""
import json
import statistics

from side_by_side import (GRAFT, Results, arguments, checked, cut_data, events, fresh, head_of, result_of, run, say,
                          settings, threads, wait_for_quiet)


def measure(data, model, folder, seed, corpus, epochs):
    command = [GRAFT, "run", "--source", model, "--data", data, "--out", fresh(folder), "--json", "--quiet"]
    if corpus:
        command += ["--corpus", corpus, *settings({"adapt.epochs": epochs})]
    output, seconds, *_ = run([*command, *settings({"seed": seed, "finetune.metric": "accuracy", "train.threads": threads()})])
    result = result_of(output)
    phases = {event["phase"]: {"seconds": event["seconds"], "validation": event.get("validation")}
              for event in events(folder, "phase_end")}
    return {"test": result["test"]["accuracy"], "adapt": result.get("adapt"), "phases": phases, "wall_seconds": seconds}


def main():
    parser = arguments(__doc__, out="adapt-gain")
    parser.add_argument("--documents", type=int, default=4000, help="texts of the corpus (0: all)")
    parser.add_argument("--rows", type=int, default=1000, help="labelled training rows (default 1000)")
    parser.add_argument("--validation", type=int, default=500)
    parser.add_argument("--test", type=int, default=1000)
    parser.add_argument("--epochs", type=int, default=3, help="passes over the corpus")
    parser.add_argument("--seeds", type=int, default=3)
    options = checked(parser)

    data = cut_data(options.data, options.out, train=options.rows, validation=options.validation, test=options.test)
    corpus = options.out / f"corpus-{options.documents}.jsonl"
    head_of(options.data / "train.jsonl", options.documents, corpus)
    results = Results(options.out / f"{data.name}.json", {"data": options.data, "model": options.model, "documents": options.documents,
                                                             "epochs": options.epochs})
    for seed in range(options.seeds):
        for name, with_corpus in (("without", None), ("with", corpus)):
            def measured(name=name, with_corpus=with_corpus, seed=seed):
                wait_for_quiet(options.allow_busy)
                return measure(data, options.model, options.out / "runs" / f"{name}-{seed}", seed, with_corpus, options.epochs)
            results.part(f"{name} {seed}", measured)

    parts = results.json["parts"]
    without, adapted = ([parts[f"{name} {seed}"] for seed in range(options.seeds)] for name in ("without", "with"))
    before, after = (statistics.mean(part["adapt"][when]["perplexity"] for part in adapted) for when in ("before", "after"))
    print(f"perplexity on held-out text: {before:.2f} before, {after:.2f} after")
    gains = [b["test"] - a["test"] for a, b in zip(without, adapted)]
    print(f"test accuracy: {statistics.mean(part['test'] for part in without):.4f} without adapt, "
          f"{statistics.mean(part['test'] for part in adapted):.4f} with; gain per seed: " + ", ".join(f"{gain:+.4f}" for gain in gains))
    say(f"written to {results.path}")


if __name__ == "__main__":
    main()
