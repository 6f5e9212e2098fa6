#!/usr/bin/env python3
"""Does the ranking of `graft select` agree with what the sources reach after the whole schedule?

usage: rank_quality.py [--texts NAME=DIR ...] [--weights resnet20.th --images NAME=DIR ...] [--train 300] [--seeds 1]

Candidates of different worth are made of each real source (peers/candidates.py). For every task graft ranks those of its
modality and then runs the schedule with each. The weighted Kendall tau compares the two orders: a pair weighs 1/r + 1/s,
r and s the places by accuracy; pairs within one standard error of the accuracy (of its test examples, and of its seeds where
there are several) are ties and left out. Its interval is a bootstrap over the tasks and over the test examples (95 %). Scores that only sources with a classifier have (LEEP, NCE) are
compared on these alone. The sections of Debian's packages are always a task (--no-debian: not), and with --weights so are the
garments of its Fashion-MNIST; beside each text task stands what TF-IDF and logistic regression reach, which is no source and not
ranked. Results are kept after each run; the same command goes on.
"""
import argparse
import json
import math
import pathlib
import random
import shutil
import statistics
import sys

from image_schedule import TRANSFORM
from side_by_side import (BENCH, GRAFT, MODEL, ROOT, Results, cut_data, fresh, peer_python, result_of, run, say, settings, stop,
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


def of_seeds(runs):
    """Variance of the mean over runs that differ in their seed; 0 of a single one."""
    return statistics.variance([run["accuracy"] for run in runs]) / len(runs) if len(runs) > 1 else 0


def drawn(accuracies, errors, draw):
    """Accuracies as another test set of the same size might have given them."""
    return {name: draw.gauss(value, errors[name]) for name, value in accuracies.items()}


def interval(tasks, score, resamples=1000):
    """95 % of the mean tau over tasks, the tasks and the accuracies drawn anew each time."""
    draw = random.Random(0)
    means = []
    for _ in range(resamples):
        values = []
        for task in draw.choices(tasks, k=len(tasks)):
            names = task["scores"][score]
            accuracies = drawn({name: task["accuracies"][name] for name in names}, task["errors"], draw)
            values.append(tau(names, accuracies, task["errors"]))
        values = [value for value in values if not math.isnan(value)]
        if values:
            means.append(statistics.mean(values))
    means.sort()
    return (means[int(0.025 * len(means))], means[int(0.975 * len(means))]) if means else (math.nan, math.nan)


def debian(options):
    """The sections of Debian's packages by their descriptions, of apt's lists."""
    place = options.out / "debian-texts"
    run([sys.executable, ROOT / "scripts" / "demo_data.py", "--out", place, "--train", options.train,
         "--validation", options.train // 2, "--test", options.test, "--corpus", 1], env={"GRAFT_DEPS": str(MODEL.parent)})
    return place


def garments(options):
    """Fashion-MNIST of Debian's package: as many labelled images as a text task has texts."""
    place = options.out / "debian-images"
    run([sys.executable, ROOT / "scripts" / "demo_images_data.py", "--out", place, "--unlabelled", 1, "--train", options.train,
         "--validation", options.train // 2, "--test", options.test])
    return place / f"labelled-{options.train}.zip"


def resnet(options):
    """A folder that graft runs, of bare weights."""
    place = options.out / "resnet-source"
    place.mkdir(parents=True, exist_ok=True)
    shutil.copy(options.weights, place / "weights.th")
    (place / "transform.json").write_text(json.dumps(TRANSFORM))
    return place


def table_of(tasks, title):
    print(f"\n{title:<20}" + "".join(f"{task['name']:>18}" for task in tasks) + f"{'mean':>10}   95 %")
    for score in sorted({score for task in tasks for score in task["scores"]}, key=lambda score: (score != "combined", score)):
        of = [task for task in tasks if len(task["scores"].get(score, {})) > 1]
        row = {task["name"]: tau(task["scores"][score], {n: task["accuracies"][n] for n in task["scores"][score]}, task["errors"]) for task in of}
        known = [value for value in row.values() if not math.isnan(value)]
        cells = "".join(f"{row[task['name']]:>12.3f} ({len(task['scores'][score]):>2}) " if task in of else f"{'-':>17} " for task in tasks)
        if known:
            low, high = interval(of, score)
            print(f"{score:<20}{cells}{statistics.mean(known):>10.3f}   {low:.3f} to {high:.3f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=pathlib.Path, default=MODEL, help="a BERT folder (default: MiniLM of scripts/demo_data.py)")
    parser.add_argument("--texts", nargs="*", default=[], metavar="NAME=DIR", help="folders with train, validation and test.jsonl")
    parser.add_argument("--no-debian", action="store_true", help="without the tasks of Debian's packages")
    parser.add_argument("--weights", type=pathlib.Path, help="bare weights of a ResNet of CIFAR's kind (*.th)")
    parser.add_argument("--images", nargs="*", default=[], metavar="NAME=DIR", help="folders with train, validation and test")
    parser.add_argument("--train", type=int, default=300, help="training examples of a text task, and of Fashion-MNIST")
    parser.add_argument("--test", type=int, default=1000)
    parser.add_argument("--units", type=int, default=1, help="most units that the schedule unfreezes before all")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--out", type=pathlib.Path, default=BENCH / "results" / "rank-quality")
    parser.add_argument("--allow-busy", action="store_true")
    options = parser.parse_args()
    if options.images and not options.weights:
        stop("--images needs the candidates of a ResNet: give its --weights")

    given = [(task, True) for task in options.texts] + [(task, False) for task in options.images]
    wanted = []
    for task, of_text in given:
        name, _, folder = task.partition("=")
        if not folder:
            stop(f"{task}: expected NAME=DIR")
        wanted.append((name, pathlib.Path(folder), options.model if of_text else resnet(options), of_text))
    if not options.no_debian:
        wanted.insert(0, ("debian", debian(options), options.model, True))
        if options.weights:
            wanted.append(("fashion", garments(options), resnet(options), False))
    results = Results(options.out / "results.json", {"train": options.train, "test": options.test, "units": options.units})
    parts = results.json["parts"]
    tasks = []
    for name, folder, source, of_text in wanted:
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
        if of_text:
            results.part(f"{name} tfidf", lambda: result_of(run([peer_python(), BENCH / "peers" / "tfidf.py", data]).output))
        for candidate in candidates:
            for seed in range(options.seeds):
                def finished(candidate=candidate, seed=seed):
                    wait_for_quiet(options.allow_busy)
                    ran = run([GRAFT, "run", "--json", "--quiet", "--source", candidate, "--data", data, "--out", fresh(options.out / "run"),
                               *settings({"seed": seed, "finetune.metric": "accuracy", "finetune.head.verdict": False, "retain.report": False,
                                          "finetune.unfreeze.max_units": options.units, "finetune.full.when": "always", "train.threads": threads()})])
                    test = result_of(ran.output)["test"]
                    return {"accuracy": test["accuracy"], "examples": test["examples"], "seconds": ran.seconds}
                results.part(f"{name} {candidate.name} {seed}", finished)

        ranking = {item["source"]: item for item in parts[f"{name} select"]["ranking"]}
        runs = {source: [parts[f"{name} {source} {seed}"] for seed in range(options.seeds)] for source in ranking}
        accuracies = {source: statistics.mean(one["accuracy"] for one in ran) for source, ran in runs.items()}
        errors = {source: math.sqrt(accuracies[source] * (1 - accuracies[source]) / ran[0]["examples"] + of_seeds(ran)) for source, ran in runs.items()}
        scores = {"combined": {source: item["combined"] for source, item in ranking.items()}}
        for source, item in ranking.items():
            for score, value in item["scores"].items():
                scores.setdefault(score, {})[source] = value
        tasks.append({"name": name, "accuracies": accuracies, "errors": errors, "scores": scores})
        print(f"\n{name}: " + ", ".join(f"{source} {accuracies[source]:.4f}" for source in sorted(accuracies, key=accuracies.get, reverse=True)))
        print(f"  taken: {parts[f'{name} select']['winner']}")
        if of_text:
            print(f"  TF-IDF and logistic regression (no source, not ranked): {parts[f'{name} tfidf']['accuracy']:.4f}")
    table_of(tasks, "tau (sources)")
    say(f"written to {results.path}")


if __name__ == "__main__":
    main()
