"""The fixtures of decoders that the shared set lacks; usage: make_decoders.py FOLDER (torch, transformers, safetensors).

llama-biases        biases in every projection, heads wider than C / H, more query heads than heads of keys
llama-tokens        token classification
llama-rope-*        scaled rotary positions as config.json states them: linear and dynamic in rope_scaling (transformers 4),
                    yarn and longrope in rope_parameters (transformers 5); the texts are longer than the original context, and
                    where frequencies depend on the length no row is padded, for the reference takes the longest of the batch
gpt_bigcode-mha     multi_query false: keys and values for each head, interleaved in c_attn
gpt_bigcode-seqcls, gpt_bigcode-tokens, starcoder2-seqcls, starcoder2-tokens     the heads of these families
starcoder2-window   a sliding window narrower than the text; no padding, of which the reference makes not-a-numbers here
"""

import copy
import json
import pathlib
import sys

import torch
import transformers
from safetensors.torch import save_file
from transformers import (GPTBigCodeConfig, GPTBigCodeForCausalLM, GPTBigCodeForSequenceClassification,
                          GPTBigCodeForTokenClassification, LlamaConfig, LlamaForCausalLM, LlamaForTokenClassification,
                          Starcoder2Config, Starcoder2ForCausalLM, Starcoder2ForSequenceClassification,
                          Starcoder2ForTokenClassification)

torch.set_num_threads(1)
V = 53
LLAMA = dict(vocab_size=V, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4,
             num_key_value_heads=2, max_position_embeddings=32, rms_norm_eps=1e-5, pad_token_id=0)
STARCODER = dict(vocab_size=V, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4,
                 num_key_value_heads=2, max_position_embeddings=32, pad_token_id=0, bos_token_id=1, eos_token_id=1,
                 sliding_window=None)
BIGCODE = dict(vocab_size=V, n_positions=32, n_embd=16, n_layer=2, n_head=4, n_inner=24, pad_token_id=0, bos_token_id=1,
               eos_token_id=1)
PADDED, EVEN = [17, 11, 4], [24, 24]


def rope(kind, **more):
    return {"rope_type": kind, "rope_theta": 10000.0, **more}


# name, class, config, lengths of the rows, keys of config.json that are written as transformers 4 did
VARIANTS = [
    ("llama-biases", LlamaForCausalLM, LlamaConfig(**LLAMA, head_dim=6, attention_bias=True, mlp_bias=True), PADDED, None),
    ("llama-tokens", LlamaForTokenClassification, LlamaConfig(**LLAMA, num_labels=5), PADDED, None),
    ("llama-rope-linear", LlamaForCausalLM, LlamaConfig(**LLAMA, rope_parameters=rope("linear", factor=2.5)), PADDED,
     {"rope_theta": 10000.0, "rope_scaling": {"type": "linear", "factor": 2.5}}),
    ("llama-rope-dynamic", LlamaForCausalLM,
     LlamaConfig(**{**LLAMA, "max_position_embeddings": 16}, rope_parameters=rope("dynamic", factor=2.0)), EVEN,
     {"rope_theta": 10000.0, "rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}),
    ("llama-rope-yarn", LlamaForCausalLM,
     LlamaConfig(**{**LLAMA, "head_dim": 8}, rope_parameters=rope("yarn", factor=4.0, original_max_position_embeddings=8,
                                                                  beta_fast=2.0, beta_slow=0.5)), PADDED, None),
    ("llama-rope-longrope", LlamaForCausalLM,
     LlamaConfig(**{**LLAMA, "head_dim": 8}, rope_parameters=rope("longrope", original_max_position_embeddings=16, factor=2.0,
                                                                  short_factor=[1.0, 1.1, 1.2, 1.3],
                                                                  long_factor=[1.0, 2.0, 3.5, 5.0])), EVEN, None),
    ("gpt_bigcode-mha", GPTBigCodeForCausalLM, GPTBigCodeConfig(**BIGCODE, multi_query=False), PADDED, None),
    ("gpt_bigcode-seqcls", GPTBigCodeForSequenceClassification, GPTBigCodeConfig(**BIGCODE, num_labels=3), PADDED, None),
    ("gpt_bigcode-tokens", GPTBigCodeForTokenClassification, GPTBigCodeConfig(**BIGCODE, num_labels=5), PADDED, None),
    ("starcoder2-window", Starcoder2ForCausalLM, Starcoder2Config(**{**STARCODER, "sliding_window": 5}), EVEN, None),
    ("starcoder2-seqcls", Starcoder2ForSequenceClassification, Starcoder2Config(**STARCODER, num_labels=3), PADDED, None),
    ("starcoder2-tokens", Starcoder2ForTokenClassification, Starcoder2Config(**STARCODER, num_labels=5), PADDED, None),
]


def randomise(model):
    for name, parameter in model.named_parameters():
        centre = 1.0 if "norm" in name.lower() and name.endswith("weight") or ".ln_" in name and name.endswith("weight") else 0.0
        parameter.data.copy_(centre + 0.2 * torch.randn_like(parameter))


def run(model, inputs, cotangent):
    found = model(**inputs, use_cache=False).logits
    model.zero_grad()
    (found * cotangent.to(found.dtype)).sum().backward()
    return found.detach(), {n: p.grad.detach().clone() for n, p in model.named_parameters() if p.grad is not None}


def noise(a, b):
    pairs = [(a[k].double(), b[k]) for k in a]
    return {"largest_difference": max((x - y).abs().max().item() for x, y in pairs),
            "largest_value": max(y.abs().max().item() for _, y in pairs)}


root = pathlib.Path(sys.argv[1])
for number, (name, kind, config, lengths, older) in enumerate(VARIANTS):
    seed = 40 + number
    torch.manual_seed(seed)
    config._attn_implementation = "eager"
    model = kind(config).eval()
    randomise(model)
    width = max(lengths)
    mask = torch.tensor([[int(t < n) for t in range(width)] for n in lengths])
    inputs = {"input_ids": torch.randint(2, V, (len(lengths), width)) * mask, "attention_mask": mask}
    shape = model(**inputs, use_cache=False).logits.shape
    cotangent = torch.randn(shape) * (mask.unsqueeze(-1) if len(shape) == 3 else 1)
    found, gradients = run(model, inputs, cotangent)
    exact, exact_gradients = run(copy.deepcopy(model).double(), inputs, cotangent)
    if len(shape) == 3:  # what stands at padded places has no meaning
        inputs["valid"], found, exact = mask.clone(), found * mask.unsqueeze(-1), exact * mask.unsqueeze(-1)
    folder = root / name
    (folder / "model").mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder / "model")
    (folder / "model" / "generation_config.json").unlink(missing_ok=True)
    if older:
        path = folder / "model" / "config.json"
        written = json.loads(path.read_text())
        del written["rope_parameters"]
        path.write_text(json.dumps({**written, **older}, indent=2) + "\n")
    save_file({**inputs, "cotangent.logits": cotangent}, folder / "inputs.safetensors")
    save_file({"logits": found.contiguous()}, folder / "outputs.safetensors")
    save_file({f"grad.{n}": g for n, g in gradients.items()}, folder / "gradients.safetensors")
    meta = {"system": name.split("-")[0], "variant": name.partition("-")[2], "architecture": kind.__name__, "seed": seed,
            "reference": f"transformers {transformers.__version__}, torch {torch.__version__}, float32, CPU",
            "float32_against_float64": {"outputs": noise({0: found}, {0: exact}),
                                        "gradients": noise(gradients, exact_gradients)}}
    (folder / "meta.json").write_text(json.dumps(meta, indent=2) + "\n")
    print(name, {k: f'{v["largest_difference"] / v["largest_value"]:.1e}' for k, v in meta["float32_against_float64"].items()})
