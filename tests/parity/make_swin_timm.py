"""A tiny timm Swin with random weights whose windows do not divide its grids: 10x10 patches in windows of 4 are padded, and
so is the merging of the 5x5 behind them. Writes swin-timm/.
Needs torch, timm and safetensors: python tests/parity/make_swin_timm.py"""
import copy, json, pathlib
import timm, torch
from safetensors.torch import save_file


def results(model, pixels, cotangent):
    model.zero_grad()
    logits = model(pixels)
    (logits * cotangent).sum().backward()
    return logits.detach(), {f"grad.{k}": p.grad.clone() for k, p in model.named_parameters()}


torch.manual_seed(22)
torch.set_num_threads(1)
arguments = dict(img_size=20, patch_size=2, window_size=4, embed_dim=8, depths=[2, 2, 2], num_heads=[2, 2, 4], mlp_ratio=2,
                 num_classes=3)
name = "swin_tiny_patch4_window7_224"
model = timm.create_model(name, **arguments).eval()
with torch.no_grad():
    for key, p in model.named_parameters():
        p.copy_(0.2 * torch.randn_like(p) + (1 if "norm" in key and "weight" in key else 0))
pixels, cotangent = torch.randn(2, 3, 20, 20), torch.randn(2, 3)
logits, gradients = results(model, pixels, cotangent)
exact, exact_gradients = results(copy.deepcopy(model).double(), pixels.double(), cotangent.double())
largest = max(g.abs().max().item() for g in exact_gradients.values())
rounding = {
    "outputs": {"logits": ((logits - exact).abs().max() / exact.abs().max()).item()},
    "gradients": max((g - exact_gradients[k]).abs().max().item() for k, g in gradients.items()) / largest,
}
folder = pathlib.Path(__file__).parent / "swin-timm"
(folder / "model").mkdir(parents=True, exist_ok=True)
cfg = {key: model.pretrained_cfg[key] for key in ("interpolation", "crop_pct", "mean", "std", "classifier", "first_conv")}
(folder / "model/config.json").write_text(json.dumps({
    "architecture": name, "num_classes": 3, "num_features": 32, "global_pool": "avg", "model_args": arguments,
    "pretrained_cfg": {"input_size": [3, 20, 20], **cfg, "num_classes": 3}}, indent=2) + "\n")
save_file(model.state_dict(), folder / "model/model.safetensors")
save_file({"x": pixels, "cotangent.logits": cotangent}, folder / "inputs.safetensors")
save_file({"logits": logits}, folder / "outputs.safetensors")
save_file(gradients, folder / "gradients.safetensors")
(folder / "meta.json").write_text(json.dumps({
    "system": "swin", "variant": "timm", "reference": f"timm {timm.__version__}", "rounding": rounding}, indent=2) + "\n")
