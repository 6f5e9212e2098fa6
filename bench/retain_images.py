#!/usr/bin/env python3
"""What ResNet-20 keeps of CIFAR-10 while it learns blood cells: each method and strength of [retain].

usage: retain_images.py --weights resnet20.th --first CIFAR10 --second BCCD [--seeds 1]

--first and --second are folders of train, validation and test with a folder of images for each class (the first may lack a
validation split: then half of its test images choose and the other half report). The source is CIFAR's ResNet-20 as
akamaster/pytorch_resnet_cifar10 saves it; printed is its accuracy on --first's test images before and after, beside the new
task's, with the spread over seeds and the curve of gain against loss. The schedule is the same for all: head, then everything
at --rate. Batch norms keep the source's statistics, which no term holds, but where a method's name says that they move, and in
`none`. Results are kept after each run; the same command goes on.
"""
import json
import pathlib
import shutil

from retain_table import numbers, table
from side_by_side import BENCH, GRAFT, Results, arguments, fresh, result_of, run, settings, stop, threads

MOVING = {"finetune.batch_norm": "source"}  # norms take the new images' statistics, as they do by default
METHODS = {
    "none": MOVING,
    "ewc 10, norms move": {"retain.ewc.strength": 10.0, **MOVING},
    "lwf 1, norms move": {"retain.lwf.weight": 1.0, **MOVING},
    "replay 30 %, norms move": {"retain.replay.fraction": 0.3, **MOVING},
    "budget 1 %, norms move": {"retain.max_forgetting": 0.01, **MOVING},
    "held norms": {},
    "l2sp 0.1": {"retain.l2sp": 0.1},
    "l2sp 1": {"retain.l2sp": 1.0},
    "ewc 1": {"retain.ewc.strength": 1.0},
    "ewc 10": {"retain.ewc.strength": 10.0},
    "ewc 30": {"retain.ewc.strength": 30.0},
    "ewc 100": {"retain.ewc.strength": 100.0},
    "ewc 10, own labels": {"retain.ewc.strength": 10.0, "retain.ewc.labels": "own"},
    "lwf 1": {"retain.lwf.weight": 1.0},
    "lwf 3": {"retain.lwf.weight": 3.0},
    "replay 5 %": {"retain.replay.fraction": 0.05},
    "replay 30 %": {"retain.replay.fraction": 0.3},
    "replay 30 % + ewc 10": {"retain.replay.fraction": 0.3, "retain.ewc.strength": 10.0},
    "WiSE-FT": {"retain.interpolate": True},
    "budget 1 %": {"retain.max_forgetting": 0.01},
    "budget 1 %, ewc": {"retain.max_forgetting": 0.01, "retain.ewc.strength": 1.0},
    "budget 1 %, ewc 10": {"retain.max_forgetting": 0.01, "retain.ewc.strength": 10.0},
    "budget 1 %, replay": {"retain.max_forgetting": 0.01, "retain.replay.fraction": 0.05},
}


def source_folder(options):
    """The weights with what graft must know of them: their classes, and how images are prepared."""
    folder = options.out / "source"
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(options.weights, folder / options.weights.name)
    classes = sorted(path.name for path in (options.first / "test").iterdir() if path.is_dir())
    if len(classes) != 10:
        stop(f"{options.first / 'test'} holds {len(classes)} classes; CIFAR-10 has 10")
    (folder / "graft.json").write_text(json.dumps({"model_type": "resnet", "layout": "torchvision", "label_names": classes}))
    (folder / "transform.json").write_text(json.dumps({"resize_size": 32, "crop_size": 32, "mean": [0.485, 0.456, 0.406],
                                                       "std": [0.229, 0.224, 0.225]}))
    return folder


def trained(options, source, seed, name, method):
    folder = options.out / "runs" / f"{seed}-{name.replace(' ', '-').replace('%', '')}"
    recipe = {"seed": seed, "train.threads": threads(), "finetune.metric": "accuracy", "finetune.head.verdict": False,
              "finetune.head.learning_rates": [1e-2], "finetune.head.weight_decays": [0.01],
              "finetune.unfreeze.max_units": 0, "finetune.full.when": "always", "finetune.full.epochs": options.epochs,
              "finetune.full.patience": 0, "finetune.full.learning_rate": options.rate, "retain.examples": 2000,
              "retain.ewc.carry": False, "retain.curve": True,
              "finetune.batch_norm": "held", "retain.source_data.path": str(options.first), **method}
    output = run([GRAFT, "run", "--source", source, "--data", options.second, "--out", fresh(folder), "--json", "--quiet",
                  *settings(recipe)])
    return numbers(result_of(output.output), output.seconds)


def main():
    parser = arguments(__doc__, out="retain_images")
    parser.add_argument("--weights", type=pathlib.Path, required=True)
    parser.add_argument("--first", type=pathlib.Path, required=True)
    parser.add_argument("--second", type=pathlib.Path, required=True)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    for action in parser._actions:
        if action.dest == "data":
            action.required = False
    parser.set_defaults(data=BENCH)
    options = parser.parse_args()
    if not GRAFT.exists():
        stop(f"{GRAFT} is not built yet; run make build")
    source = source_folder(options)
    results = Results(options.out / "results.json", {"epochs": options.epochs, "rate": options.rate})
    rows = {name: [results.part(f"seed {seed}, {name}", lambda s=seed, n=name: trained(options, source, s, n, METHODS[n]))
                   for seed in range(options.seeds)] for name in options.methods}
    table(rows)


if __name__ == "__main__":
    main()
