#!/usr/bin/env python3
"""One schedule on one task, by graft and by transformers' Trainer, side by side: accuracy and time per phase.

usage: text_schedule.py --data DIR [--full] [--seeds 3] [--sides graft peer nostore fastai]
       text_schedule.py --data DIR --units 4 --epochs 10 5 3             a long schedule (half an hour)
       text_schedule.py --data DIR --long 0.1 --units 0 --epochs 1 0 2   full fine-tuning on long-tailed lengths
       text_schedule.py --data DIR --precision bfloat16                  both sides under autocast

Head alone, then `--units` layers one after another from the last, then everything; `--epochs` says how long (5 5 2).
AdamW, warm-up over a tenth, linear decay, gradients clipped at 1, batch 32. Each phase starts from the best weights, by validation accuracy, of the one
before, and keeps them when no epoch is better. 1,500 training and 500 validation rows, or all by --full. Both sides
read the same files, use the same number of threads and take turns; seconds of a phase include its evaluations and, for
graft, computing the frozen blocks. The sweep of the head and the report on the source are off, so that both do the same
work; the verdict, which the peer has not, is timed apart. `nostore` is graft computing frozen blocks in each step;
`fastai` is a second peer, fastai's Learner over the same model.
`--long 0.1` joins texts of one label to documents of up to 512 tokens and makes a tenth of each split of them.
Memory is the peak of anonymous and shared resident memory; mapped files apart.
"""
import json
import math
import statistics
from random import Random

from side_by_side import (BENCH, GRAFT, Results, arguments, checked, cut_data, events, fresh, peer_python, result_of, run, say, settings,
                          stop, threads, wait_for_quiet)

SHARED = {"batch_size": 32, "warmup_fraction": 0.1, "weight_decay": 0.01, "max_gradient_norm": 1.0, "max_length": 128}
HEAD, UNFREEZE, FULL, DIVISOR = 1e-3, 1e-4, 1e-5, 2.6


def schedule_of(model, epochs, units, max_length, precision):
    """The phases, with the learning rate of each group, for a BERT of any depth."""
    layers = json.loads((model / "config.json").read_text())["num_hidden_layers"]
    if units >= layers:
        stop(f"{model} has {layers} layers; give fewer --units")
    from_last = [f"layer {i}" for i in range(layers - 1, -1, -1)]
    head, unfreeze, full = epochs
    phases = [{"name": "head", "epochs": head, "rates": {"head": HEAD}}]
    for unit in range(1, units + 1):
        rates = {layer: UNFREEZE / DIVISOR**depth for depth, layer in enumerate(from_last[:unit])}
        phases.append({"name": f"unfreeze {unit}", "epochs": unfreeze, "rates": {"head": UNFREEZE, **rates}})
    phases.append({"name": "full", "epochs": full, "rates": {group: FULL for group in ["head", *from_last, "embeddings"]}})
    return {**SHARED, "max_length": max_length, "precision": precision, "units": units, "layers": layers, "phases": [phase for phase in phases if phase["epochs"] > 0]}


def with_long_documents(data, share, words):
    """The data with a share of each split made of texts of one label, joined until a document has up to `words` words."""
    target = data.with_name(f"{data.name}-long-{share:g}")
    target.mkdir(exist_ok=True)
    for split in ("train", "validation", "test"):
        rows = [json.loads(line) for line in open(data / f"{split}.jsonl", encoding="utf-8")]
        random = Random(split)
        short = rows[:round(len(rows) * (1 - share))]
        texts = {label: [row["text"] for row in rows if row["label"] == label] for label in {row["label"] for row in rows}}
        documents = []
        for row in rows[len(short):]:
            text, limit = row["text"], random.randint(words // 4, words)
            while len((longer := f"{text} {random.choice(texts[row['label']])}").split()) <= limit:
                text = longer
            documents.append({**row, "text": text})
        mixed = short + documents
        random.shuffle(mixed)
        (target / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in mixed), encoding="utf-8")
    return target


def recipe_of(schedule):
    """The same schedule as keys of graft's recipe: one setting of the head, no early end, whatever the evidence says."""
    epochs = {phase["name"]: phase["epochs"] for phase in schedule["phases"]}
    head, full = epochs["head"], epochs.get("full", 0)
    return {"train.batch_size": schedule["batch_size"], "train.warmup_fraction": schedule["warmup_fraction"],
            "train.weight_decay": schedule["weight_decay"], "train.max_gradient_norm": schedule["max_gradient_norm"],
            "train.threads": threads(), "train.precision": schedule["precision"], "max_length": schedule["max_length"], "finetune.metric": "accuracy",
            "finetune.head.closed_form": False, "finetune.head.learning_rates": [HEAD], "finetune.head.weight_decays": [schedule["weight_decay"]],
            "finetune.head.epochs": head, "finetune.head.min_epochs": head, "finetune.head.patience": 0,
            "finetune.unfreeze.max_units": schedule["units"], "finetune.unfreeze.patience_units": 0,
            "finetune.unfreeze.epochs": epochs.get("unfreeze 1", 1), "features.units_ahead": schedule["units"],
            "finetune.unfreeze.learning_rate": UNFREEZE, "finetune.unfreeze.divisor": DIVISOR,
            "finetune.unfreeze.head_learning_rate": UNFREEZE,
            "finetune.full.when": "always" if full else "never", "finetune.full.epochs": max(1, full), "finetune.full.patience": 0,
            "finetune.full.learning_rate": FULL, "retain.report": False}


def graft_side(data, model, folder, schedule, seed, **more):
    output, seconds, peak, _ = run([GRAFT, "run", "--source", model, "--data", data, "--out", fresh(folder), "--json", "--quiet",
                                 *settings({"seed": seed, **recipe_of(schedule), **more})])
    phases = [{"phase": event["phase"], "seconds": event["seconds"], "capture_seconds": event["capture"]["seconds"],
               "validation": event["validation"]} for event in events(folder, "phase_end")]
    return {"phases": phases, "test": result_of(output)["test"]["accuracy"], "wall_seconds": seconds, "peak_bytes": peak,
            "verdict_seconds": next(event["seconds"] for event in events(folder, "verdict"))}


def nostore_side(*given):
    return graft_side(*given, **{"features.enabled": False})


def peer_side(data, model, folder, schedule, seed, library="trainer"):
    fresh(folder).mkdir()
    (folder / "schedule.json").write_text(json.dumps(schedule))
    output, seconds, peak, _ = run([peer_python(), BENCH / f"peers/{library}_schedule.py", data, model, folder, folder / "schedule.json", seed])
    return {**result_of(output), "wall_seconds": seconds, "peak_bytes": peak}


def fastai_side(*given):
    return peer_side(*given, library="fastai")


def show(parts, schedule, seeds):
    """Both test accuracies over the seeds and, per phase, how many times graft's seconds go into the peer's."""
    sides = {side: [parts[f"{side} {seed}"] for seed in range(seeds) if f"{side} {seed}" in parts] for side in ("graft", "nostore", "peer", "fastai")}
    for side, measured in sides.items():
        tests = [part["test"] for part in measured]
        if tests:
            spread = f"standard deviation {statistics.stdev(tests):.4f}, {len(tests)} seeds" if len(tests) > 1 else "one seed"
            print(f"{side:8}test accuracy {statistics.mean(tests):.4f} ({spread})")
    for peer in "peer", "fastai":
        if sides["graft"] and sides[peer]:
            compare(sides["graft"], sides[peer], peer, schedule)
    if sides["graft"]:
        print(f"{'verdict, graft only':24}{statistics.median(part['verdict_seconds'] for part in sides['graft']):10.1f}")


def compare(ours, theirs, peer, schedule):
    names = [phase["name"] for phase in schedule["phases"]]
    units = [name for name in names if name.startswith("unfreeze")]
    print(f"{'phase':24}{'graft s':>10}{peer + ' s':>10}{'ratio':>8}{'bound':>8}")
    for title, counted in [*((name, [name]) for name in names),
                           *((f"head and {k} unfreezings", ["head", *units[:k]]) for k in range(2, len(units) + 1, 2)), ("all", names)]:
        a, b = (statistics.median(sum(phase["seconds"] for phase in part["phases"] if phase["phase"] in counted) for part in side)
                for side in (ours, theirs))
        print(f"{title:24}{a:10.1f}{b:10.1f}{b / a if a else math.inf:8.2f}{bound(schedule, counted):8.2f}")
    a, b = (statistics.median(part["peak_bytes"] for part in side) / 1e6 for side in (ours, theirs))
    print(f"{'peak MB':24}{a:10.0f}{b:10.0f}{b / a:8.2f}")


def bound(schedule, counted):
    """What the store alone can give by arithmetic, against a peer that runs the whole encoder forward in each epoch: a
    phase of E epochs with F forward and B backward block passes an epoch costs the peer E (F + B) and graft, at best,
    its share of one capture pass F and E (trained blocks forward + backward). A backward pass counts as two forward
    ones; the last block counts where the head reads only its key and value projections (a sixth)."""
    layers, last = schedule["layers"], 1 / 6
    ours = theirs = 0
    for phase in schedule["phases"]:
        if phase["name"] not in counted:
            continue
        unit = 0 if phase["name"] == "head" else layers if phase["name"] == "full" else int(phase["name"].split()[1])
        theirs += phase["epochs"] * (layers + 2 * unit)
        ours += layers - 1 + last if unit == 0 else phase["epochs"] * 3 * (unit - 1 + last)
    return theirs / ours


def main():
    parser = arguments(__doc__, out="text-schedule", more_sides=["nostore", "fastai"])
    parser.add_argument("--full", action="store_true", help="all training and validation rows")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--train", type=int, default=1500, help="training rows (default 1500)")
    parser.add_argument("--validation", type=int, default=500, help="validation rows (default 500)")
    parser.add_argument("--test", type=int, default=0, help="test rows (default: all)")
    parser.add_argument("--epochs", type=int, nargs=3, default=[5, 5, 2], metavar=("HEAD", "UNFREEZE", "FULL"),
                        help="of the head, of each unit and of the full phase (default 5 5 2; FULL 0: none)")
    parser.add_argument("--units", type=int, default=2, help="layers to unfreeze (default 2)")
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="float32", help="bfloat16: autocast on both sides")
    parser.add_argument("--long", type=float, default=0, help="share of long documents (default 0)")
    options = checked(parser)
    train, validation = (0, 0) if options.full else (options.train, options.validation)

    data = cut_data(options.data, options.out, train=train, validation=validation, test=options.test)
    if options.long:
        data = with_long_documents(data, options.long, words=380)
    schedule = schedule_of(options.model, options.epochs, options.units, 512 if options.long else SHARED["max_length"], options.precision)
    if options.precision != "float32" and "fastai" in options.sides:
        stop("--sides fastai: its peer here knows float32 alone")
    if {"peer", "fastai"} & set(options.sides):
        peer_python()
    results = Results(options.out / f"{data.name}.json", {"schedule": schedule, "data": options.data, "model": options.model})
    measure = {"graft": graft_side, "nostore": nostore_side, "peer": peer_side, "fastai": fastai_side}
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
