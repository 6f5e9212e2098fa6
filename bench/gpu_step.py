#!/usr/bin/env python3
"""Full fine-tuning and a head phase on a GPU, in bfloat16, beside transformers' Trainer with torch.compile.

usage: gpu_step.py [--shapes bert vit] [--python PYTHON] [--full]

BERT-base on texts of 8 to 128 random words and ViT-B/16 on random images of 224 x 224, both with random weights: what is
measured is time. Examples a second are those of the best epoch but the first, so neither kernels nor compilation count. The
Trainer runs plain and compiled, and the faster one counts. Utilisation is the arithmetic of the whole model on the real
tokens (6 operations for each weight of the blocks and token, 12 for each pair of tokens, and channel, of a block's attention),
by --peak (989 TFLOP/s: H100 and H200, dense bfloat16). The head phase is of ten epochs, graft's capture counted.
"""
import argparse
import json
import pathlib
import sys

from side_by_side import BENCH, GRAFT, Results, events, fresh, peer_python, result_of, run, say, settings, stop

EPOCHS, HEAD_EPOCHS, BATCH = 3, 10, 32


def arithmetic(shape, made):
    """Operations of a training step on every example of the training split: forward, and twice that backward."""
    weights = 12 * (4 * 768 * 768 + 2 * 768 * 3072)
    return sum(6 * weights * n + 3 * 4 * 12 * 768 * n * n for n in made["tokens"])


def recipe(shape, epochs, head):
    return {"train.device": "cuda", "train.precision": "bfloat16", "train.batch_size": BATCH, "train.micro_batch_tokens": 10**6,
            "max_length": 160, "finetune.metric": "accuracy", "finetune.head.closed_form": False, "finetune.head.verdict": False,
            "finetune.head.epochs": head, "finetune.head.min_epochs": head, "finetune.head.patience": 0,
            "finetune.head.learning_rates": [1e-3], "finetune.head.weight_decays": [0.01], "finetune.unfreeze.max_units": 0,
            "finetune.full.when": "always" if epochs else "never", "finetune.full.epochs": max(1, epochs),
            "finetune.full.patience": 0, "retain.report": False}


def graft_side(place, shape, epochs, head):
    folder = fresh(place / f"run-{shape}-{epochs}")
    run([GRAFT, "run", "--source", place / shape / "model", "--data", place / shape / "data", "--out", folder, "--quiet", "--json",
         *settings(recipe(shape, epochs, head))])
    phases = {event["phase"]: event for event in events(folder, "phase_end")}
    if not epochs:
        return {"seconds": phases["head"]["seconds"], "capture_seconds": phases["head"]["capture"]["seconds"],
                "epoch_seconds": min(event["seconds"] for event in events(folder, "epoch") if event["phase"].startswith("head"))}
    return {"epoch_seconds": [event["seconds"] for event in events(folder, "epoch") if event["phase"] == "full"]}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", choices=["bert", "vit"], default=["bert", "vit"])
    parser.add_argument("--python", help="an interpreter with torch, transformers and accelerate (default: bench/.venv)")
    parser.add_argument("--out", type=pathlib.Path, default=BENCH / "results/gpu-step", help="folder of results and runs")
    parser.add_argument("--peak", type=float, default=989, help="TFLOP/s of the GPU in bfloat16 (default 989)")
    parser.add_argument("--full", action="store_true", help="8,192 texts and 4,096 images instead of 4,096 and 1,024")
    options = parser.parse_args()
    if not GRAFT.exists():
        stop(f"{GRAFT} is not built yet; run make build")
    python = options.python or peer_python()
    peer = [python, BENCH / "peers/gpu_step.py"]
    results = Results(options.out / "gpu-step.json", {"full": options.full})
    for shape in options.shapes:
        count = {"bert": 4096, "vit": 1024}[shape] * (2 if options.full and shape == "bert" else 4 if options.full else 1)
        made = results.part(f"{shape} data", lambda: result_of(run([*peer, "make", shape, options.out / shape, count]).output))
        name = made["gpu"]
        work = arithmetic(shape, made)
        ours = results.part(f"{shape} full graft", lambda: graft_side(options.out, shape, EPOCHS, 1))
        theirs = {kind: results.part(f"{shape} full {kind}", lambda: result_of(run([*peer, kind, shape, options.out / shape, EPOCHS]).output))
                  for kind in ("plain", "compiled")}
        seconds = {"graft": min(ours["epoch_seconds"][1:]), **{f"Trainer, {kind}": min(t["epoch_seconds"][1:]) for kind, t in theirs.items()}}
        best = min(value for side, value in seconds.items() if side != "graft")
        for side, value in seconds.items():
            print(f"{shape:5} full  {side:20} {count / value:8.0f} examples/s   utilisation {work / value / options.peak / 1e12:6.1%}", flush=True)
        print(f"{shape:5} full  {best / seconds['graft']:.2f} times the faster Trainer, on {name}", flush=True)
        head = results.part(f"{shape} head graft", lambda: graft_side(options.out, shape, 0, HEAD_EPOCHS))
        peer_head = results.part(f"{shape} head plain", lambda: result_of(run([*peer, "head", shape, options.out / shape, HEAD_EPOCHS]).output))
        steps = -(-count // BATCH)
        print(f"{shape:5} head  graft {head['seconds']:.2f} s (capture {head['capture_seconds']:.2f} s, {1e3 * head['epoch_seconds'] / steps:.2f} ms a step), "
              f"Trainer {peer_head['seconds']:.2f} s: {peer_head['seconds'] / head['seconds']:.1f} times", flush=True)
    say(f"written to {results.path}")


if __name__ == "__main__":
    main()
