"""Tiny variants of timm's models and one of torchvision's, with random weights: a ViT with registers and layer scale (DINOv2's in
timm), one with registers and average pooling without a class token, a ResNet-D with its deep stem, a ResNeXt, and torchvision's
EfficientNet. Writes vit-timm-registers/, vit-timm-gap-registers/, resnet-timm-d/, resnext-timm/ and efficientnet-torchvision/.
Needs torch, timm, torchvision and safetensors: python tests/parity/make_timm_variants.py"""
import copy, functools, json, pathlib
import timm, torch, torchvision
from safetensors.torch import save_file
from torchvision.models.efficientnet import EfficientNet, MBConvConfig


def results(model, pixels, cotangent):
    model.zero_grad()
    logits = model(pixels)
    (logits * cotangent).sum().backward()
    return logits.detach(), {f"grad.{k}": p.grad.clone() for k, p in model.named_parameters()}


def randomise(model):
    with torch.no_grad():
        for name, p in model.named_parameters():
            scale = p.dim() == 1 and ("norm" in name or "bn" in name or "gamma" in name or name.endswith("1.weight")) and name.endswith(("weight", "gamma"))
            fan = p[0].numel() if p.dim() > 1 else 1
            p.copy_((1.0 / fan ** 0.5 if p.dim() > 1 else 0.2) * torch.randn_like(p) + (1 if scale else 0))
        for name, b in model.named_buffers():
            if name.endswith("running_mean"):
                b.copy_(0.2 * torch.randn_like(b))
            elif name.endswith("running_var"):
                b.copy_(0.5 + torch.rand_like(b))


def write(name, model, side, config, reference, weights="model.safetensors"):
    randomise(model.eval())
    pixels, cotangent = torch.randn(2, 3, side, side), torch.randn(2, 3)
    logits, gradients = results(model, pixels, cotangent)
    exact, exact_gradients = results(copy.deepcopy(model).double(), pixels.double(), cotangent.double())
    largest = max(g.abs().max().item() for g in exact_gradients.values())
    rounding = {"outputs": {"logits": ((logits - exact).abs().max() / exact.abs().max()).item()},
                "gradients": max((g - exact_gradients[k]).abs().max().item() for k, g in gradients.items()) / largest}
    folder = pathlib.Path(__file__).parent / name
    (folder / "model").mkdir(parents=True, exist_ok=True)
    if config:
        (folder / "model/config.json").write_text(json.dumps(config, indent=2) + "\n")
        save_file(model.state_dict(), folder / "model" / weights)
    else:
        torch.save(model.state_dict(), folder / "model" / weights)
    save_file({"x": pixels, "cotangent.logits": cotangent}, folder / "inputs.safetensors")
    save_file({"logits": logits}, folder / "outputs.safetensors")
    save_file(gradients, folder / "gradients.safetensors")
    (folder / "meta.json").write_text(json.dumps({"system": name.split("-")[0], "variant": name, "reference": reference, "rounding": rounding}, indent=2) + "\n")


def of_timm(name, architecture, side, **arguments):
    arguments["num_classes"] = 3
    model = timm.create_model(architecture, **arguments)
    cfg = {key: model.pretrained_cfg[key] for key in ("interpolation", "crop_pct", "mean", "std", "classifier", "first_conv")}
    write(name, model, side, {"architecture": architecture, "num_classes": 3, "num_features": model.num_features, "global_pool": model.global_pool if isinstance(model.global_pool, str) else "avg",
                              "model_args": arguments, "pretrained_cfg": {"input_size": [3, side, side], **cfg, "num_classes": 3}},
          f"timm {timm.__version__}")


def main():
    torch.manual_seed(23)
    torch.set_num_threads(1)
    of_timm("vit-timm-registers", "vit_small_patch14_reg4_dinov2", 28, img_size=28, embed_dim=24, depth=2, num_heads=2)
    of_timm("vit-timm-gap-registers", "vit_base_patch16_reg4_gap_256", 32, img_size=32, patch_size=8, embed_dim=24, depth=2, num_heads=2)
    of_timm("resnet-timm-d", "resnet26d", 32, layers=[1, 2, 1, 1], channels=[4, 6, 8, 10], stem_width=4)
    of_timm("resnext-timm", "resnext50_32x4d", 32, layers=[1, 1, 1, 1], channels=[8, 8, 16, 16], cardinality=4, base_width=32, stem_width=8)
    block = functools.partial(MBConvConfig, width_mult=0.125, depth_mult=0.5)
    model = EfficientNet([block(1, 3, 1, 32, 16, 1), block(6, 3, 2, 16, 24, 2), block(6, 5, 2, 24, 40, 2), block(6, 3, 2, 40, 80, 3),
                          block(6, 5, 1, 80, 112, 3), block(6, 5, 2, 112, 96, 4), block(6, 3, 1, 96, 64, 1)], dropout=0.2, num_classes=3)
    write("efficientnet-torchvision", model, 32, None, f"torchvision {torchvision.__version__}", "efficientnet_b0.pth")


if __name__ == "__main__":
    main()
