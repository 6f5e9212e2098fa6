"""A tiny Dinov2ForImageClassification with gated feed-forward layers (as the giant model has) and random weights, on
images of another size than the configuration's. Writes dinov2-swiglu/.
Needs torch, transformers and safetensors: python tests/parity/make_dinov2_swiglu.py"""
import copy, json, pathlib
import torch, transformers
from safetensors.torch import save_file


def in_file(name):
    """transformers 5 calls modules otherwise than the tensors of a file."""
    for ours, theirs in {"q_proj": "attention.query", "k_proj": "attention.key", "v_proj": "attention.value",
                         "o_proj": "output.dense"}.items():
        name = name.replace("attention." + ours, "attention." + theirs)
    return "grad." + name.replace("mlp.down_proj", "mlp.weights_out")


def by_file(gradients):
    """In a file the gate and the value are one matrix, the gate first."""
    for name in [n for n in gradients if "mlp.gate_proj" in n]:
        value = gradients.pop(name.replace("gate_proj", "up_proj"))
        gradients[name.replace("gate_proj", "weights_in")] = torch.cat([gradients.pop(name), value])
    return gradients


def results(model, pixels, cotangent):
    model.zero_grad()
    logits = model(pixel_values=pixels).logits
    (logits * cotangent).sum().backward()
    return logits.detach(), by_file({in_file(k): p.grad.clone() for k, p in model.named_parameters() if p.grad is not None})


torch.manual_seed(21)
torch.set_num_threads(1)
config = transformers.Dinov2Config(hidden_size=24, num_hidden_layers=2, num_attention_heads=2, mlp_ratio=2, image_size=24,
                                   patch_size=8, use_swiglu_ffn=True, num_labels=3, attn_implementation="eager")
model = transformers.Dinov2ForImageClassification(config).eval()
with torch.no_grad():
    for name, p in model.named_parameters():
        p.copy_(0.2 * torch.randn_like(p) + (1 if "lambda1" in name or "norm" in name and "weight" in name else 0))
pixels, cotangent = torch.randn(2, 3, 32, 24), torch.randn(2, 3)
logits, gradients = results(model, pixels, cotangent)
exact, exact_gradients = results(copy.deepcopy(model).double(), pixels.double(), cotangent.double())
largest = max(g.abs().max().item() for g in exact_gradients.values())
rounding = {
    "outputs": {"logits": ((logits - exact).abs().max() / exact.abs().max()).item()},
    "gradients": max((g - exact_gradients[k]).abs().max().item() for k, g in gradients.items()) / largest,
}
folder = pathlib.Path(__file__).parent / "dinov2-swiglu"
model.save_pretrained(folder / "model")
save_file({"pixel_values": pixels, "cotangent.logits": cotangent}, folder / "inputs.safetensors")
save_file({"logits": logits}, folder / "outputs.safetensors")
save_file(gradients, folder / "gradients.safetensors")
(folder / "meta.json").write_text(json.dumps({
    "system": "dinov2", "variant": "swiglu", "reference": f"transformers {transformers.__version__}",
    "rounding": rounding}, indent=2) + "\n")
