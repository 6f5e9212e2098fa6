"""Sources of different worth made of one real source, for bench/rank_quality.py: its first blocks alone, the last blocks
or all of them drawn anew. Writes a folder for each and prints their names.

usage: candidates.py MODEL OUT        MODEL: a BERT folder, or a folder with a ResNet of CIFAR's kind (graft.json, *.th)
"""
import json
import pathlib
import re
import shutil
import sys

import torch
from safetensors.torch import load_file, save_file


def drawn_anew(tensors, chosen, seed):
    """Matrices as BERT draws them, filters as He et al. 2015; norms at 1 and 0, and fixed statistics at those of a new layer."""
    generator = torch.Generator().manual_seed(seed)
    result = dict(tensors)
    for key, value in tensors.items():
        if not chosen(key) or not value.is_floating_point():
            continue
        if value.dim() == 2:
            result[key] = torch.randn(value.shape, generator=generator) * 0.02
        elif value.dim() == 4:
            result[key] = torch.randn(value.shape, generator=generator) * (2 / value[0].numel()) ** 0.5
        else:
            one = key.endswith(("running_var",)) or (key.endswith("weight"))
            result[key] = torch.ones(value.shape) if one else torch.zeros(value.shape)
    return result


def bert(model, out):
    tensors = load_file(model / "model.safetensors")
    config = json.loads((model / "config.json").read_text())
    layers = config["num_hidden_layers"]

    def layer(key):
        found = re.search(r"encoder\.layer\.(\d+)\.", key)
        return int(found.group(1)) if found else -1

    def write(name, kept, changed):
        folder = out / name
        folder.mkdir(parents=True, exist_ok=True)
        for file in model.iterdir():
            if file.is_file() and "token" in file.name or file.name.startswith(("vocab", "special")):
                shutil.copy(file, folder)
        (folder / "config.json").write_text(json.dumps({**config, "num_hidden_layers": kept}, indent=1))
        # A pooler that learned from other blocks saturates on these; the head gets a fresh one.
        whole = kept == layers and changed is tensors
        save_file({key: value.contiguous() for key, value in changed.items() if layer(key) < kept and (whole or "pooler." not in key)},
                  folder / "model.safetensors", metadata={"format": "pt"})
        print(name)

    for kept in range(1, layers + 1):
        write(f"first-{kept}", kept, tensors)
    write("last-2-anew", layers, drawn_anew(tensors, lambda key: layer(key) >= layers - 2, 1))
    write("last-4-anew", layers, drawn_anew(tensors, lambda key: layer(key) >= layers - 4, 2))
    write("all-anew", layers, drawn_anew(tensors, lambda key: True, 3))


def resnet(model, out):
    file = next(model.glob("*.th"))
    state = torch.load(file, map_location="cpu", weights_only=True)
    tensors = state.get("state_dict", state)

    def stage(key):
        found = re.search(r"layer(\d+)\.", key)
        return int(found.group(1)) if found else 0

    def block(key):
        found = re.search(r"layer\d+\.(\d+)\.", key)
        return int(found.group(1)) if found else 0

    def write(name, keep, changed=tensors):
        folder = out / name
        folder.mkdir(parents=True, exist_ok=True)
        for other in model.iterdir():
            if other.suffix == ".json":
                shutil.copy(other, folder)
        kept = {key: value.clone() for key, value in changed.items() if keep(key)}
        torch.save({"state_dict": kept}, folder / file.name)
        print(name)

    without_classifier = lambda key: not re.search(r"(linear|fc)\.", key)
    write("whole", lambda key: True)
    write("stage-3-2-blocks", lambda key: stage(key) < 3 or block(key) < 2)
    write("stage-3-1-block", lambda key: stage(key) < 3 or block(key) < 1)
    write("stages-2", lambda key: stage(key) < 3 and without_classifier(key))
    write("stage-1", lambda key: stage(key) < 2 and without_classifier(key))
    write("stage-3-anew", without_classifier, drawn_anew(tensors, lambda key: stage(key) >= 3, 1))
    write("stages-2-3-anew", without_classifier, drawn_anew(tensors, lambda key: stage(key) >= 2, 2))
    write("all-anew", without_classifier, drawn_anew(tensors, lambda key: True, 3))


if __name__ == "__main__":
    source, target = map(pathlib.Path, sys.argv[1:])
    (bert if (source / "config.json").exists() else resnet)(source, target)
