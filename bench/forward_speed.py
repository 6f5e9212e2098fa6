#!/usr/bin/env python3
"""Words per second of a forward pass and seconds from start to the first training step, graft beside transformers.

usage: forward_speed.py --data DIR [--batches 8] [--repeats 5]

Both sides compute the last hidden states of the same batches of 32 test texts, padded to the longest of the batch, in
float32 on the same number of threads; the median of `--repeats` is kept for each. graft's seconds of a forward pass are
those that `graft forward --json --repeat N` reports, without loading. Sides alternate batch by batch.
"""
import json
import statistics

from side_by_side import BENCH, GRAFT, Results, arguments, checked, cut_data, events, fresh, peer_python, run, say, wait_for_quiet

ENCODE = """
import json, sys
from safetensors.torch import save_file
from transformers import AutoTokenizer
texts = [json.loads(line)["text"] for line in open(sys.argv[2], encoding="utf-8")]
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
for i in range(int(sys.argv[4])):
    part = texts[32 * i:32 * (i + 1)]
    save_file(dict(tokenizer(part, padding=True, truncation=True, max_length=128, return_tensors="pt")), f"{sys.argv[3]}/{i}.safetensors")
    print(sum(len(text.split()) for text in part))
"""


def graft_forward(model, inputs, folder, repeats):
    output, _ = run([GRAFT, "forward", "--model", model, "--inputs", inputs, "--outputs", folder / "outputs.safetensors",
                     "--repeat", repeats, "--json"])
    return json.loads(output.splitlines()[-1])["seconds"]


def peer_forward(model, inputs, folder, repeats):
    return json.loads(run([peer_python(), BENCH / "peers/forward.py", "forward", inputs, model, repeats])[0].splitlines()[-1])["seconds"]


def graft_start(model, data, folder):
    _, seconds = run([GRAFT, "run", "--source", model, "--data", data, "--out", fresh(folder / "start"), "--json"])
    return events(folder / "start", "first_step")[0]["seconds_since_start"]


def peer_start(model, data, folder):
    return run([peer_python(), BENCH / "peers/forward.py", "start", data, model])[1]


def main():
    parser = arguments(__doc__, out="forward-speed")
    parser.add_argument("--batches", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=5)
    options = checked(parser)
    inputs = options.out / "inputs"
    inputs.mkdir(parents=True, exist_ok=True)
    data = cut_data(options.data, options.out, train=64, validation=32, test=32 * options.batches)
    words = [int(count) for count in run([peer_python(), "-c", ENCODE, options.model, data / "test.jsonl", inputs, options.batches])[0].split()]
    results = Results(options.out / f"{data.name}.json", {"batches": options.batches, "repeats": options.repeats, "words": words})
    forward = {"graft": graft_forward, "peer": peer_forward}
    start = {"graft": graft_start, "peer": peer_start}

    def part(name, call):
        def measured():
            wait_for_quiet(options.allow_busy)
            return call()
        return results.part(name, measured)

    for i in range(options.batches):
        for side in options.sides if i % 2 == 0 else options.sides[::-1]:
            part(f"{side} batch {i}", lambda: forward[side](options.model, inputs / f"{i}.safetensors", options.out, options.repeats))
    for i in range(3):
        for side in options.sides:
            part(f"{side} start {i}", lambda: start[side](options.model, data, options.out))

    parts = results.json["parts"]
    for side in options.sides:
        seconds = sum(statistics.median(parts[f"{side} batch {i}"]) for i in range(options.batches))
        first = statistics.median(parts[f"{side} start {i}"] for i in range(3))
        print(f"{side:6} {sum(words) / seconds:10.0f} words per second{first:10.2f} s to the first training step")
    say(f"written to {results.path}")


if __name__ == "__main__":
    main()
