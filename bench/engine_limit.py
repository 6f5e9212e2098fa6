#!/usr/bin/env python3
"""The share of the machine's matrix-multiplication rate that full fine-tuning reaches.

usage: engine_limit.py --data DIR [--train 1500] [--repeats 3]

The rate is that of float32 products of the sizes of a step (rows of a batch times hidden and intermediate size), by the
same libtorch on the same threads, with MKL or oneDNN, whichever is faster. A step's operations are counted as 2 for each weight of the blocks and token forward
and 4 backward (no attention products, no embeddings), so the share is a lower bound.
"""
import json
import statistics

from side_by_side import GRAFT, Results, arguments, checked, cut_data, events, fresh, peer_python, run, say, settings, threads, wait_for_quiet

GEMM = """
import sys, time, torch
torch.set_num_threads(int(sys.argv[1]))
hidden, inner, rows = map(int, sys.argv[2:])
def rate(m, k, n):
    a, b = torch.randn(m, k), torch.randn(k, n)
    best = 0.0
    products = [lambda: a @ b]
    if torch.backends.mkldnn.is_available():
        products.append(lambda: torch.ops.mkldnn._linear_pointwise(a, b.t(), None, "none", [], ""))
    for product in products:
        for _ in range(30):
            start = time.perf_counter()
            product()
            best = max(best, 2 * m * k * n / (time.perf_counter() - start))
    return best
print(rate(rows, hidden, hidden), rate(rows, hidden, inner), rate(rows, inner, hidden), rate(2048, 2048, 2048))
"""


def main():
    parser = arguments(__doc__, out="engine-limit")
    parser.add_argument("--train", type=int, default=1500)
    parser.add_argument("--repeats", type=int, default=3)
    options = checked(parser)
    data = cut_data(options.data, options.out, train=options.train, validation=32, test=32)
    config = json.loads((options.model / "config.json").read_text())
    hidden, inner, layers = (config[key] for key in ("hidden_size", "intermediate_size", "num_hidden_layers"))
    counted = run([GRAFT, "tokenize", "--model", options.model, "--json"], stdin=open(data / "train.jsonl"))
    tokens = sum(min(128, len(json.loads(line)["ids"])) for line in counted.output.splitlines())
    # The last block is computed where the head reads: of its weights only keys' and values' see every token.
    full_block, keys_values = 4 * hidden * hidden + 2 * hidden * inner, 2 * hidden * hidden
    operations = 6 * tokens * ((layers - 1) * full_block + keys_values)
    recipe = {"max_length": 128, "finetune.head.epochs": 1, "finetune.head.min_epochs": 1, "finetune.head.verdict": False,
              "finetune.head.learning_rates": [1e-3], "finetune.head.weight_decays": [0.01], "finetune.unfreeze.max_units": 0,
              "finetune.full.when": "always", "finetune.full.epochs": 2, "finetune.full.patience": 0, "train.threads": threads(),
              "retain.report": False}
    results = Results(options.out / f"{data.name}.json", {"data": options.data, "model": options.model, "recipe": recipe, "tokens": tokens, "operations": operations})
    for i in range(options.repeats):
        def gemm():
            wait_for_quiet(options.allow_busy)
            rows = round(32 * tokens / options.train)
            return [float(rate) for rate in run([peer_python(), "-c", GEMM, threads(), hidden, inner, rows]).output.split()]

        def training(i=i):
            wait_for_quiet(options.allow_busy)
            folder = options.out / "runs" / str(i)
            run([GRAFT, "run", "--source", options.model, "--data", data, "--out", fresh(folder), "--json", "--quiet", *settings(recipe)])
            return next(event["seconds"] for event in events(folder, "phase_end") if event["phase"] == "full") / 2
        results.part(f"gemm {i}", gemm)
        results.part(f"training {i}", training)
    parts = results.json["parts"]
    rates = [statistics.median(parts[f"gemm {i}"][size] for i in range(options.repeats)) / 1e9 for size in range(4)]
    reached = operations / statistics.median(parts[f"training {i}"] for i in range(options.repeats)) / 1e9
    print(f"products of a step: {rates[0]:.0f}, {rates[1]:.0f}, {rates[2]:.0f} GFLOP/s; 2048 x 2048: {rates[3]:.0f}")
    of_step = statistics.harmonic_mean(rates[:3], weights=[4 * hidden * hidden, hidden * inner, hidden * inner])
    print(f"full fine-tuning: {reached:.0f} GFLOP/s, {reached / of_step:.0%} of the step's own products, {reached / max(rates):.0%} of the best")
    say(f"written to {results.path}")


if __name__ == "__main__":
    main()
