"""A narrow ResNet of CIFAR's kind (He et al. 2016, section 4.2; shortcuts of option A) with random weights, as
akamaster/pytorch_resnet_cifar10 saves one: names with `module.`, the classifier `linear`. Writes resnet-cifar/.
Needs torch and safetensors: python tests/parity/make_resnet_cifar.py"""
import copy, json, pathlib
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn


class Block(nn.Module):
    def __init__(self, width_in, width, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(width_in, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.pad = (width - width_in) // 2 if stride != 1 or width != width_in else None

    def forward(self, x):
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        skip = x if self.pad is None else F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.pad, self.pad))
        return F.relu(y + skip)


class ResNet(nn.Module):
    def __init__(self, widths=(4, 8, 16), blocks=2, classes=5):
        super().__init__()
        self.conv1 = nn.Conv2d(3, widths[0], 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        for stage, width in enumerate(widths):
            before = widths[max(0, stage - 1)]
            layers = [Block(before if b == 0 else width, width, 2 if stage and b == 0 else 1) for b in range(blocks)]
            setattr(self, f"layer{stage + 1}", nn.Sequential(*layers))
        self.linear = nn.Linear(widths[-1], classes)

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        for stage in (self.layer1, self.layer2, self.layer3):
            x = stage(x)
        return self.linear(x.mean((2, 3)))


def results(model, x, cotangent):
    model.zero_grad()
    logits = model(x)
    (logits * cotangent).sum().backward()
    return logits.detach(), {f"grad.module.{k}": p.grad.clone() for k, p in model.named_parameters()}


torch.manual_seed(20)
torch.set_num_threads(1)
model = ResNet().eval()
for name, value in model.state_dict().items():
    if value.dim() == 1 and value.is_floating_point():
        value.copy_(torch.rand_like(value) + 0.5 if "var" in name or "weight" in name else 0.2 * torch.randn_like(value))
x, cotangent = torch.randn(2, 3, 16, 16), torch.randn(2, 5)
logits, gradients = results(model, x, cotangent)
exact, exact_gradients = results(copy.deepcopy(model).double(), x.double(), cotangent.double())
largest = max(g.abs().max().item() for g in exact_gradients.values())
rounding = {
    "outputs": {"logits": ((logits - exact).abs().max() / exact.abs().max()).item()},
    "gradients": max((g - exact_gradients[k]).abs().max().item() for k, g in gradients.items()) / largest,
}
folder = pathlib.Path(__file__).parent / "resnet-cifar"
(folder / "model").mkdir(parents=True, exist_ok=True)
torch.save({"state_dict": {"module." + k: v for k, v in model.state_dict().items()}, "best_prec1": 50.0},
           folder / "model" / "resnet.th")
save_file({"x": x, "cotangent.logits": cotangent}, folder / "inputs.safetensors")
save_file({"logits": logits}, folder / "outputs.safetensors")
save_file(gradients, folder / "gradients.safetensors")
(folder / "meta.json").write_text(json.dumps({
    "system": "resnet", "variant": "cifar", "reference": f"torch {torch.__version__}, make_resnet_cifar.py",
    "rounding": rounding}, indent=2) + "\n")
