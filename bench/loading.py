#!/usr/bin/env python3
"""Seconds and memory to load a checkpoint of 1 GB of random numbers, beside transformers.

usage: loading.py [--megabytes 1000] [--repeats 3]

Both sides load the same LLaMA from a file in the page cache and read every weight once: graft when it looks for NaN,
transformers by a sum. Memory is anonymous, and with the pages of mapped files; seconds are of the whole process and, for
transformers, of from_pretrained alone. graft answers three tokens by `graft forward`.
"""
import argparse
import array
import json
import pathlib
import random
import statistics
import struct

from side_by_side import BENCH, GRAFT, Results, peer_python, result_of, run, say, threads, wait_for_quiet

CONFIG = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 32000, "hidden_size": 1024,
          "intermediate_size": 4096, "num_attention_heads": 16, "num_key_value_heads": 16, "max_position_embeddings": 512,
          "rms_norm_eps": 1e-5, "tie_word_embeddings": True, "hidden_act": "silu", "torch_dtype": "float32"}


def shapes(layers):
    C, F, V = CONFIG["hidden_size"], CONFIG["intermediate_size"], CONFIG["vocab_size"]
    yield "model.embed_tokens.weight", [V, C]
    yield "model.norm.weight", [C]
    for i in range(layers):
        prefix = f"model.layers.{i}."
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            yield f"{prefix}self_attn.{name}.weight", [C, C]
        for name, shape in (("gate_proj", [F, C]), ("up_proj", [F, C]), ("down_proj", [C, F])):
            yield f"{prefix}mlp.{name}.weight", shape
        for name in ("input_layernorm", "post_attention_layernorm"):
            yield f"{prefix}{name}.weight", [C]


def write_model(folder, megabytes):
    """Weights of about 0.02 drawn from one block of random bytes, so that writing takes seconds."""
    folder.mkdir(parents=True, exist_ok=True)
    layers = max(1, round((megabytes * 1e6 / 4 - 32000 * 1024) / (4 * 1024 * 1024 + 3 * 4096 * 1024)))
    (folder / "config.json").write_text(json.dumps({**CONFIG, "num_hidden_layers": layers}))
    header, offset = {}, 0
    for name, shape in shapes(layers):
        size = 4
        for side in shape:
            size *= side
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    draw = random.Random(1)
    block = array.array("f", (draw.gauss(0, 0.02) for _ in range(1 << 18))).tobytes()
    with open(folder / "model.safetensors", "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        while offset > 0:
            offset -= file.write(block[:min(offset, len(block))])


def write_inputs(path):
    """Token ids as graft forward takes them: int64 (1, 3)."""
    tensors = {"input_ids": [1, 2, 3], "attention_mask": [1, 1, 1]}
    header, data = {}, b""
    for name, values in tensors.items():
        bytes_ = struct.pack("<3q", *values)
        header[name] = {"dtype": "I64", "shape": [1, 3], "data_offsets": [len(data), len(data) + len(bytes_)]}
        data += bytes_
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def watched(command):
    """Seconds, the peaks of anonymous memory and of all resident memory, and the output."""
    ran = run(command)
    return {"seconds": ran.seconds, "anonymous_bytes": ran.peak_bytes, "resident_bytes": ran.resident_bytes}, ran.output


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=pathlib.Path, default=BENCH / "results" / "loading")
    parser.add_argument("--allow-busy", action="store_true")
    parser.add_argument("--sides", nargs="+", choices=["graft", "peer"], default=["graft", "peer"])
    options = parser.parse_args()
    model = options.out / f"llama-{options.megabytes}"
    if not (model / "model.safetensors").exists():
        write_model(model, options.megabytes)
    write_inputs(options.out / "inputs.safetensors")
    size = (model / "model.safetensors").stat().st_size
    (model / "model.safetensors").read_bytes()  # into the page cache
    results = Results(options.out / f"{options.megabytes}.json", {"bytes": size})
    for i in range(options.repeats):
        if "graft" in options.sides:
            def graft():
                wait_for_quiet(options.allow_busy)
                return watched([GRAFT, "forward", "--model", model, "--inputs", options.out / "inputs.safetensors",
                                "--outputs", options.out / "outputs.safetensors"])[0]
            results.part(f"graft {i}", graft)
        if "peer" in options.sides:
            def peer():
                wait_for_quiet(options.allow_busy)
                taken, output = watched([peer_python(), BENCH / "peers" / "loading.py", model, "float32"])
                return {**taken, "loading_seconds": result_of(output)["seconds"]}
            results.part(f"peer {i}", peer)
    print(f"{size / 1e6:.0f} MB, {threads()} threads")
    print(f"{'':8}{'seconds':>9}{'anonymous MB':>14}{'of the file':>13}{'resident MB':>13}")
    for side in options.sides:
        parts = [results.json["parts"][f"{side} {i}"] for i in range(options.repeats)]
        seconds, anonymous, resident = (statistics.median(part[key] for part in parts) for key in ("seconds", "anonymous_bytes", "resident_bytes"))
        print(f"{side:8}{seconds:9.2f}{anonymous / 1e6:14.0f}{anonymous / size:12.2f}x{resident / 1e6:13.0f}")
        if side == "peer":
            print(f"{'':8}{statistics.median(part['loading_seconds'] for part in parts):9.2f} in from_pretrained alone")
    say(f"written to {results.path}")


if __name__ == "__main__":
    main()
