#!/usr/bin/env python3
"""Words per second, forward and in prediction, and seconds from start to the first training step, beside transformers.

usage: forward_speed.py --data DIR [--texts 2000] [--repeats 3]

One model, finetuned by graft, labels the same file on both sides, in float32 on the same number of threads. Each side
runs on `--texts` texts and on the first 32 of them; words per second are those between the two, so that starting and
loading do not count while reading, tokenizing and writing do. `forward` is the encoder alone: 64 texts as one padded batch
of tensors, in and out, ten times, the median of these. Sides take turns; medians of `--repeats`. Labels and hidden states
of both sides are compared. The first training step is that of the head on a frozen encoder, timed from the start of the
process.
"""
import json
import os
import statistics
import subprocess
import time

from side_by_side import (BENCH, GRAFT, Results, arguments, checked, cut_data, events, fresh, head_of, peer_python, run,
                          result_of, say, settings, stop, threads, wait_for_quiet)

FEW, BATCH = 32, 64


def graft_predict(model, file):
    return run([GRAFT, "predict", "--model", model, file, "--max-length", 128, "--json"])


def peer_predict(model, file):
    return run([peer_python(), BENCH / "peers/forward.py", "predict", model, file])


def graft_forward(model, tokens, place):
    ran = run([GRAFT, "forward", "--model", model, "--inputs", tokens, "--outputs", place / "graft.safetensors", "--repeat", 11, "--json"])
    return {"seconds": statistics.median(result_of(ran.output)["seconds"][1:])}


def peer_forward(model, tokens, place):
    return result_of(run([peer_python(), BENCH / "peers/forward.py", "forward", model, tokens, place / "graft.safetensors"]).output)


def finetuned(source, data, folder):
    """A model that both sides can load; how good it is does not matter here."""
    if not (folder / "model/config.json").exists():
        run([GRAFT, "finetune", "--source", source, "--data", data, "--out", fresh(folder), "--quiet",
             *settings({"finetune.head.epochs": 5, "finetune.head.verdict": False, "finetune.unfreeze.max_units": 0,
                        "finetune.full.when": "never"})])
    return folder / "model"


def seconds_until(command, reached):
    """Seconds from the start of a process until `reached`; the process is then ended."""
    say(" ".join(map(str, command)))
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads()), "PYTHONUNBUFFERED": "1"}
    start = time.monotonic()
    process = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment)
    try:
        while not reached(process):
            if process.poll() is not None and not reached(process):
                stop(f"the command above ended with exit code {process.returncode} before its first step")
            time.sleep(0.005)
        return time.monotonic() - start
    finally:
        process.terminate()
        process.communicate()


def graft_start(model, data, folder):
    place = fresh(folder / "start")
    return seconds_until([GRAFT, "finetune", "--source", model, "--data", data, "--out", place, "--quiet"],
                         lambda _: (place / "sessions.jsonl").exists() and events(place, "first_step", "sessions.jsonl"))


def peer_start(model, data, folder):
    return seconds_until([peer_python(), BENCH / "peers/forward.py", "start", model, data], lambda process: process.stdout.readline())


def words_of(file):
    return sum(len(json.loads(line)["text"].split()) for line in open(file, encoding="utf-8"))


def main():
    parser = arguments(__doc__, out="forward-speed")
    parser.add_argument("--texts", type=int, default=2000, help="test texts to label (0: all)")
    parser.add_argument("--repeats", type=int, default=3)
    options = checked(parser)
    data = cut_data(options.data, options.out, train=FEW * 8, validation=64, test=options.texts)
    many, few = data / "test.jsonl", options.out / "few.jsonl"
    head_of(many, FEW, few)
    words = words_of(many) - words_of(few)
    if words <= 0:
        stop(f"there are no more than {FEW} test texts; give --texts a larger number or more data")
    model = finetuned(options.model, data, options.out / "model-of-both")
    results = Results(options.out / f"{data.name}.json", {"data": options.data, "model": options.model, "texts": options.texts, "repeats": options.repeats, "words": words})
    predict = {"graft": graft_predict, "peer": peer_predict}
    start = {"graft": graft_start, "peer": peer_start}
    forward = {"graft": graft_forward, "peer": peer_forward}
    batch, tokens = options.out / "batch.jsonl", options.out / "tokens.safetensors"
    head_of(many, BATCH, batch)
    run([peer_python(), BENCH / "peers/forward.py", "tokens", options.model, batch, tokens])

    def part(name, call):
        def measured():
            wait_for_quiet(options.allow_busy)
            return call()
        return results.part(name, measured)

    def labelled(side):
        all_of_them, some = predict[side](model, many), predict[side](model, few)
        rows = map(json.loads, all_of_them.output.splitlines())
        return {"all_seconds": all_of_them.seconds, "few_seconds": some.seconds, "peak_bytes": all_of_them.peak_bytes,
                "labels": [row["label"] for row in rows]}

    for i in range(options.repeats):
        for side in options.sides if i % 2 == 0 else options.sides[::-1]:
            part(f"{side} predict {i}", lambda: labelled(side))
            part(f"{side} start {i}", lambda: start[side](options.model, data, options.out))
            part(f"{side} forward {i}", lambda: forward[side](options.model, tokens, options.out))

    parts = results.json["parts"]
    for side in options.sides:
        runs = [parts[f"{side} predict {i}"] for i in range(options.repeats)]
        seconds = statistics.median(one["all_seconds"] - one["few_seconds"] for one in runs)
        first = statistics.median(parts[f"{side} start {i}"] for i in range(options.repeats))
        speed = f"{words / seconds:10.0f}" if seconds > 0 else "   (too few texts)"
        encoded = words_of(batch) / statistics.median(parts[f"{side} forward {i}"]["seconds"] for i in range(options.repeats))
        print(f"{side:6}{encoded:10.0f} words per second forward{speed} in prediction{first:10.2f} s to the first training step")
    if len(options.sides) == 2:
        ours, theirs = (parts[f"{side} predict 0"]["labels"] for side in ("graft", "peer"))
        print(f"same label on both sides: {sum(a == b for a, b in zip(ours, theirs, strict=True))} of {len(ours)}")
        print(f"hidden states differ by at most {parts['peer forward 1']['difference']:.1e} of the largest" if options.repeats > 1 else "")
    say(f"written to {results.path}")


if __name__ == "__main__":
    main()
