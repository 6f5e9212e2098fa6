#!/usr/bin/env python3
"""Speed on images beside the usual tools, on the same machine in one run: decoding and preprocessing beside Pillow and
torchvision's loader, a training step beside timm, and a head phase of ten epochs through the store beside the usual loop.

usage: image_speed.py --photos DIR [--models resnet18 vit_tiny_patch16_224] [--parts decode step head]

DIR holds images of any size below folders of classes. JPEGs with a short side of 256 or more are taken as they are; only what is
smaller is enlarged to 640 x 480 and written as a JPEG of quality 90, and how many were is said. Half of them become a class `a`,
half `b`. Decoding is measured on images of a camera's size too, 2048 x 1536, each a mosaic of 48 of DIR's: `fast_decode` has
something to leave out only where half an image is still as large as what is wanted, 256. Models are timm's with random weights,
at 224 x 224. Both sides take turns, --rounds times, and the median counts. Pixels are compared with the peer's before any speed is quoted. Each result stands beside its target, and the head phase beside
what arithmetic allows: multiplications of ten passes over those of one, from the peer's count of them.
"""
import argparse
import json
import pathlib
import statistics

from side_by_side import (BENCH, GRAFT, Results, events, fresh, peer_python, result_of, run, say, settings, stop, threads, wait_for_quiet)

SIDE, BATCH, STEPS, EPOCHS = 224, 32, 6, 10
TARGETS = {"graft": 1.3, "graft, fast_decode": 2.0, "step": 1.0, "head": 8.0}  # times the peer
EQUAL = 1e-5  # of pixel values, which are computed in another order
TRANSFORM = {"resize_size": SIDE * 8 // 7, "crop_size": SIDE, "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225], "interpolation": "bilinear"}
CAMERA, TILE = (2048, 1536), 256
MAKE_PHOTOS = """
import json, pathlib, shutil, sys
from PIL import Image
natural = 0
photos, target, count = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), int(sys.argv[3])
files = sorted(p for p in photos.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg", ".png"))
for i in range(count):
    file = files[i * len(files) // count]
    image = Image.open(file)
    as_it_is = image.format == "JPEG" and min(image.size) >= 256
    natural += as_it_is
    split = "train" if i < count * 2 // 3 else "validation"
    for place in (target / "all" / "ab"[i % 2], target / "splits" / split / "ab"[i % 2]):
        place.mkdir(parents=True, exist_ok=True)
        if as_it_is:
            shutil.copy(file, place / f"{i}.jpg")
        else:
            image.convert("RGB").resize((640, 480), Image.BICUBIC).save(place / f"{i}.jpg", quality=90)
(target / "about.json").write_text(json.dumps({"photos": count, "natural": natural}))
"""
MAKE_MOSAICS = """
import pathlib, sys
from PIL import Image
photos, target = map(pathlib.Path, sys.argv[1:3])
count, width, height, tile = map(int, sys.argv[3:])
files = sorted(p for p in photos.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg", ".png"))
tiles = [(x, y) for y in range(0, height, tile) for x in range(0, width, tile)]
for i in range(count):
    mosaic = Image.new("RGB", (width, height))
    for k, place in enumerate(tiles):
        mosaic.paste(Image.open(files[(i * len(tiles) + k) % len(files)]).convert("RGB").resize((tile, tile), Image.BICUBIC), place)
    place = target / "all" / "ab"[i % 2]
    place.mkdir(parents=True, exist_ok=True)
    mosaic.save(place / f"{i}.jpg", quality=90)
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


def made(options, name, script, *more):
    target = options.out / name
    if not target.exists():
        beside = fresh(target.with_suffix(".tmp"))
        run([peer_python(), "-c", script, options.photos, beside, *more])
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
    pixels, equal, deviation = options.out / "pixels.safetensors", None, 0
    for _ in range(options.rounds):
        for side, more in ("graft", []), ("graft, fast_decode", ["--fast-decode"]):
            ran = result_of(run([GRAFT, "preprocess", "--json", "--model", preset, "--outputs", pixels, *more, photos / "all"]).output)
            rates[side].append(ran["images"] / ran["seconds"])
            deviation = ran.get("mean_deviation_in_levels", deviation)
            if equal is None:
                equal = result_of(run([peer_python(), BENCH / "peers/image_speed.py", "pixels", photos / "all", SIDE, pixels]).output)
                if not equal["largest_difference"] <= EQUAL or equal["images"] != ran["images"]:
                    stop(f"pixels differ by {equal['largest_difference']:.1e} from Pillow's and torchvision's; speeds would mean nothing")
        ran = result_of(run([peer_python(), BENCH / "peers/image_speed.py", "decode", photos / "all", SIDE]).output)
        rates["peer"].append(ran["images"] / ran["seconds"])
    pixels.unlink()
    return {"rates": {side: statistics.median(values) for side, values in rates.items()}, "pixels": equal, "fast_deviation": deviation}


def trained(options, photos, name, recipe):
    """The journal of a run on the photos."""
    folder = fresh(options.out / "runs" / name)
    run([GRAFT, "run", "--source", made_model(options, name), "--data", photos / "splits", "--out", folder, "--quiet", "--json",
         *settings({"train.threads": threads(), "train.batch_size": BATCH, "finetune.metric": "accuracy", "finetune.head.closed_form": False, "finetune.head.verdict": False,
                    "finetune.head.learning_rates": [1e-3], "finetune.head.weight_decays": [0.01], "finetune.head.patience": 0,
                    "finetune.unfreeze.max_units": 0, "finetune.full.patience": 0, **recipe})])
    return folder


def step(options, photos, name):
    """Seconds of a step: those of the second epoch's steps, for the first warms up, as the peer's first step does."""
    ours, theirs = [], []
    small = photos / "step"
    for _ in range(options.rounds):
        folder = fresh(options.out / "runs" / f"{name}-step")
        run([GRAFT, "run", "--source", made_model(options, name), "--out", folder, "--quiet", "--json",
             *settings({"data.train": str(small / "train"), "data.validation": str(small / "validation"), "train.threads": threads(),
                        "train.batch_size": BATCH, "train.micro_batch_tokens": 10**6, "finetune.metric": "accuracy", "finetune.head.closed_form": False, "finetune.head.verdict": False, "finetune.head.epochs": 1,
                        "finetune.head.min_epochs": 1, "finetune.head.learning_rates": [1e-3], "finetune.head.weight_decays": [0.01],
                        "finetune.unfreeze.max_units": 0, "finetune.full.when": "always", "finetune.full.epochs": 2, "finetune.full.patience": 0})])
        last = [event for event in events(folder, "epoch") if event["phase"] == "full"][-1]
        ours.append(last["seconds"] / STEPS)
        ran = run([peer_python(), BENCH / "peers/image_speed.py", "step", name, small / "train", STEPS, BATCH])
        theirs.append(result_of(ran.output)["seconds_per_step"])
    return {"graft": statistics.median(ours), "peer": statistics.median(theirs)}


def head(options, photos, name):
    """Seconds of a head phase of ten epochs, the pass that fills graft's store included; what arithmetic allows beside it."""
    ours, theirs, counted = [], [], {}
    for _ in range(options.rounds):
        folder = trained(options, photos, name, {"finetune.head.epochs": EPOCHS, "finetune.head.min_epochs": EPOCHS, "finetune.full.when": "never"})
        ours.append(next(event for event in events(folder, "phase_end") if event["phase"] == "head")["seconds"])
        counted = result_of(run([peer_python(), BENCH / "peers/image_speed.py", "head", name, photos / "splits", EPOCHS, BATCH]).output)
        theirs.append(counted["seconds"])
    # Of an image: a pass through the network, and the classifier forward, three times that with its gradients.
    whole, classifier, trained_on, judged = (counted[key] for key in ("forward", "classifier", "train", "validation"))
    heads = EPOCHS * (3 * trained_on + judged) * classifier
    bound = (EPOCHS * (trained_on + judged) * whole + heads) / ((trained_on + judged) * whole + heads)
    return {"graft": statistics.median(ours), "peer": statistics.median(theirs), "bound": bound}


def split_for_steps(photos):
    """Training images for whole batches, and two for validation."""
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
    photos = made(options, f"photos-{options.count}", MAKE_PHOTOS, options.count)
    split_for_steps(photos)
    camera = made(options, f"camera-{options.count // 2}", MAKE_MOSAICS, options.count // 2, *CAMERA, TILE)
    results = Results(options.out / "image-speed.json", {"count": options.count, "rounds": options.rounds})

    def part(name, measure):
        def measured():
            wait_for_quiet(options.allow_busy)
            return measure()
        return results.part(name, measured)
    if "decode" in options.parts:
        about = json.loads((photos / "about.json").read_text())
        print(f"{about['photos']} photos, {about['natural']} of them as they were taken, the others enlarged")
        for name, place in ("photos", photos), ("camera", camera):
            measured = part(f"decode {name}", lambda: decode(options, place))
            rates = measured["rates"]
            print(f"pixels of {measured['pixels']['images']} {name} images differ by at most {measured['pixels']['largest_difference']:.1e} "
                  f"from Pillow's and torchvision's; fast_decode changes a sample by {measured['fast_deviation']:.2f} of 255 levels on average")
            for side, rate in rates.items():
                target = f", target {TARGETS[side]:.1f}" if side in TARGETS else ""
                print(f"decode {name:8}{side:22}{rate:9.1f} images/s   {rate / rates['peer']:.2f} of Pillow and torchvision{target}")
    for kind, measure in ("step", step), ("head", head):
        for name in options.models if kind in options.parts else ():
            part(f"{kind} {name}", lambda: measure(options, photos, name))
    for name, values in results.json["parts"].items():
        if not name.startswith("decode"):
            bound = f", arithmetic allows {values['bound']:.2f}" if "bound" in values else ""
            print(f"{name:32} graft {values['graft']:8.3f} s   peer {values['peer']:8.3f} s   {values['peer'] / values['graft']:.2f} times, "
                  f"target {TARGETS[name.split()[0]]:.1f}{bound}")
    say(f"written to {results.path}")


if __name__ == "__main__":
    main()
