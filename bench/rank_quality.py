#!/usr/bin/env python3
"""Does the ranking of `graft select` agree with what the sources reach after the whole schedule?

usage: rank_quality.py --model BERT --texts NAME=DIR ... [--resnet DIR --images NAME=DIR ...] [--train 1000] [--seeds 1]

Candidates of different worth are made of each real source (peers/candidates.py). For every task graft ranks those of its
modality and then runs the schedule with each. The weighted Kendall tau compares the two orders: a pair weighs 1/r + 1/s,
r and s the places by accuracy; pairs within one standard error of the test accuracy are ties and left out.
"""
import argparse
import json
import math
import pathlib
import random
import statistics

from side_by_side import (BENCH, GRAFT, MODEL, Results, cut_data, fresh, peer_python, result_of, run, say, settings, stop,
                          threads, wait_for_quiet)


def tau(scores, accuracies, errors):
    """Over pairs whose accuracies differ by more than the standard error of their difference; nan without any."""
    places = {name: place for place, name in enumerate(sorted(accuracies, key=accuracies.get, reverse=True), 1)}
    names = sorted(accuracies)
    agreed = total = 0.0
    for i, a in enumerate(names):
        for b in names[i + 1:]:
            gap = accuracies[a] - accuracies[b]
            if abs(gap) <= math.hypot(errors[a], errors[b]):
                continue
            weight = 1 / places[a] + 1 / places[b]
            difference = scores[a] - scores[b]
            total += weight
            agreed += weight * ((difference > 0) - (difference < 0)) * (1 if gap > 0 else -1)
    return agreed / total if total else math.nan


def interval(values, resamples=2000):
    draw = random.Random(0)
    means = sorted(statistics.mean(draw.choices(values, k=len(values))) for _ in range(resamples))
    return means[int(0.025 * resamples)], means[int(0.975 * resamples)]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=pathlib.Path, default=MODEL, help="a BERT folder (default: MiniLM of scripts/demo_data.py)")
    parser.add_argument("--texts", nargs="*", default=[], metavar="NAME=DIR", help="folders with train, validation and test.jsonl")
    parser.add_argument("--resnet", type=pathlib.Path, help="a folder with graft.json and the weights of a ResNet of CIFAR's kind")
    parser.add_argument("--images", nargs="*", default=[], metavar="NAME=DIR", help="folders with train, validation and test")
    parser.add_argument("--train", type=int, default=800, help="training examples of a text task")
    parser.add_argument("--test", type=int, default=1000)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--out", type=pathlib.Path, default=BENCH / "results" / "rank-quality")
    parser.add_argument("--allow-busy", action="store_true")
    options = parser.parse_args()
    if not options.texts and not options.images:
        stop("name at least one task: --texts NAME=DIR or --images NAME=DIR")

    tasks = []
    for given, source in [(task, options.model) for task in options.texts] + [(task, options.resnet) for task in options.images]:
        name, _, folder = given.partition("=")
        if source is None or not folder:
            stop(f"{given}: expected NAME=DIR, and --resnet for images")
        tasks.append((name, pathlib.Path(folder), source, given in options.texts))
    results = Results(options.out / "results.json", {"train": options.train, "test": options.test})
    for name, folder, source, of_text in tasks:
        place = options.out / ("texts" if of_text else "images")
        if not place.exists():
            run([peer_python(), BENCH / "peers" / "candidates.py", source, place])
        candidates = sorted(path for path in place.iterdir() if path.is_dir())
        data = cut_data(folder, options.out / name, train=options.train, validation=options.train // 2, test=options.test) if of_text else folder

        def ranked():
            arguments = [part for candidate in candidates for part in ("--candidate", candidate)]
            ran = run([GRAFT, "select", "--json", "--quiet", "--data", data, *arguments, *settings({"train.threads": threads()})])
            answer = result_of(ran.output)
            return {"ranking": answer["ranking"], "winner": answer["winner"], "dropped": answer["dropped"], "seconds": ran.seconds}
        results.part(f"{name} select", ranked)
        for candidate in candidates:
            for seed in range(options.seeds):
                def finished(candidate=candidate, seed=seed):
                    wait_for_quiet(options.allow_busy)
                    ran = run([GRAFT, "run", "--json", "--quiet", "--source", candidate, "--data", data, "--out", fresh(options.out / "run"),
                               *settings({"seed": seed, "finetune.metric": "accuracy", "finetune.head.verdict": False, "train.threads": threads()})])
                    test = result_of(ran.output)["test"]
                    return {"accuracy": test["accuracy"], "examples": test["examples"], "seconds": ran.seconds}
                results.part(f"{name} {candidate.name} {seed}", finished)

    table, parts = {}, results.json["parts"]
    for name, _, _, of_text in tasks:
        ranking = {item["source"]: item for item in parts[f"{name} select"]["ranking"]}
        runs = {source: [parts[f"{name} {source} {seed}"] for seed in range(options.seeds)] for source in ranking}
        accuracies = {source: statistics.mean(one["accuracy"] for one in ran) for source, ran in runs.items()}
        errors = {source: math.sqrt(accuracies[source] * (1 - accuracies[source]) / ran[0]["examples"]) for source, ran in runs.items()}
        orders = {"combined": {source: item["combined"] for source, item in ranking.items()}}
        for score in next(iter(ranking.values()))["scores"]:
            if all(score in item["scores"] for item in ranking.values()):
                orders[score] = {source: item["scores"][score] for source, item in ranking.items()}
        print(f"\n{name}: " + ", ".join(f"{source} {accuracies[source]:.4f}" for source in sorted(accuracies, key=accuracies.get, reverse=True)))
        print(f"  taken: {parts[f'{name} select']['winner']}")
        for score, values in orders.items():
            table.setdefault(score, {})[name] = tau(values, accuracies, errors)
    print(f"\n{'score':<20}" + "".join(f"{name:>14}" for name, *_ in tasks) + f"{'mean':>10}   95 % over tasks")
    for score, values in table.items():
        if len(values) < len(tasks):
            continue
        row = [values[name] for name, *_ in tasks]
        low, high = interval(row)
        print(f"{score:<20}" + "".join(f"{value:>14.3f}" for value in row) + f"{statistics.mean(row):>10.3f}   {low:.3f} to {high:.3f}")
    say(f"written to {results.path}")


if __name__ == "__main__":
    main()
