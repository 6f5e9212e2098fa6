"""An MLP of two hidden layers with random weights on gray images of 6 x 6. Writes mlp/.
Needs torch and safetensors: python tests/parity/make_mlp.py"""
import copy, json, pathlib
import torch
from safetensors.torch import save_file
from torch import nn


class Mlp(nn.Module):
    def __init__(self, inputs=36, widths=(12, 8), classes=5):
        super().__init__()
        self.mlp = nn.Module()
        self.mlp.layers = nn.ModuleList(nn.Linear(a, b) for a, b in zip((inputs, *widths), widths))
        self.classifier = nn.Linear(widths[-1], classes)

    def forward(self, x):
        x = x.mean(1).flatten(1)
        for layer in self.mlp.layers:
            x = torch.relu(layer(x))
        return self.classifier(x)


def results(model, x, cotangent):
    model.zero_grad()
    logits = model(x)
    (logits * cotangent).sum().backward()
    return logits.detach(), {f"grad.{k}": p.grad.clone() for k, p in model.named_parameters()}


def difference(a, b):
    return ((a.double() - b).abs().max() / b.abs().max()).item()


torch.manual_seed(20)
torch.set_num_threads(1)
model = Mlp()
x, cotangent = torch.randn(3, 3, 6, 6), torch.randn(3, 5)
logits, gradients = results(model, x, cotangent)
exact, exact_gradients = results(copy.deepcopy(model).double(), x.double(), cotangent.double())
largest = max(g.abs().max().item() for g in exact_gradients.values())
folder = pathlib.Path(__file__).parent / "mlp"
(folder / "model").mkdir(parents=True, exist_ok=True)
save_file({k: v.contiguous() for k, v in model.state_dict().items()}, folder / "model" / "model.safetensors")
(folder / "model" / "graft.json").write_text(json.dumps(
    {"model_type": "mlp", "layout": "torch", "gray": True, "label_names": ["a", "b", "c", "d", "e"]}, indent=2) + "\n")
save_file({"pixel_values": x, "cotangent.logits": cotangent}, folder / "inputs.safetensors")
save_file({"logits": logits}, folder / "outputs.safetensors")
save_file(gradients, folder / "gradients.safetensors")
(folder / "meta.json").write_text(json.dumps(
    {"system": "mlp", "variant": "gray", "reference": f"torch {torch.__version__}, make_mlp.py",
     "rounding": {"outputs": {"logits": difference(logits, exact)},
                  "gradients": max((gradients[k].double() - g).abs().max().item() for k, g in exact_gradients.items()) / largest}},
    indent=2) + "\n")
