#!/usr/bin/env python3
"""Causal fine-tuning and generation with a LLaMA of 4 layers, 512 wide: graft beside TRL's SFTTrainer and transformers.

usage: causal_speed.py [--full] [--parts train generate]

Training: one pass over packed descriptions of Debian's packages, sequences of 256 tokens, 8 a step, AdamW, float32, the same
threads. graft's seconds are those of the whole phase with its two held-out evaluations, the peer's those of train(). The peer
packs in both of its ways. Generation: greedy, one prompt at a time and eight; tokens per second between 16 and 144 new ones, so
that starting, loading and reading the prompt do not count. Sides take turns; the better of --rounds counts for each.
--full: six times the text, three rounds.
"""
import argparse
import json
import pathlib
import sys

from side_by_side import (BENCH, GRAFT, ROOT, Results, events, fresh, peer_python, run, say, settings, stop, wait_for_quiet)

sys.path.insert(0, str(ROOT / "scripts"))
from demo_decoder_data import make_llama, make_prose  # noqa: E402

LLAMA = {"vocab_size": 32000, "hidden_size": 512, "intermediate_size": 1408, "num_hidden_layers": 4, "num_attention_heads": 8,
         "num_key_value_heads": 4, "max_position_embeddings": 1024, "rms_norm_eps": 1e-5, "hidden_act": "silu", "rope_theta": 10000.0,
         "tie_word_embeddings": False, "bos_token_id": 0, "eos_token_id": 0}
LENGTH, BATCH, RATE = 256, 8, 3e-4
FEW, MANY = 16, 144
WAYS = ["graft", "bfd", "wrapped"]


def made(folder, megabytes):
    """The model, its tokenizer, a corpus and prompts; made once."""
    ready = folder / f"ready-{megabytes}"
    if not ready.exists():
        fresh(folder).mkdir()
        make_prose(folder, 12, 40)  # of all of it the tokenizer learns
        run([GRAFT, "tokenize", "--train", folder / "prose.txt", "--vocab-size", LLAMA["vocab_size"], "--out", folder / "llama"])
        make_llama(folder / "llama", LLAMA)
        text, size = (folder / "prose.txt").read_text(encoding="utf-8").splitlines(keepends=True), 0
        with open(folder / "corpus.txt", "w", encoding="utf-8") as corpus:
            for line in text:
                if size < megabytes * 1e6:
                    corpus.write(line)
                    size += len(line)
        with open(folder / "prompts.jsonl", "w", encoding="utf-8") as prompts:
            for line in text[-8:]:
                prompts.write(json.dumps({"text": " ".join(line.split()[:24])}) + "\n")
        (folder / "one.jsonl").write_text((folder / "prompts.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)[0])
        ready.touch()
    return folder


def graft_train(data, out):
    place = fresh(out / "run")
    ran = run([GRAFT, "adapt", "--source", data / "llama", "--corpus", data / "corpus.txt", "--out", place, "--quiet",
               *settings({"adapt.epochs": 1, "adapt.max_length": LENGTH, "adapt.batch_size": BATCH, "adapt.learning_rate": RATE,
                          "adapt.held_out_fraction": 0.01})])
    end = events(place, "phase_end")[0]
    # Each sequence is full but for a token, and the last may be short: this is the least that was trained on.
    tokens = (end["sequences"] - 1) * (LENGTH - 1)
    return {"seconds": end["seconds"], "tokens": tokens, "loss": events(place, "epoch")[0]["loss"],
            "peak_bytes": ran.peak_bytes}


def peer_train(data, out, strategy):
    chosen = out / f"{strategy}.json"
    chosen.write_text(json.dumps({"strategy": strategy, "max_length": LENGTH, "batch_size": BATCH, "learning_rate": RATE}))
    ran = run([peer_python(), BENCH / "peers/sft.py", "train", data / "llama", data / "corpus.txt", out / "trl", chosen])
    return {**json.loads(ran.output.splitlines()[-1]), "peak_bytes": ran.peak_bytes}


def graft_generate(data, prompts, batch):
    seconds, rows = {}, {}
    for new in (FEW, MANY):
        ran = run([GRAFT, "predict", "--model", data / "llama", "--json", "--max-new-tokens", new, "--batch-size", batch, prompts])
        seconds[new], rows[new] = ran.seconds, [json.loads(line) for line in ran.output.splitlines()]
    if any(row["tokens"] != MANY for row in rows[MANY]):
        stop("a text ended before its time; the model's end token came up")
    return {"few": seconds[FEW], "many": seconds[MANY], "tokens": len(rows[MANY]) * (MANY - FEW)}


def peer_generate(data, prompts, batch):
    ran = run([peer_python(), BENCH / "peers/sft.py", "generate", data / "llama", prompts, FEW, MANY, batch])
    return json.loads(ran.output.splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, default=BENCH / "results/causal-speed", help="folder of results and runs")
    parser.add_argument("--full", action="store_true", help="six times the text, three rounds")
    parser.add_argument("--parts", nargs="+", choices=["train", "generate"], default=["train", "generate"])
    parser.add_argument("--rounds", type=int, default=0, help="default 2, with --full 3")
    parser.add_argument("--allow-busy", action="store_true", help="measure beside other programs; times are then worthless")
    options = parser.parse_args()
    if not GRAFT.exists():
        stop(f"{GRAFT} is not built yet; run make build")
    megabytes, rounds = (1.5, options.rounds or 3) if options.full else (0.25, options.rounds or 2)
    data = made(options.out / f"data-{megabytes}", megabytes)
    results = Results(options.out / f"{megabytes}.json", {"megabytes": megabytes, "length": LENGTH, "batch": BATCH, "llama": LLAMA})

    def part(name, measure):
        def measured():
            wait_for_quiet(options.allow_busy)
            return measure()
        return results.part(name, measured)

    for i in range(rounds):
        turn = 1 if i % 2 == 0 else -1
        if "train" in options.parts:
            for way in WAYS[::turn]:
                part(f"{way} train {i}", lambda: graft_train(data, options.out) if way == "graft" else peer_train(data, options.out, way))
        if "generate" in options.parts:
            for name, prompts, batch in (("1", data / "one.jsonl", 1), ("8", data / "prompts.jsonl", 8)):
                for side in ("graft", "peer")[::turn]:
                    part(f"{side} generate {name} {i}", lambda: (graft_generate if side == "graft" else peer_generate)(data, prompts, batch))

    def best(side, what):
        return max((results.json["parts"][f"{side} {what} {i}"] for i in range(rounds)),
                   key=lambda one: one["tokens"] / (one["seconds"] if "seconds" in one else one["many"] - one["few"]))

    if "train" in options.parts:
        ours = best("graft", "train")
        for way in WAYS:
            one = best(way, "train")
            speed, peak = one["tokens"] / one["seconds"], one["peak_bytes"]
            beside = "" if way == "graft" else (f"   graft: {ours['tokens'] / ours['seconds'] / speed:.2f} times the speed, "
                                                f"{ours['peak_bytes'] / peak:.2f} of the memory")
            print(f"{'graft' if way == 'graft' else 'TRL ' + way:12}{speed:8.0f} tokens per second{peak / 1e6:8.0f} MB"
                  f"   loss {one['loss']:.3f}{beside}")
    if "generate" in options.parts:
        for name in ("1", "8"):
            speeds = {side: (lambda one: one["tokens"] / (one["many"] - one["few"]))(best(side, f"generate {name}")) for side in ("graft", "peer")}
            print(f"generation, {name} at a time: graft {speeds['graft']:.0f} tokens per second, transformers {speeds['peer']:.0f} "
                  f"({speeds['graft'] / speeds['peer']:.2f} times)")
    say(f"written to {results.path}")


if __name__ == "__main__":
    main()
