#!/usr/bin/env python3
"""Speed on images beside the usual tools, on the same machine in one run: decoding and preprocessing beside Pillow and
torchvision's loader, a training step beside timm, and a head phase of ten epochs through the store beside the usual loop.

usage: image_speed.py --photos DIR [--models resnet18 vit_tiny_patch16_224] [--parts decode step head]

DIR holds images of any size below folders of classes; they are enlarged to 640 x 480 and written as JPEGs of quality 90 (once),
half of them to a class `a`, half to `b`. Models are timm's with random weights, at 224 x 224. Both sides take turns, --rounds
times, and the median counts.
"""
import argparse
import json
import pathlib
import statistics

from side_by_side import (BENCH, GRAFT, Results, events, fresh, peer_python, result_of, run, say, settings, stop, threads, wait_for_quiet)

SIDE, BATCH, STEPS, EPOCHS = 224, 32, 6, 10
TRANSFORM = {"resize_size": SIDE * 8 // 7, "crop_size": SIDE, "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225], "interpolation": "bilinear"}
MAKE_PHOTOS = """
import pathlib, sys
from PIL import Image
photos, target, count = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), int(sys.argv[3])
files = sorted(p for p in photos.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg", ".png"))
for i in range(count):
    split = "train" if i < count * 2 // 3 else "validation"
    for place in (target / "all" / "ab"[i % 2], target / "splits" / split / "ab"[i % 2]):
        place.mkdir(parents=True, exist_ok=True)
        Image.open(files[i * len(files) // count]).convert("RGB").resize((640, 480), Image.BICUBIC).save(place / f"{i}.jpg", quality=90)
"""
MAKE_MODEL = """
import json, sys, timm
from safetensors.torch import save_file
name, folder = sys.argv[1:]
model = timm.create_model(name, num_classes=2)
save_file(model.state_dict(), folder + "/model.safetensors")
c = model.pretrained_cfg
json.dump({"architecture": name, "num_classes": 2, "pretrained_cfg": {"input_size": [3, 224, 224], "interpolation": "bilinear", "crop_pct": 0.875,
           "mean": c["mean"], "std": c["std"], "num_classes": 2}}, open(folder + "/config.json", "w"))
"""


def made_photos(options):
    target = options.out / f"photos-{options.count}"
    if not target.exists():
        beside = fresh(target.with_suffix(".tmp"))
        run([peer_python(), "-c", MAKE_PHOTOS, options.photos, beside, options.count])
        beside.rename(target)
    return target


def made_model(options, name):
    folder = options.out / "models" / name
    if not (folder / "config.json").exists():
        folder.mkdir(parents=True, exist_ok=True)
        run([peer_python(), "-c", MAKE_MODEL, name, folder])
    return folder


def decode(options, photos):
    """Images a second; graft with full decoding and with fast_decode."""
    preset = options.out / "models" / "transform"
    preset.mkdir(parents=True, exist_ok=True)
    (preset / "transform.json").write_text(json.dumps(TRANSFORM))
    rates = {"graft": [], "graft, fast_decode": [], "peer": []}
    for _ in range(options.rounds):
        for side, more in ("graft", []), ("graft, fast_decode", ["--fast-decode"]):
            ran = result_of(run([GRAFT, "preprocess", "--json", "--model", preset, "--outputs", options.out / "pixels.safetensors", *more, photos / "all"]).output)
            rates[side].append(ran["images"] / ran["seconds"])
        ran = result_of(run([peer_python(), BENCH / "peers/image_speed.py", "decode", photos / "all", SIDE]).output)
        rates["peer"].append(ran["images"] / ran["seconds"])
    (options.out / "pixels.safetensors").unlink()
    return {side: statistics.median(values) for side, values in rates.items()}


def trained(options, photos, name, recipe):
    """The journal of a run on the photos."""
    folder = fresh(options.out / "runs" / name)
    run([GRAFT, "run", "--source", made_model(options, name), "--data", photos / "splits", "--out", folder, "--quiet", "--json",
         *settings({"train.threads": threads(), "train.batch_size": BATCH, "finetune.metric": "accuracy", "finetune.head.closed_form": False, "finetune.head.verdict": False,
                    "finetune.head.learning_rates": [1e-3], "finetune.head.weight_decays": [0.01], "finetune.head.patience": 0,
                    "finetune.unfreeze.max_units": 0, "finetune.full.patience": 0, **recipe})])
    return folder


def step(options, photos, name):
    """Seconds of a step: those of a full phase of two epochs, whose validation is two images, by its steps."""
    ours, theirs = [], []
    small = photos / "step"
    for _ in range(options.rounds):
        folder = fresh(options.out / "runs" / f"{name}-step")
        run([GRAFT, "run", "--source", made_model(options, name), "--out", folder, "--quiet", "--json",
             *settings({"data.train": str(small / "train"), "data.validation": str(small / "validation"), "train.threads": threads(),
                        "train.batch_size": BATCH, "train.micro_batch_tokens": 10**6, "finetune.metric": "accuracy", "finetune.head.closed_form": False, "finetune.head.verdict": False, "finetune.head.epochs": 1,
                        "finetune.head.min_epochs": 1, "finetune.head.learning_rates": [1e-3], "finetune.head.weight_decays": [0.01],
                        "finetune.unfreeze.max_units": 0, "finetune.full.when": "always", "finetune.full.epochs": 2, "finetune.full.patience": 0})])
        full = next(event for event in events(folder, "phase_end") if event["phase"] == "full")
        ours.append(full["seconds"] / (2 * STEPS))
        ran = run([peer_python(), BENCH / "peers/image_speed.py", "step", name, small / "train", STEPS, BATCH])
        theirs.append(result_of(ran.output)["seconds_per_step"])
    return {"graft": statistics.median(ours), "peer": statistics.median(theirs)}


def head(options, photos, name):
    """Seconds of a head phase of ten epochs, the pass that fills graft's store included; what arithmetic allows beside it."""
    ours, theirs = [], []
    for _ in range(options.rounds):
        folder = trained(options, photos, name, {"finetune.head.epochs": EPOCHS, "finetune.head.min_epochs": EPOCHS, "finetune.full.when": "never"})
        ours.append(next(event for event in events(folder, "phase_end") if event["phase"] == "head")["seconds"])
        theirs.append(result_of(run([peer_python(), BENCH / "peers/image_speed.py", "head", name, photos / "splits", EPOCHS, BATCH]).output)["seconds"])
    return {"graft": statistics.median(ours), "peer": statistics.median(theirs), "bound": EPOCHS}


def split_for_steps(photos):
    """Training images for whole batches, and two for validation, so that an epoch is its steps."""
    small = photos / "step"
    if not small.exists():
        files = sorted((photos / "all").rglob("*.jpg"))
        wanted = STEPS * BATCH + 2
        if len(files) < wanted:
            stop(f"--count must be at least {wanted}")
        for i, file in enumerate(files[:wanted // 2] + files[-(wanted - wanted // 2):]):
            place = small / ("validation" if i in (0, wanted - 1) else "train") / file.parent.name
            place.mkdir(parents=True, exist_ok=True)
            (place / file.name).hardlink_to(file)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=pathlib.Path, required=True, help="folder with images")
    parser.add_argument("--models", nargs="+", default=["resnet18", "vit_tiny_patch16_224"], help="timm's names")
    parser.add_argument("--parts", nargs="+", choices=["decode", "step", "head"], default=["decode", "step", "head"])
    parser.add_argument("--count", type=int, default=300, help="photos to make (default 300)")
    parser.add_argument("--rounds", type=int, default=3, help="default 3")
    parser.add_argument("--out", type=pathlib.Path, default=BENCH / "results/image-speed", help="folder of results and runs")
    parser.add_argument("--allow-busy", action="store_true", help="measure beside other programs; times are then worthless")
    options = parser.parse_args()
    if not GRAFT.exists():
        stop(f"{GRAFT} is not built yet; run make build")
    options.out.mkdir(parents=True, exist_ok=True)
    photos = made_photos(options)
    split_for_steps(photos)
    results = Results(options.out / "image-speed.json", {"count": options.count, "rounds": options.rounds})

    def part(name, measure):
        def measured():
            wait_for_quiet(options.allow_busy)
            return measure()
        return results.part(name, measured)
    if "decode" in options.parts:
        rates = part("decode", lambda: decode(options, photos))
        for side, rate in rates.items():
            print(f"decode  {side:22}{rate:9.1f} images/s   {rate / rates['peer']:.2f} of Pillow and torchvision")
    for kind, measure in ("step", step), ("head", head):
        for name in options.models if kind in options.parts else ():
            part(f"{kind} {name}", lambda: measure(options, photos, name))
    for name, values in results.json["parts"].items():
        if name != "decode":
            bound = f", bound {values['bound']}" if "bound" in values else ""
            print(f"{name:32} graft {values['graft']:8.3f} s   peer {values['peer']:8.3f} s   {values['peer'] / values['graft']:.2f} times{bound}")
    say(f"written to {results.path}")


if __name__ == "__main__":
    main()
