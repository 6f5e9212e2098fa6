#!/usr/bin/env python3
"""Five tasks one after another, the permuted protocol of continual learning: what [retain] keeps, beside Avalanche's EWC.

usage: retain_tasks.py [--full] [--sets fashion digits] [--seeds 3] [--sides graft peer]

Each task is the same images with their pixels in another order (Goodfellow et al. 2013; Kirkpatrick et al. 2017, sec. 2.1), on
Fashion-MNIST (Debian's package) and scikit-learn's digits, with an MLP of two hidden layers and one head for all tasks.
A method learns them in turn, each run starting from the model of the one before; EWC's Fisher travels with that model.
Printed: the accuracy on the test images of all five tasks after the last, its mean and spread over seeds. `joint`
learns all at once. Strengths are chosen on seed 0, by validation images, from a grid of the same number of points for both
sides, and then held. The peer sees the same archives, starts from the same kind of weights, and has the same network,
optimizer (AdamW, one rate), batch size and epochs; it has no choice of the best epoch and no decay of the rate. Default:
2,000 images a task and an MLP of 256; --full: 10,000 and the wider grid. Results are kept after each part; the same
command goes on.
"""
import argparse
import array
import json
import pathlib
import random
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile
import zipfile

from side_by_side import BENCH, GRAFT, ROOT, Results, fresh, peer_python, result_of, run, say, settings, stop, threads

sys.path.insert(0, str(ROOT / "scripts"))
import demo_images_data as fashion  # noqa: E402: it reads the IDX files

PEER = BENCH / "peers" / "avalanche_ewc.py"
TASKS = 5
BATCH = 64
SIZES = {"fashion": {"side": 28, "epochs": 5, "validation": 500, "test": 1000},
         "digits": {"side": 8, "epochs": 20, "validation": 250, "test": 500}}
GRID = {"l2sp": [1e-2, 1e-1, 1.0], "ewc": [1e1, 1e2, 1e3], "lwf": [0.3, 1.0, 3.0], "avalanche": [1e1, 1e2, 1e3]}
FULL_GRID = {"l2sp": [1e-3, 1e-2, 1e-1, 1.0, 10.0], "ewc": [1.0, 1e1, 1e2, 1e3, 1e4], "lwf": [0.1, 0.3, 1.0, 3.0, 10.0],
             "avalanche": [1.0, 1e1, 1e2, 1e3, 1e4]}
METHODS = ["none", "l2sp", "ewc", "lwf", "replay", "ewc+replay", "joint"]


def continual_python():
    """The interpreter of bench/.venv-continual: Avalanche, and scikit-learn for its digits."""
    return peer_python("-continual", "Avalanche and PyTorch")


def images_of(name, options):
    """(pixels, label) of the training and of the held-out images."""
    if name == "fashion":
        place = fashion.INSTALLED
        if not (place / "train-images-idx3-ubyte.gz").exists():
            place = options.out / "fashion"
            if not (place / "train-images-idx3-ubyte.gz").exists():
                with tempfile.TemporaryDirectory() as work:
                    shutil.copytree(fashion.fetch(pathlib.Path(work)), place, dirs_exist_ok=True)
        return [list(zip(*fashion.read(place, part))) for part in ("train", "t10k")]
    script = ("import json; from sklearn.datasets import load_digits; d = load_digits(); "
              "print(json.dumps([(d.data * 15).astype(int).tolist(), d.target.tolist()]))")
    data, labels = json.loads(subprocess.run([options.python or continual_python(), "-c", script], capture_output=True, text=True,
                                             check=True).stdout)
    both = [(bytes(row), label) for row, label in zip(data, labels)]
    random.Random("digits").shuffle(both)
    held = SIZES[name]["validation"] + SIZES[name]["test"]
    return [both[held:], both[:held]]


def make_tasks(name, options, seed):
    """Archives of one seed: task-K.zip, validation-K.zip (as a test split), before-K.zip (tasks 0 to K - 1), all.zip."""
    size = SIZES[name]
    folder = options.out / "data" / f"{name}-{seed}-{options.train}"
    if (folder / "ready").exists():
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    draw = random.Random(f"{name} {seed}")
    training, held = images_of(name, options)
    training = draw.sample(training, min(options.train, len(training)))
    held = draw.sample(held, min(len(held), size["validation"] + size["test"]))
    splits = {"train": training, "validation": held[:size["validation"]], "test": held[size["validation"]:]}
    pixels = size["side"] ** 2
    tasks = []
    for task in range(TASKS):
        order = list(range(pixels)) if task == 0 else draw.sample(range(pixels), pixels)
        tasks.append({split: [(fashion.png(bytes(image[p] for p in order), size["side"]), label) for image, label in some]
                      for split, some in splits.items()})

    def write(path, chosen, rename=lambda split: split):
        with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
            for task in chosen:
                for split, some in tasks[task].items():
                    if rename(split):
                        for i, (image, label) in enumerate(some):
                            archive.writestr(zipfile.ZipInfo(f"{rename(split)}/{label}/{task}-{i:05}.png"), image)
    for task in range(TASKS):
        write(folder / f"task-{task}.zip", [task])
        write(folder / f"validation-{task}.zip", [task], lambda split: "test" if split == "validation" else None)
        if task:
            write(folder / f"before-{task}.zip", range(task))
    write(folder / "all.zip", range(TASKS))
    (folder / "ready").touch()
    return folder


def make_model(folder, name, seed, width):
    """An MLP as torch initialises one."""
    draw = random.Random(f"model {seed}")
    sizes = [SIZES[name]["side"] ** 2, width, width, 10]
    header, data = {}, b""
    for i, (ins, outs) in enumerate(zip(sizes, sizes[1:])):
        key = "classifier" if i == 2 else f"mlp.layers.{i}"
        for part, shape in (("weight", [outs, ins]), ("bias", [outs])):
            count = outs * (ins if part == "weight" else 1)
            values = array.array("f", (draw.uniform(-1, 1) / ins ** 0.5 for _ in range(count))).tobytes()
            header[f"{key}.{part}"] = {"dtype": "F32", "shape": shape, "data_offsets": [len(data), len(data) + len(values)]}
            data += values
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data)
    (folder / "graft.json").write_text(json.dumps({"model_type": "mlp", "layout": "torch", "gray": True,
                                                   "label_names": [str(k) for k in range(10)]}))
    side = SIZES[name]["side"]
    (folder / "transform.json").write_text(json.dumps({"resize_size": side, "crop_size": side, "mean": [0.5] * 3, "std": [0.5] * 3}))
    return folder


def learned(options, name, source, data, folder, seed, more):
    recipe = {"seed": seed, "train.threads": threads(), "train.batch_size": BATCH, "train.micro_batch_tokens": 1 << 20,
              "finetune.metric": "accuracy", "finetune.head.verdict": False, "finetune.head.closed_form": False,
              "finetune.head.epochs": 1, "finetune.head.min_epochs": 1, "finetune.head.learning_rates": [options.rate],
              "finetune.head.weight_decays": [0.01], "finetune.unfreeze.max_units": 0, "finetune.full.when": "always",
              "finetune.full.epochs": SIZES[name]["epochs"], "finetune.full.patience": 0,
              "finetune.full.learning_rate": options.rate, "retain.report": False, **more}
    run([GRAFT, "finetune", "--source", source, "--data", data, "--out", fresh(folder), "--json", "--quiet", *settings(recipe)])
    return folder / "model"


def accuracies(model, data, split):
    """Of each task."""
    names = [f"{'validation' if split == 'validation' else 'task'}-{task}.zip" for task in range(TASKS)]
    return [result_of(run([GRAFT, "evaluate", "--model", model, "--data", data / file, "--json"]).output)["metrics"]["accuracy"]
            for file in names]


def in_turn(options, name, seed, method, strength):
    """One method's way through the tasks: accuracy on each after the last."""
    data = make_tasks(name, options, seed)
    place = options.out / "runs" / f"{name}-{seed}"
    start = place / "start"
    if method == "joint":
        model = learned(options, name, make_model(start, name, seed, options.width), data / "all.zip", place / "joint", seed, {})
        return judged(model, data)
    model = place / "first" / "model"
    if not model.exists():
        model = learned(options, name, make_model(start, name, seed, options.width), data / "task-0.zip", place / "first", seed, {})
    fisher = model / "fisher.safetensors"
    fisher.unlink(missing_ok=True)
    if "ewc" in method:
        run([GRAFT, "retain", "fisher", "--json", "--model", model, "--data", data / "task-0.zip", "--examples", options.fisher,
             "--out", fisher])
    for task in range(1, TASKS):
        more = {}
        if method == "l2sp":
            more["retain.l2sp"] = strength
        if "ewc" in method:
            more.update({"retain.ewc.strength": strength, "retain.ewc.examples": options.fisher})
        if method == "lwf":
            more["retain.lwf.weight"] = strength
        if "replay" in method:
            more.update({"retain.replay.fraction": 0.2, "retain.replay.size": options.buffer,
                         "retain.source_data.path": str(data / f"before-{task}.zip")})
        model = learned(options, name, model, data / f"task-{task}.zip", place / f"{method}-{task}", seed, more)
    return judged(model, data)


def judged(model, data):
    return {"test": accuracies(model, data, "test"), "validation": accuracies(model, data, "validation")}


def of_peer(options, name, seed, strength):
    data = make_tasks(name, options, seed)
    return result_of(run([options.python or continual_python(), PEER, data, TASKS, SIZES[name]["side"], options.width,
                          SIZES[name]["epochs"], BATCH, options.rate, strength, seed], env={"PYTHONPATH": ""}).output)


def average(part, split="test"):
    return 100 * statistics.mean(part[split])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, default=BENCH / "results" / "retain_tasks", help="folder of results and runs")
    parser.add_argument("--sets", nargs="+", choices=list(SIZES), default=list(SIZES))
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--sides", nargs="+", choices=["graft", "peer"], default=["graft", "peer"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--train", type=int, help="training images of a task")
    parser.add_argument("--width", type=int, default=256, help="of the hidden layers")
    parser.add_argument("--rate", type=float, default=1e-3, help="learning rate")
    parser.add_argument("--fisher", type=int, default=500, help="examples of a Fisher")
    parser.add_argument("--buffer", type=int, default=500, help="images that replay keeps")
    parser.add_argument("--points", type=int, help="of each grid, fewer than there are")
    parser.add_argument("--python", type=pathlib.Path, help="an interpreter that has Avalanche, instead of bench/.venv-continual")
    options = parser.parse_args()
    options.train = options.train or (10000 if options.full else 2000)
    if "graft" in options.sides and not GRAFT.exists():
        stop(f"{GRAFT} is not built yet; run make build")
    grid = {method: points[:options.points] for method, points in (FULL_GRID if options.full else GRID).items()}
    results = Results(options.out / "results.json", {"train": options.train, "width": options.width, "rate": options.rate,
                                                     "fisher": options.fisher, "buffer": options.buffer, "grid": grid})
    for name in options.sets:
        ways = [(method, lambda seed, s, method=method: in_turn(options, name, seed, method, s))
                for method in options.methods if "graft" in options.sides]
        if "peer" in options.sides:
            ways.append(("avalanche", lambda seed, s: of_peer(options, name, seed, s)))
        chosen = {}
        print(f"\n{name}, {options.train} training images a task\n{'method':<14}{'strength':>10}{'average accuracy':>20}{'first task':>12}{'last':>8}")
        for method, measure in ways:
            points = grid.get(method, [None])
            if method == "ewc+replay":
                points = [chosen.get("ewc", grid["ewc"][0])]
            parts = {point: results.part(f"{name}, {method} {point}, seed 0", lambda point=point: measure(0, point)) for point in points}
            best = max(points, key=lambda point: average(parts[point], "validation"))
            chosen[method] = best
            over = [parts[best]] + [results.part(f"{name}, {method} {best}, seed {seed}", lambda seed=seed: measure(seed, best))
                                    for seed in range(1, options.seeds)]
            values = [average(part) for part in over]
            spread = statistics.stdev(values) if len(values) > 1 else 0
            print(f"{method:<14}{'' if best is None else format(best, 'g'):>10}{statistics.mean(values):>12.1f} +- {spread:<4.1f}"
                  f"{100 * statistics.mean(part['test'][0] for part in over):>11.1f}%{100 * statistics.mean(part['test'][-1] for part in over):>7.1f}%",
                  flush=True)


if __name__ == "__main__":
    main()
