#!/usr/bin/env python3
"""Makes the data of the decoder demo: prose and code of the system's packages, and a small LLaMA with random weights.

usage: demo_decoder_data.py --out DIR [--prose MB --functions N --test N]

  DIR/prose.txt                             descriptions of Debian or Ubuntu packages, one a line: the first domain
  DIR/prose-test.jsonl                      others, of other source packages
  DIR/code/{train,validation,test}.jsonl    functions of the installed Python files: the second domain; split by file
  DIR/prompts.jsonl                         beginnings of both kinds, to be gone on with
  DIR/llama/                                config.json and model.safetensors of an untrained LLaMA; its tokenizer is made by
                                            graft tokenize --train
Needs Python alone; the descriptions come from the lists that apt fetches, into a folder of its own, without root. A second
call finds everything and returns at once.
"""
import argparse
import array
import ast
import json
import pathlib
import random
import struct
import sys
import sysconfig
import tempfile
import textwrap
import warnings

from demo_data import descriptions, fetch_lists, fraction, say, stop

LLAMA = {"vocab_size": 4096, "hidden_size": 192, "intermediate_size": 512, "num_hidden_layers": 4, "num_attention_heads": 6,
         "num_key_value_heads": 2, "max_position_embeddings": 512, "rms_norm_eps": 1e-5, "hidden_act": "silu",
         "rope_theta": 10000.0, "tie_word_embeddings": False, "bos_token_id": 0, "eos_token_id": 0}
CHARACTERS = range(120, 1000)  # of a function: more is cut, less is hardly one
PROMPTS = ["This package provides", "A library for", "def read_file(path):\n", "def __init__(self, name"]


def write_rows(path, texts):
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        file.writelines(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts)


def make_prose(out, megabytes, test):
    say("fetching apt's package lists with descriptions")
    with tempfile.TemporaryDirectory(prefix="graft-demo-") as place:
        rows = list(descriptions(*fetch_lists(pathlib.Path(place))))
    seen, training, held = set(), [], []
    size = 0
    for _, source, text in sorted(rows, key=lambda row: fraction("order " + row[2])):
        if not text or text in seen:
            continue
        seen.add(text)
        if fraction("split " + source) < 0.05:
            if len(held) < test:
                held.append(text)
        elif size < megabytes * 1e6:
            training.append(text)
            size += len(text) + 1
    (out / "prose.txt").write_text("".join(text + "\n" for text in training), encoding="utf-8")
    write_rows(out / "prose-test.jsonl", held)
    say(f"{len(training)} descriptions ({size / 1e6:.1f} MB) and {len(held)} for the test")


def functions(path):
    """The functions and methods of a Python file, as they stand there but for their indentation."""
    try:
        text = path.read_text(encoding="utf-8")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(text)
    except (OSError, ValueError, SyntaxError, RecursionError):
        return
    lines = text.splitlines()
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            body = textwrap.dedent("\n".join(lines[first - 1:node.end_lineno])) + "\n"
            if len(body) in CHARACTERS:
                yield body


def make_code(out, limits):
    folders = {pathlib.Path(sysconfig.get_path("stdlib")), pathlib.Path("/usr/lib/python3")}
    files = {path for folder in folders for path in folder.glob("**/*.py")
             if not {"test", "tests", "site-packages"} & set(path.relative_to(folder).parts)}
    seen, splits = set(), {"train": [], "validation": [], "test": []}
    for path in sorted(files, key=lambda path: fraction("order " + path.name)):
        place = fraction("split " + path.name)
        split = "train" if place < 0.8 else "validation" if place < 0.9 else "test"
        if len(splits[split]) >= limits[split]:
            continue
        for text in functions(path):
            if text not in seen and len(splits[split]) < limits[split]:
                seen.add(text)
                splits[split].append(text)
    for split, texts in splits.items():
        if not texts:
            stop(f"the Python files of {', '.join(map(str, sorted(folders)))} gave no {split} functions")
        write_rows(out / "code" / f"{split}.jsonl", texts)
    say(f"{', '.join(f'{len(texts)} {split}' for split, texts in splits.items())} functions of {len(files)} Python files")


def make_llama(folder, sizes):
    """transformers' layout and initialisation: normal with 0.02, norms 1."""
    draw = random.Random("llama")
    width, inner, vocabulary = (sizes[key] for key in ("hidden_size", "intermediate_size", "vocab_size"))
    keys = width // sizes["num_attention_heads"] * sizes["num_key_value_heads"]
    shapes = {"model.embed_tokens.weight": [vocabulary, width], "model.norm.weight": [width], "lm_head.weight": [vocabulary, width]}
    for i in range(sizes["num_hidden_layers"]):
        layer = f"model.layers.{i}."
        shapes |= {layer + "input_layernorm.weight": [width], layer + "post_attention_layernorm.weight": [width],
                   layer + "self_attn.q_proj.weight": [width, width], layer + "self_attn.k_proj.weight": [keys, width],
                   layer + "self_attn.v_proj.weight": [keys, width], layer + "self_attn.o_proj.weight": [width, width],
                   layer + "mlp.gate_proj.weight": [inner, width], layer + "mlp.up_proj.weight": [inner, width],
                   layer + "mlp.down_proj.weight": [width, inner]}
    header, offset, values = {}, 0, array.array("f")
    for name, shape in shapes.items():
        count = shape[0] * (shape[1] if len(shape) > 1 else 1)
        values.extend(draw.gauss(0, 0.02) for _ in range(count)) if len(shape) > 1 else values.extend([1.0] * count)
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [offset, offset + 4 * count]}
        offset += 4 * count
    if sys.byteorder == "big":
        values.byteswap()
    text = json.dumps(header).encode()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + values.tobytes())
    config = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], **sizes}
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    say(f"a LLaMA with random weights: {offset / 4e6:.1f} million parameters")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, required=True, help="folder for texts and model")
    parser.add_argument("--prose", type=float, default=1.5, help="megabytes of descriptions to train on (default 1.5)")
    parser.add_argument("--functions", type=int, default=1000, help="functions to train on (default 1000)")
    parser.add_argument("--test", type=int, default=150, help="texts of each domain to measure on (default 150)")
    arguments = parser.parse_args()
    limits = {"prose": arguments.prose, "train": arguments.functions, "validation": arguments.test, "test": arguments.test,
              "llama": LLAMA}

    made = arguments.out / "made.json"  # written last: what is here is complete, and was made with these limits
    if made.exists() and json.loads(made.read_text()) == limits:
        return
    arguments.out.mkdir(parents=True, exist_ok=True)
    made.unlink(missing_ok=True)
    for name in ("tokenizer.json", "tokenizer_config.json"):  # learned from other texts
        (arguments.out / "llama" / name).unlink(missing_ok=True)
    make_prose(arguments.out, limits["prose"], limits["test"])
    make_code(arguments.out, limits)
    write_rows(arguments.out / "prompts.jsonl", PROMPTS)
    make_llama(arguments.out / "llama", LLAMA)
    made.write_text(json.dumps(limits) + "\n")


if __name__ == "__main__":
    main()
