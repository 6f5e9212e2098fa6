#!/usr/bin/env python3
"""What masked autoencoding on unlabelled images gives: Fashion-MNIST with few labels, after it and without it.

usage: image_adaptation.py [--full | --labels 100 1000] [--unlabelled 20000] [--epochs 10] [--seeds 3]

A ViT of 0.7 million parameters with random weights (scripts/demo_images_data.py) is adapted once on the unlabelled images; then
the same schedule runs from the adapted and from the untrained model, for each number of labels and each seed: head, one
stage of unfreezing, full fine-tuning. Test images are the package's test set, less those of validation. The adaptation can be
stopped by --stop-after SECONDS and goes on with the next call. --full is the figure as it is asked for: all 60,000 images, then
100, 1,000 and 10,000 labels; hours on two cores.
"""
import argparse
import pathlib
import statistics

from side_by_side import BENCH, GRAFT, ROOT, Results, fresh, result_of, run, say, settings, stop, threads, wait_for_quiet

ADAPT = {"adapt.head_epochs": 0, "adapt.batch_size": 64, "adapt.images.base_learning_rate": 4e-3, "adapt.images.smallest_crop": 0.5,
         "adapt.images.decoder_width": 64, "adapt.images.decoder_layers": 2, "adapt.images.decoder_heads": 4}
FINETUNE = {"finetune.metric": "accuracy", "finetune.head.closed_form": False, "finetune.head.learning_rates": [1e-3, 1e-2], "finetune.head.weight_decays": [0.01],
            "finetune.head.verdict": False, "finetune.unfreeze.max_units": 2, "finetune.unfreeze.epochs": 3,
            "finetune.unfreeze.learning_rate": 1e-3, "finetune.unfreeze.divisor": 1, "finetune.unfreeze.head_learning_rate": 1e-3,
            "finetune.full.when": "always", "finetune.full.epochs": 15, "finetune.full.patience": 0, "finetune.full.learning_rate": 5e-4}


def adapted(options, data):
    """Held-out reconstruction loss before and after."""
    folder = options.out / "runs/adapted"
    command = ["timeout", "--preserve-status", "--signal=TERM", options.stop_after, GRAFT] if options.stop_after else [GRAFT]
    if (folder / "recipe.toml").exists():
        command += ["adapt", "--resume", folder]
    else:
        command += ["adapt", "--source", data / "vit", "--corpus", data / "images.zip", "--out", folder,
                    *settings({**ADAPT, "adapt.epochs": options.epochs, "train.threads": threads()})]
    result = result_of(run([*command, "--quiet", "--json"]).output)["adapt"]
    return {"before": result["before"]["loss"], "after": result["after"]["loss"], "images": result["images"]}


def trained(options, data, source, labels, seed):
    folder = fresh(options.out / "runs" / f"{source.parent.name}-{labels}-{seed}")
    ran = run([GRAFT, "finetune", "--source", source, "--data", data / f"labelled-{labels}.zip", "--out", folder, "--quiet", "--json",
               *settings({**FINETUNE, "seed": seed, "train.threads": threads()})])
    result = result_of(ran.output)
    return {"test": result["test"]["accuracy"], "seconds": ran.seconds, "phases": {p["phase"]: p["validation"] for p in result["finetune"]["phases"]}}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="--unlabelled 60000 --labels 100 1000 10000")
    parser.add_argument("--labels", type=int, nargs="+", help="default 100 1000")
    parser.add_argument("--unlabelled", type=int, help="of the 60,000 (default 20000)")
    parser.add_argument("--epochs", type=int, default=10, help="of masked autoencoding (default 10)")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--stop-after", type=int, default=0, metavar="SECONDS", help="interrupt the adaptation; the next call goes on")
    parser.add_argument("--out", type=pathlib.Path, help="folder of results and runs (default bench/results/image-adaptation, with -full for --full)")
    parser.add_argument("--allow-busy", action="store_true", help="measure beside other programs; times are then worthless")
    options = parser.parse_args()
    options.labels = options.labels or ([100, 1000, 10000] if options.full else [100, 1000])
    options.out = options.out or BENCH / ("results/image-adaptation-full" if options.full else "results/image-adaptation")
    options.unlabelled = options.unlabelled or (60000 if options.full else 20000)
    if not GRAFT.exists():
        stop(f"{GRAFT} is not built yet; run make build")
    options.out.mkdir(parents=True, exist_ok=True)
    data = options.out / "data"
    run([ROOT / "scripts/demo_images_data.py", "--out", data, "--unlabelled", options.unlabelled, "--train", *options.labels])
    results = Results(options.out / "image-adaptation.json", {"unlabelled": options.unlabelled, "epochs": options.epochs, **ADAPT, **FINETUNE})

    def part(name, measure):
        def measured():
            wait_for_quiet(options.allow_busy)
            return measure()
        return results.part(name, measured)
    loss = part("adapted", lambda: adapted(options, data))
    print(f"held-out reconstruction loss {loss['before']:.4f} -> {loss['after']:.4f}")
    sources = {"with": options.out / "runs/adapted/model", "without": data / "vit"}
    for labels in options.labels:
        for seed in range(options.seeds):
            for side, source in sources.items():
                part(f"{side} {labels} {seed}", lambda: trained(options, data, source, labels, seed))
        for side in sources:
            tests = [results.json["parts"][f"{side} {labels} {seed}"]["test"] for seed in range(options.seeds)]
            spread = f"+- {statistics.stdev(tests):.4f}" if len(tests) > 1 else ""
            print(f"{labels:6} labels, {side:8} masked autoencoding: test accuracy {statistics.mean(tests):.4f} {spread}")
    say(f"written to {results.path}")


if __name__ == "__main__":
    main()
