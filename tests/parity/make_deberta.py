"""The two fixtures of DeBERTa v2 that the shared set lacks; usage: make_deberta.py FOLDER (torch, transformers, safetensors).

deberta-v2-conv       the convolution of the large models, projections of the table of its own, absolute positions, token
                      types, and word embeddings narrower than the states; sequence classification
deberta-v2-published  the layout of the hub's v3 files: pytorch_model.bin in float16, no `architectures`, pos_att_type as
                      text, the language and discriminator heads and an unused position table beside the encoder
"""

import copy
import json
import pathlib
import sys

import torch
import transformers
from safetensors.torch import save_file
from transformers import DebertaV2Config, DebertaV2ForSequenceClassification, DebertaV2Model

torch.set_num_threads(1)
SMALL = dict(vocab_size=67, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48,
             max_position_embeddings=40, relative_attention=True, position_buckets=6, norm_rel_ebd="layer_norm",
             type_vocab_size=0, position_biased_input=False, share_att_key=True, pos_att_type=["p2c", "c2p"])


def randomise(model, half):
    for name, parameter in model.named_parameters():
        centre = 1.0 if "LayerNorm.weight" in name else 0.0
        values = centre + 0.2 * torch.randn_like(parameter)
        parameter.data.copy_(values.half().float() if half else values)


def run(model, inputs, cotangent, output):
    found = model(**inputs)[output]
    model.zero_grad()
    (found * cotangent.to(found.dtype)).sum().backward()
    return found.detach(), {n: p.grad.detach().clone() for n, p in model.named_parameters()}


def noise(a, b):
    pairs = [(a[k].double(), b[k]) for k in a]
    return {"largest_difference": max((x - y).abs().max().item() for x, y in pairs),
            "largest_value": max(y.abs().max().item() for _, y in pairs)}


def make(folder, variant, model, output, half, seed):
    torch.manual_seed(seed)
    model.eval()
    randomise(model, half)
    lengths, width = [27, 19, 5], 27
    mask = torch.tensor([[int(t < n) for t in range(width)] for n in lengths])
    inputs = {"input_ids": torch.randint(3, 67, (3, width)) * mask, "attention_mask": mask}
    if model.config.type_vocab_size:
        inputs["token_type_ids"] = torch.randint(0, 2, (3, width)) * mask
    shape = model(**inputs)[output].shape
    cotangent = torch.randn(shape) * (mask.unsqueeze(-1) if len(shape) == 3 else 1)
    found, gradients = run(model, inputs, cotangent, output)
    exact, exact_gradients = run(copy.deepcopy(model).double(), inputs, cotangent, output)
    if len(shape) == 3:  # what stands at padded places has no meaning
        inputs["valid"], found, exact = mask.clone(), found * mask.unsqueeze(-1), exact * mask.unsqueeze(-1)
    folder = folder / f"deberta-v2-{variant}"
    (folder / "model").mkdir(parents=True, exist_ok=True)
    save_file({**inputs, f"cotangent.{output}": cotangent}, folder / "inputs.safetensors")
    save_file({output: found}, folder / "outputs.safetensors")
    prefix = "deberta." if half else ""
    save_file({f"grad.{prefix}{n}": g for n, g in gradients.items()}, folder / "gradients.safetensors")
    meta = {"system": "deberta-v2", "variant": variant, "architecture": type(model).__name__, "seed": seed,
            "reference": f"transformers {transformers.__version__}, torch {torch.__version__}, float32, CPU",
            "float32_against_float64": {"outputs": noise({0: found}, {0: exact}),
                                        "gradients": noise(gradients, exact_gradients)}}
    (folder / "meta.json").write_text(json.dumps(meta, indent=2) + "\n")
    return folder / "model"


root = pathlib.Path(sys.argv[1])
config = DebertaV2Config(**{**SMALL, "share_att_key": False, "type_vocab_size": 2, "position_biased_input": True},
                         conv_kernel_size=3, conv_act="gelu", embedding_size=24, num_labels=3)
model = DebertaV2ForSequenceClassification(config)
target = make(root, "conv", model, "logits", False, 11)
model.save_pretrained(target)

model = DebertaV2Model(DebertaV2Config(**SMALL))
target = make(root, "published", model, "last_hidden_state", True, 12)
tensors = {"deberta." + n: p.detach().half() for n, p in model.state_dict().items()}
C, V = SMALL["hidden_size"], SMALL["vocab_size"]
extra = {"deberta.embeddings.position_embeddings.weight": (40, C), "lm_predictions.lm_head.dense.weight": (C, C),
         "lm_predictions.lm_head.dense.bias": (C,), "lm_predictions.lm_head.LayerNorm.weight": (C,),
         "lm_predictions.lm_head.LayerNorm.bias": (C,), "lm_predictions.lm_head.bias": (V,),
         "mask_predictions.dense.weight": (C, C), "mask_predictions.dense.bias": (C,),
         "mask_predictions.LayerNorm.weight": (C,), "mask_predictions.LayerNorm.bias": (C,),
         "mask_predictions.classifier.weight": (1, C), "mask_predictions.classifier.bias": (1,),
         "deberta.embeddings.word_embeddings._weight": (V, C)}
torch.manual_seed(13)
tensors.update({name: torch.randn(shape).half() for name, shape in extra.items()})
torch.save(tensors, target / "pytorch_model.bin")
published = {"model_type": "deberta-v2", "attention_probs_dropout_prob": 0.1, "hidden_act": "gelu",
             "hidden_dropout_prob": 0.1, "hidden_size": C, "initializer_range": 0.02, "intermediate_size": 48,
             "max_position_embeddings": 40, "relative_attention": True, "position_buckets": 6,
             "norm_rel_ebd": "layer_norm", "share_att_key": True, "pos_att_type": "p2c|c2p", "layer_norm_eps": 1e-7,
             "max_relative_positions": -1, "position_biased_input": False, "num_attention_heads": 4,
             "num_hidden_layers": 2, "type_vocab_size": 0, "vocab_size": V}
(target / "config.json").write_text(json.dumps(published, indent=2) + "\n")
