#!/usr/bin/env python3
"""Photographs to microscopy: a ResNet-20 of CIFAR-10 on another set of images, by graft (also with AdaBN), by plain PyTorch and
torchvision on the same schedule, and the same network trained from scratch. Test accuracy after each phase, over seeds.

usage: image_schedule.py --data DIR --weights resnet20.th [--own CIFAR10/test] [--seeds 3] [--sides graft adabn peer scratch]

DIR has train, validation and test with a folder for each class. Head alone, then `--units` stages one after another from
the last, then everything; `--epochs` says how long (10 5 5), `--scratch` how long from scratch (60, at 3e-3). AdamW, warm-up
over a tenth, linear decay, gradients clipped at 1, batch 32. Images are resized to 32 on the short side and cropped.
graft measures a test set at the end of a run, so it runs once for each phase: all runs are alike up to there. With --own, a
folder for each of the source's own classes, the source's accuracy there is measured first, as it came (81.2 % on CIFAR-10's
2,000 test images as JPEG, by the authors' code).
"""
import argparse
import json
import pathlib
import shutil
import statistics

from side_by_side import (BENCH, GRAFT, Results, fresh, peer_python, result_of, run, say, settings, stop, threads,
                          wait_for_quiet)

SHARED = {"batch_size": 32, "warmup_fraction": 0.1, "weight_decay": 0.01, "max_gradient_norm": 1.0}
HEAD, UNFREEZE, FULL, SCRATCH, DIVISOR = 1e-2, 1e-3, 3e-4, 3e-3, 2.6
STAGES = ["stage 3", "stage 2", "stage 1", "stem"]  # from the head down
SIDES = ("graft", "adabn", "peer", "scratch")
TRANSFORM = {"resize_size": 32, "crop_size": 32, "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225], "interpolation": "bilinear"}


def schedule_of(epochs, units, scratch):
    head, unfreeze, full = epochs
    phases = [{"name": "head", "epochs": head, "rates": {"head": HEAD}}]
    for unit in range(1, units + 1):
        rates = {stage: UNFREEZE / DIVISOR**depth for depth, stage in enumerate(STAGES[:unit])}
        phases.append({"name": f"unfreeze {unit}", "epochs": unfreeze, "rates": {"head": UNFREEZE, **rates}})
    phases.append({"name": "full", "epochs": full, "rates": {group: FULL for group in ["head", *STAGES]}})
    from_nothing = {"name": "scratch", "epochs": scratch, "rates": {group: SCRATCH for group in ["head", *STAGES]}}
    return {**SHARED, "phases": phases, "scratch": from_nothing}


def recipe_of(schedule, until):
    """The schedule up to the phase `until` as keys of graft's recipe."""
    epochs = {phase["name"]: phase["epochs"] for phase in schedule["phases"]}
    names = list(epochs)
    units = sum(name.startswith("unfreeze") for name in names[:until + 1])
    head = epochs["head"]
    return {**{f"train.{key}": value for key, value in SHARED.items()}, "train.threads": threads(), "finetune.metric": "accuracy", "finetune.head.closed_form": False,
            "finetune.head.learning_rates": [HEAD], "finetune.head.weight_decays": [SHARED["weight_decay"]],
            "finetune.head.epochs": head, "finetune.head.min_epochs": head, "finetune.head.patience": 0,
            "finetune.head.verdict": until == 0, "finetune.unfreeze.max_units": units, "finetune.unfreeze.patience_units": 0,
            "finetune.unfreeze.epochs": epochs.get("unfreeze 1", 1), "finetune.unfreeze.learning_rate": UNFREEZE,
            "finetune.unfreeze.divisor": DIVISOR, "finetune.unfreeze.head_learning_rate": UNFREEZE,
            "finetune.full.when": "always" if names[until] == "full" else "never", "finetune.full.epochs": epochs["full"],
            "finetune.full.patience": 0, "finetune.full.learning_rate": FULL}


def source_folder(options):
    """The weights with what says how their images are prepared and, where --own tells them, what their classes are."""
    model = options.out / "source"
    if not (model / "transform.json").exists():
        model.mkdir(parents=True, exist_ok=True)
        shutil.copy(options.weights, model / "weights.th")
        (model / "transform.json").write_text(json.dumps(TRANSFORM))
    if options.own:
        classes = sorted(path.name for path in options.own.iterdir() if path.is_dir())
        (model / "graft.json").write_text(json.dumps({"model_type": "resnet", "layout": "torchvision", "label_names": classes}))
    return model


def own_accuracy(options):
    answer = result_of(run([GRAFT, "evaluate", "--model", source_folder(options), "--data", options.own, "--json"]).output)
    return {"examples": answer["examples"], "accuracy": answer["metrics"]["accuracy"]}


def graft_side(options, schedule, seed, batch_norm):
    model = source_folder(options)
    phases = []
    for until, phase in enumerate(schedule["phases"]):
        folder = fresh(options.out / "runs" / f"{batch_norm}-{seed}")
        ran = run([GRAFT, "run", "--source", model, "--data", options.data, "--out", folder, "--json", "--quiet",
                   *settings({"seed": seed, "finetune.batch_norm": batch_norm, **recipe_of(schedule, until)})])
        result = result_of(ran.output)
        last = result["finetune"]["phases"][-1]
        phases.append({"phase": phase["name"], "seconds": last["seconds"], "validation": last["validation"], "test": result["test"]["accuracy"]})
        if "verdict" in result["finetune"]:
            phases[-1]["verdict"] = result["finetune"]["verdict"]
    return {"phases": phases, "test": phases[-1]["test"]}


def peer_side(options, schedule, seed, kind):
    place = options.out / "schedule.json"
    place.write_text(json.dumps(schedule))
    return result_of(run([peer_python(), BENCH / "peers/torch_schedule.py", options.data, options.weights, place, seed, kind]).output)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=pathlib.Path, required=True, help="folder with train, validation and test")
    parser.add_argument("--weights", type=pathlib.Path, required=True, help="the ResNet-20 (.th)")
    parser.add_argument("--own", type=pathlib.Path, help="images of the source's own classes, a folder for each (CIFAR-10's test set)")
    parser.add_argument("--out", type=pathlib.Path, default=BENCH / "results/image-schedule", help="folder of results and runs")
    parser.add_argument("--allow-busy", action="store_true", help="measure beside other programs; times are then worthless")
    parser.add_argument("--sides", nargs="*", choices=SIDES, default=SIDES, help="none: --own alone")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, nargs=3, default=[10, 5, 5], metavar=("HEAD", "UNFREEZE", "FULL"))
    parser.add_argument("--units", type=int, default=2, help="stages to unfreeze (default 2)")
    parser.add_argument("--scratch", type=int, default=60, help="epochs from scratch (default 60)")
    options = parser.parse_args()
    if not GRAFT.exists():
        stop(f"{GRAFT} is not built yet; run make build")
    schedule = schedule_of(options.epochs, options.units, options.scratch)
    options.out.mkdir(parents=True, exist_ok=True)
    results = Results(options.out / "image-schedule.json", {"schedule": schedule, "data": options.data.name})
    if options.own:
        own = results.part("source", lambda: own_accuracy(options))
        print(f"source  as it came, on {own['examples']} images of its own classes: accuracy {own['accuracy']:.4f}")
    measure = {"graft": lambda seed: graft_side(options, schedule, seed, "source"), "adabn": lambda seed: graft_side(options, schedule, seed, "target"),
               "peer": lambda seed: peer_side(options, schedule, seed, "schedule"), "scratch": lambda seed: peer_side(options, schedule, seed, "scratch")}
    for seed in range(options.seeds):
        for side in options.sides:
            def measured(side=side, seed=seed):
                wait_for_quiet(options.allow_busy)
                return measure[side](seed)
            results.part(f"{side} {seed}", measured)
    for side in SIDES:
        parts = [results.json["parts"][f"{side} {seed}"] for seed in range(options.seeds) if f"{side} {seed}" in results.json["parts"]]
        for i in range(len(parts[0]["phases"]) if parts else 0):
            tests = [part["phases"][i]["test"] for part in parts]
            spread = f"+- {statistics.stdev(tests):.4f}" if len(tests) > 1 else ""
            seconds = statistics.median(part["phases"][i]["seconds"] for part in parts)
            print(f"{side:8}{parts[0]['phases'][i]['phase']:12} test {statistics.mean(tests):.4f} {spread}  {seconds:6.1f} s")
        if parts and "verdict" in parts[0]["phases"][0]:
            print(f"{side:8}{parts[0]['phases'][0]['verdict']['sentence']}")
    say(f"written to {results.path}")


if __name__ == "__main__":
    main()
