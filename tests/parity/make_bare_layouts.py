"""Tiny image models with random weights in files without a configuration, as their authors and torchvision publish them, and
timm's ViT at another image size and with gated feed-forward layers. The authors' code is not on PyPI: what it does beside timm's blocks (masking
and decoding of MAE, positions of DINO and DINOv2) is written here after facebookresearch/{mae,dino,dinov2}.
Writes vit-torchvision/, vit-torchvision-resized/, swin-torchvision/, swin-authors/, vit-mae-authors/, dinov2-authors/,
dinov2-authors-registers/, vit-timm-resized/ and vit-timm-swiglu/.
Needs torch, timm, torchvision and safetensors: python tests/parity/make_bare_layouts.py"""
import copy, functools, json, pathlib, re
import timm, torch, torchvision
import torch.nn.functional as F
from safetensors.torch import save_file
from timm.models.vision_transformer import Block, PatchEmbed
from torch import nn
from torchvision.models.swin_transformer import SwinTransformer
from torchvision.models.vision_transformer import VisionTransformer

from make_timm_variants import randomise

HERE = pathlib.Path(__file__).parent
TORCHVISION, TIMM = f"torchvision {torchvision.__version__}", f"timm {timm.__version__}"


def results(model, inputs, cotangents, name_of):
    model.zero_grad()
    outputs = model(**inputs)
    sum((outputs[name] * cotangent).sum() for name, cotangent in cotangents.items()).backward()
    gradients = {"grad." + name_of(k): p.grad.clone() for k, p in model.named_parameters() if p.grad is not None}
    return {k: v.detach() for k, v in outputs.items()}, gradients


def doubled(tensors):
    return {k: v.double() for k, v in tensors.items()}


def write(name, model, inputs, save, reference, name_of=lambda k: k, differentiated=("logits",)):
    """`save(folder)` writes what is published; `name_of` turns a parameter's name into the file's."""
    outputs = {k: v.detach() for k, v in model(**inputs).items()}
    cotangents = {k: torch.randn_like(outputs[k]) for k in differentiated}
    outputs, gradients = results(model, inputs, cotangents, name_of)
    exact, exact_gradients = results(copy.deepcopy(model).double(), doubled(inputs), doubled(cotangents), name_of)
    largest = max(g.abs().max().item() for g in exact_gradients.values())
    rounding = {"outputs": {k: ((v - exact[k]).abs().max() / exact[k].abs().max()).item() for k, v in outputs.items()},
                "gradients": max((g - exact_gradients[k]).abs().max().item() for k, g in gradients.items()) / largest}
    folder = HERE / name
    (folder / "model").mkdir(parents=True, exist_ok=True)
    save(folder / "model")
    save_file({**{k: v.contiguous() for k, v in inputs.items()}, **{f"cotangent.{k}": v for k, v in cotangents.items()}}, folder / "inputs.safetensors")
    save_file({k: v.contiguous() for k, v in outputs.items()}, folder / "outputs.safetensors")
    save_file(gradients, folder / "gradients.safetensors")
    (folder / "meta.json").write_text(json.dumps({"system": name.split("-")[0], "variant": name, "reference": reference, "rounding": rounding}, indent=2) + "\n")
    print(name, rounding["gradients"])


class Logits(nn.Module):
    """A classifier as {"logits": ...}; `positions`, if given, replaces a table before each pass."""

    def __init__(self, model, table=None, positions=None):
        super().__init__()
        self.model, self.table, self.positions = model, table, positions

    def forward(self, x):
        if self.table is None:
            return {"logits": self.model(x)}
        resized = {self.table: self.positions(dict(self.model.named_parameters())[self.table])}
        return {"logits": torch.func.functional_call(self.model, resized, (x,))}


def below_model(key):
    return key.removeprefix("model.")


def heads(folder, number, **more):
    """What no tensor tells of widths that nobody publishes."""
    (folder / "graft.json").write_text(json.dumps({"num_heads": number, **more}) + "\n")


def torchvision_vit(side):
    return VisionTransformer(image_size=side, patch_size=8, num_layers=2, num_heads=2, hidden_dim=24, mlp_dim=48, num_classes=3)


def make_torchvision_vit():
    def save(folder, model):
        heads(folder, 2)
        torch.save(model.state_dict(), folder / "vit_b_16-00000000.pth")
    model = torchvision_vit(32).eval()
    randomise(model)
    write("vit-torchvision", Logits(model), {"x": torch.randn(2, 3, 32, 32)}, lambda f: save(f, model), TORCHVISION, below_model)

    larger = torchvision_vit(48).eval()  # positions as torchvision.models.vision_transformer.interpolate_embeddings
    larger.load_state_dict({k: v for k, v in model.state_dict().items() if "pos_embedding" not in k}, strict=False)
    larger.encoder.pos_embedding = nn.Parameter(model.encoder.pos_embedding.detach().clone())

    def resized(table):
        grid = table[:, 1:].permute(0, 2, 1).reshape(1, 24, 4, 4)
        grid = F.interpolate(grid, size=6, mode="bicubic", align_corners=True)
        return torch.cat([table[:, :1], grid.reshape(1, 24, 36).permute(0, 2, 1)], 1)
    expected = torchvision.models.vision_transformer.interpolate_embeddings(48, 8, copy.deepcopy(model.state_dict()))["encoder.pos_embedding"]
    assert resized(model.encoder.pos_embedding).equal(expected)
    write("vit-torchvision-resized", Logits(larger, "encoder.pos_embedding", resized), {"x": torch.randn(2, 3, 48, 48)}, lambda f: save(f, larger), TORCHVISION, below_model)


def make_swin():
    # Grids of 9 x 6, 5 x 3 and 3 x 2 in windows of 4: padded, shifted on one axis or none, smaller than a window.
    model = SwinTransformer(patch_size=[2, 2], embed_dim=8, depths=[2, 2, 2], num_heads=[2, 2, 4], window_size=[4, 4], mlp_ratio=2, num_classes=3).eval()
    randomise(model)
    write("swin-torchvision", Logits(model), {"x": torch.randn(2, 3, 18, 12)},
          lambda f: torch.save(model.state_dict(), f / "swin_t-00000000.pth"), TORCHVISION, below_model)

    # microsoft/Swin-Transformer: mergings end a stage, the head is a plain layer, index and mask are in the file.
    authors = timm.create_model("swin_tiny_patch4_window7_224", img_size=16, patch_size=2, window_size=4, embed_dim=8, depths=[2, 2], num_heads=[2, 4], mlp_ratio=2, num_classes=3).eval()
    randomise(authors)

    def in_file(key):
        key = re.sub(r"layers\.(\d+)\.downsample", lambda m: f"layers.{int(m[1]) - 1}.downsample", below_model(key))
        return key.replace("head.fc.", "head.")

    def save(folder):
        state = {in_file(k): v for k, v in authors.state_dict().items()}
        for i, stage in enumerate(authors.layers):
            for j, block in enumerate(stage.blocks):
                state[f"layers.{i}.blocks.{j}.attn.relative_position_index"] = block.attn.relative_position_index
                if block.attn_mask is not None:
                    state[f"layers.{i}.blocks.{j}.attn_mask"] = block.attn_mask
        torch.save({"model": state}, folder / "swin_tiny.pth")
    write("swin-authors", Logits(authors), {"x": torch.randn(2, 3, 16, 16)}, save, TIMM, in_file)


class Mae(nn.Module):
    """facebookresearch/mae, models_mae.py: the encoder sees some patches, the decoder gives back the others."""

    def __init__(self, side=32, patch=8, width=24, depth=2, heads=2, decoder_width=16, decoder_depth=1, decoder_heads=2):
        super().__init__()
        norm = functools.partial(nn.LayerNorm, eps=1e-6)
        self.patch_embed = PatchEmbed(side, patch, 3, width)
        count, self.patch = self.patch_embed.num_patches, patch
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, count + 1, width), requires_grad=False)
        self.blocks = nn.ModuleList([Block(width, heads, 2, qkv_bias=True, norm_layer=norm) for _ in range(depth)])
        self.norm = norm(width)
        self.decoder_embed = nn.Linear(width, decoder_width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, decoder_width))
        self.decoder_pos_embed = nn.Parameter(torch.zeros(1, count + 1, decoder_width), requires_grad=False)
        self.decoder_blocks = nn.ModuleList([Block(decoder_width, decoder_heads, 4, qkv_bias=True, norm_layer=norm) for _ in range(decoder_depth)])
        self.decoder_norm = norm(decoder_width)
        self.decoder_pred = nn.Linear(decoder_width, patch**2 * 3)

    def forward(self, pixel_values, noise):
        x = self.patch_embed(pixel_values) + self.pos_embed[:, 1:]
        N, L, D = x.shape
        keep = int(L * 0.25)
        shuffle = torch.argsort(noise, dim=1)
        restore = torch.argsort(shuffle, dim=1)
        x = torch.gather(x, 1, shuffle[:, :keep, None].expand(-1, -1, D))
        mask = (restore >= keep).to(x.dtype)
        x = torch.cat([(self.cls_token + self.pos_embed[:, :1]).expand(N, -1, -1), x], 1)
        for block in self.blocks:
            x = block(x)
        x = self.decoder_embed(self.norm(x))
        y = torch.cat([x[:, 1:], self.mask_token.expand(N, L - keep, -1)], 1)
        y = torch.gather(y, 1, restore[:, :, None].expand(-1, -1, y.shape[2]))
        y = torch.cat([x[:, :1], y], 1) + self.decoder_pos_embed
        for block in self.decoder_blocks:
            y = block(y)
        logits = self.decoder_pred(self.decoder_norm(y))[:, 1:]
        p, side = self.patch, int(L**0.5)
        target = torch.einsum("nchpwq->nhwpqc", pixel_values.reshape(N, 3, side, p, side, p)).reshape(N, L, -1)
        loss = (((logits - target) ** 2).mean(-1) * mask).sum() / mask.sum()
        return {"logits": logits, "mask": mask, "loss": loss}


def make_mae():
    model = Mae().eval()
    randomise(model)

    def save(folder):
        heads(folder, 2, decoder_num_attention_heads=2)
        torch.save({"model": model.state_dict(), "epoch": 3}, folder / "mae_pretrain_full.pth")
    write("vit-mae-authors", model, {"pixel_values": torch.randn(2, 3, 32, 32), "noise": torch.rand(2, 16)}, save, f"{TIMM}, make_bare_layouts.py", differentiated=("logits", "loss"))


class Dinov2(nn.Module):
    """facebookresearch/dinov2, vision_transformer.py: layer scale, registers behind the class token without positions."""

    def __init__(self, side, registers, patch=8, width=24, depth=2, heads=2, swiglu=False):
        super().__init__()
        self.grid, self.patch, self.width = side // patch, patch, width
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + self.grid**2, width))
        if registers:
            self.register_tokens = nn.Parameter(torch.zeros(1, registers, width))
        self.mask_token = nn.Parameter(torch.zeros(1, width), requires_grad=False)
        self.patch_embed = nn.Module()
        self.patch_embed.proj = nn.Conv2d(3, width, patch, patch)
        self.blocks = nn.ModuleList([Block(width, heads, 2, qkv_bias=True, init_values=1e-5, norm_layer=functools.partial(nn.LayerNorm, eps=1e-6)) for _ in range(depth)])
        if swiglu:
            for block in self.blocks:
                block.mlp = SwiGLU(width, 2 * width)
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def positions(self, h, w):
        grid = self.pos_embed[:, 1:].reshape(1, self.grid, self.grid, self.width).permute(0, 3, 1, 2)
        if hasattr(self, "register_tokens"):  # published with interpolate_antialias and no offset
            grid = F.interpolate(grid, size=(h, w), mode="bicubic", antialias=True)
        else:
            grid = F.interpolate(grid, scale_factor=((h + 0.1) / self.grid, (w + 0.1) / self.grid), mode="bicubic")
        assert grid.shape[-2:] == (h, w)
        return torch.cat([self.pos_embed[:, :1], grid.permute(0, 2, 3, 1).reshape(1, h * w, self.width)], 1)

    def forward(self, x):
        x = self.patch_embed.proj(x)
        h, w = x.shape[-2:]
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x.flatten(2).transpose(1, 2)], 1) + self.positions(h, w)
        if hasattr(self, "register_tokens"):
            x = torch.cat([x[:, :1], self.register_tokens.expand(len(x), -1, -1), x[:, 1:]], 1)
        for block in self.blocks:
            x = block(x)
        return {"last_hidden_state": self.norm(x)}


class SwiGLU(nn.Module):
    """dinov2/layers/swiglu_ffn.py, with its names."""

    def __init__(self, width, inner):
        super().__init__()
        self.w12, self.w3 = nn.Linear(width, 2 * inner), nn.Linear(inner, width)

    def forward(self, x):
        gate, value = self.w12(x).chunk(2, dim=-1)
        return self.w3(F.silu(gate) * value)


def make_dinov2():
    for name, registers, swiglu in ("dinov2-authors", 0, False), ("dinov2-authors-registers", 4, True):
        model = Dinov2(40, registers, swiglu=swiglu).eval()
        randomise(model)

        def save(folder):
            heads(folder, 2)
            state = model.state_dict()
            if not registers:  # as training leaves it: the teacher of self-distillation, its projection head beside it
                state = {"teacher": {**{"backbone." + k: v for k, v in state.items()}, "dino_head.mlp.0.weight": torch.zeros(2, 2)}, "iteration": 1}
            torch.save(state, folder / "teacher_checkpoint.pth")
        write(name, model, {"x": torch.randn(2, 3, 56, 24)}, save, f"{TIMM}, make_bare_layouts.py", (lambda k: k) if registers else (lambda k: "backbone." + k), ("last_hidden_state",))


def make_timm(name, architecture, side, pixels, **arguments):
    model = timm.create_model(architecture, num_classes=3, img_size=side, dynamic_img_size=True, **arguments).eval()
    randomise(model)

    def save(folder):
        cfg = {key: model.pretrained_cfg[key] for key in ("interpolation", "crop_pct", "mean", "std", "classifier", "first_conv")}
        (folder / "config.json").write_text(json.dumps({
            "architecture": architecture, "num_classes": 3, "num_features": model.num_features, "global_pool": "token",
            "model_args": {"img_size": side, "num_classes": 3, **arguments}, "pretrained_cfg": {"input_size": [3, side, side], **cfg, "num_classes": 3}}, indent=2) + "\n")
        save_file(model.state_dict(), folder / "model.safetensors")
    write(name, Logits(model), {"x": torch.randn(2, 3, *pixels)}, save, TIMM, below_model)


torch.manual_seed(31)
torch.set_num_threads(1)
make_torchvision_vit()
make_swin()
make_mae()
make_dinov2()
make_timm("vit-timm-resized", "vit_small_patch16_224", 40, (56, 24), patch_size=8, embed_dim=24, depth=2, num_heads=2)
make_timm("vit-timm-swiglu", "vit_giant_patch14_dinov2", 28, (28, 28), embed_dim=24, depth=2, num_heads=2)
