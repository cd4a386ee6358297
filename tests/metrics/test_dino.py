"""DINOv2 read from its authors' kind of file, against transformers' network with the same weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from headstart.metrics import Dinov2Features
from headstart.metrics.dino import OFFSET, Size, VisionTransformer, size_of

SIZES = [Size(64, 256, 2, 16), Size(128, 512, 2, 37), Size(64, 256, 2, 16, registers=4), Size(64, 256, 1, 37, 4)]
PARTS = {"ls1.gamma": "layer_scale1.lambda1", "ls2.gamma": "layer_scale2.lambda1"}
OLD = ("attention.attention.query", "attention.attention.key", "attention.attention.value", "attention.output.dense")
NEW = ("attention.q_proj", "attention.k_proj", "attention.v_proj", "attention.o_proj")


def network(size: Size, **others: Any) -> VisionTransformer:
    """Random weights everywhere, of the sizes that trained ones have."""
    made = VisionTransformer(size, **others).requires_grad_(False).eval()
    generator = torch.Generator().manual_seed(0)
    for name, weight in made.named_parameters():
        centre = 1.0 if name.endswith(("norm1.weight", "norm2.weight", "norm.weight", "gamma")) else 0.0
        weight.copy_(centre + 0.1 * torch.randn(weight.shape, generator=generator))
    return made


def theirs(size: Size, weights: dict[str, Tensor]) -> Any:
    """transformers' network of the same weights."""
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    kind = "Dinov2WithRegisters" if size.registers else "Dinov2"
    numbers = {"hidden_size": size.width, "num_hidden_layers": size.depth, "num_attention_heads": size.width // 64}
    numbers |= {"image_size": 14 * size.side, "patch_size": 14, "mlp_ratio": size.hidden // size.width}
    numbers |= {"num_register_tokens": size.registers} if size.registers else {}
    made = getattr(transformers, f"{kind}Model")(getattr(transformers, f"{kind}Config")(**numbers)).eval()
    renamed = {
        "embeddings.cls_token": weights["cls_token"],
        "embeddings.mask_token": torch.zeros(1, size.width),
        "embeddings.position_embeddings": weights["pos_embed"],
        "embeddings.patch_embeddings.projection.weight": weights["patch_embed.proj.weight"],
        "embeddings.patch_embeddings.projection.bias": weights["patch_embed.proj.bias"],
        "layernorm.weight": weights["norm.weight"],
        "layernorm.bias": weights["norm.bias"],
    }
    if size.registers:
        renamed["embeddings.register_tokens"] = weights["register_tokens"]
    *thirds, last = NEW if any("q_proj" in name for name in made.state_dict()) else OLD  # by transformers' version
    for name, value in weights.items():
        if not name.startswith("blocks."):
            continue
        place, part = name.removeprefix("blocks.").split(".", 1)
        for old, new in {**PARTS, "attn.proj": last}.items():
            part = part.replace(old, new)
        if part.startswith("attn.qkv"):
            for which, third in zip(thirds, value.chunk(3), strict=True):
                renamed[f"encoder.layer.{place}.{part.replace('attn.qkv', which)}"] = third
        else:
            renamed[f"encoder.layer.{place}.{part}"] = value
    made.load_state_dict(renamed)
    return made


def save(folder: Path, made: VisionTransformer, **others: Tensor) -> Path:
    """A file as the authors publish it: a mask token, which no feature needs, beside the rest."""
    path = folder / "dinov2_vits14_pretrain.pth"
    torch.save(made.state_dict() | {"mask_token": torch.zeros(1, made.size.width)} | others, path)
    return path


@pytest.mark.parametrize("size", SIZES)
def test_features_are_those_of_transformers(size: Size) -> None:
    """Their network resizes positions without an offset, which is switched off here."""
    made = network(size, offset=0.0)
    x = torch.randn(3, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        wanted, found = theirs(size, made.state_dict())(x).last_hidden_state[:, 0], made(x)
    assert wanted.std() > 0.1
    assert float((found - wanted).norm() / wanted.norm()) < 1e-5


def test_positions_of_the_published_resizing() -> None:
    """Output i of a resize by `f = (16 + offset) / 37` is at `(i + 1/2) / f - 1/2`: a ramp shows where, within 0.05."""
    made = VisionTransformer(Size(64, 128, 1, 37)).requires_grad_(False)
    made.pos_embed[:, 1:] = torch.arange(37.0).repeat_interleave(37)[None, :, None]
    found = made.positions(16)[0, 1:, 0].view(16, 16)
    expected = (torch.arange(16) + 0.5) * 37 / (16 + OFFSET) - 0.5
    torch.testing.assert_close(found[1:-1, 3], expected[1:-1], rtol=0, atol=0.05)  # the cubic is not exact on lines
    assert 37 / 16 * 14.5 - 37 / (16 + OFFSET) * 14.5 > 0.2  # what the offset moves
    assert torch.equal(made.positions(37), made.pos_embed)


@pytest.mark.parametrize("size", SIZES)
def test_sizes_are_read_off_the_weights(size: Size, tmp_path: Path) -> None:
    made = network(size)
    path = save(tmp_path, made)
    assert size_of(torch.load(path, weights_only=True)) == size
    images = torch.rand(2, 1, 20, 20, generator=torch.Generator().manual_seed(2)) * 2 - 1
    features = Dinov2Features(path)
    found = features(images)
    assert found.shape == (2, size.width)
    assert torch.equal(found, features(images.expand(-1, 3, -1, -1)))
    assert float((found[0] - found[1]).norm()) > 1e-3
    level = torch.full((1, 3, 224, 224), 102.0) / 127.5 - 1  # 0.4 of white: no resizing, no rounding
    mean, std = (torch.tensor(values)[:, None, None] for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    with torch.no_grad():
        wanted = made((level * 0 + 0.4 - mean) / std)
    torch.testing.assert_close(features(level), wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda held: held.pop("pos_embed"), "no pos_embed of 3 axes"),
        (lambda held: held.pop("norm.bias"), "no 'norm.bias'"),
        (lambda held: held.update({"cls_token": torch.zeros(3)}), "size mismatch for cls_token"),
        (lambda held: held.update({"patch_embed.proj.weight": torch.zeros(64, 3, 16, 16)}), "patches must be of 14"),
        (lambda held: held.update({"blocks.0.mlp.w12.weight": torch.zeros(3)}), "the giant network"),
    ],
)
def test_other_weights_are_refused(tmp_path: Path, change: Any, message: str) -> None:
    held = dict(network(SIZES[0]).state_dict())
    change(held)
    torch.save(held, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=f"other.pth: not DINOv2's weights: {message}"):
        Dinov2Features(tmp_path / "other.pth")


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text.pth").write_text("hello")
    torch.save(SIZES, tmp_path / "code.pth")
    for name in ("text.pth", "code.pth"):
        with pytest.raises(ValueError, match=f"{name}: not a file of DINOv2 weights"):
            Dinov2Features(tmp_path / name)
    with pytest.raises(ValueError, match="gone: no such file or folder"):
        Dinov2Features(tmp_path / "gone")
    with pytest.raises(ValueError, match=r"must be DINOv2's \.pth file, or a folder .* with config.json"):
        Dinov2Features(tmp_path)
