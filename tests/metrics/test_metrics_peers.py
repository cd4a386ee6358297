"""Figures against other libraries on the same inputs, and feature maps against the networks they stand for."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch
from torch import Tensor

from headstart import zoo
from headstart.metrics import (
    Dinov2Features,
    GradientFeatures,
    InceptionFeatures,
    frechet_distance,
    kernel_distance,
    max_sliced_wasserstein,
    sliced_wasserstein,
    statistics,
)
from headstart.metrics.inception import inception, resize_rows
from headstart.metrics.wasserstein import directions, gaps


def peer(name: str) -> Any:
    """A library to agree with; skips where it is missing or cannot be imported."""
    try:
        with without_torchvision() if name.startswith("torch_fidelity") else nullcontext():
            return importlib.import_module(name)
    except (ImportError, RuntimeError, OSError) as error:
        pytest.skip(f"{name.split('.')[0]} is not usable here: {str(error).splitlines()[0]}")


@contextmanager
def without_torchvision() -> Iterator[None]:
    """Empty modules in its place while torch-fidelity is imported, whose distances need nothing of it."""
    missing = importlib.util.find_spec("torchvision") is None
    names = ["torchvision", *(f"torchvision.{part}" for part in ("datasets", "transforms", "transforms.functional"))]
    stubs = {name: MagicMock(__spec__=None) for name in names} if missing else {}
    sys.modules.update(stubs)
    try:
        yield
    finally:
        for name in stubs:
            del sys.modules[name]


def features() -> tuple[Tensor, Tensor]:
    """Features of 400 images and of as many blurred ones."""
    real, more = zoo.images("fashion")[0][:400], zoo.images("fashion")[0][400:800]
    blurred = torch.nn.functional.avg_pool2d(more, 3, 1, 1)
    describe = GradientFeatures.fit(real)
    return describe(real).double(), describe(blurred).double()


def test_frechet_distance_is_torch_fidelitys() -> None:
    fid = peer("torch_fidelity.metric_fid")
    x, y = features()
    made = [fid.fid_features_to_statistics(part) for part in (x, y)]
    wanted = fid.fid_statistics_to_metric(*made, verbose=False)[fid.KEY_METRIC_FID]
    assert frechet_distance(statistics(x, batch=64), statistics(y, batch=37)) == pytest.approx(wanted, rel=1e-6)


def test_kernel_distance_is_torch_fidelitys() -> None:
    """One subset of all points leaves no choice of subsets; smaller ones agree within their spread."""
    kid = peer("torch_fidelity.metric_kid")
    x, y = features()
    wanted = kid.kid_features_to_metric(x, y, kid_subsets=1, kid_subset_size=400, verbose=False)
    found = kernel_distance(x, y)
    assert found.value == pytest.approx(wanted[kid.KEY_METRIC_KID_MEAN], rel=1e-9)
    parts = kid.kid_features_to_metric(x, y, kid_subsets=100, kid_subset_size=100, verbose=False)
    assert abs(kernel_distance(x, y, subset=100).value - parts[kid.KEY_METRIC_KID_MEAN]) < 3 * found.error


def test_sliced_distances_are_pots() -> None:
    sliced = peer("ot.sliced")
    x, y = (part.double() for part in zoo.images("fashion")[0].flatten(1)[:600].split(300))
    v = directions(128, x.shape[1])
    projections = v.T.numpy()
    wanted = sliced.sliced_wasserstein_distance(x.numpy(), y.numpy(), projections=projections)
    assert sliced_wasserstein(x, y, v=v) == pytest.approx(wanted, rel=1e-9)
    unequal = sliced.sliced_wasserstein_distance(x.numpy(), y[:170].numpy(), projections=projections)
    assert sliced_wasserstein(x, y[:170], v=v) == pytest.approx(unequal, rel=1e-9)
    largest = sliced.max_sliced_wasserstein_distance(x.numpy(), y.numpy(), projections=projections)
    assert float(gaps(x, y, v).max().sqrt()) == pytest.approx(largest, rel=1e-9)
    assert max_sliced_wasserstein(x, y, steps=3).distance >= largest  # an ascent from the best of them


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of random Inception weights, with the classifier that the real one has beside them."""
    torch.manual_seed(0)
    held = {name: value for name, value in inception().state_dict().items() if "num_batches" not in name}
    for name, value in held.items():
        if name.endswith("running_var"):
            held[name] = value * 0.1  # keeps the signal alive through 48 layers
    held |= {"fc.weight": torch.zeros(1008, 2048), "fc.bias": torch.zeros(1008)}
    path = tmp_path_factory.mktemp("weights") / "inception.pth"
    torch.save(held, path)
    return path


@pytest.mark.parametrize(("side", "out"), [(32, 299), (299, 299), (400, 299), (1, 5)])
def test_resize_keeps_constants_and_corners(side: int, out: int) -> None:
    rows = resize_rows(side, out)
    assert torch.allclose(rows.sum(1), torch.ones(out).double())
    ramp = rows @ torch.arange(side).double()
    expected = (torch.arange(out).double() * side / out).clamp_max(side - 1)
    torch.testing.assert_close(ramp, expected)


def test_inception_features_are_torch_fidelitys(weights: Path) -> None:
    extractor = peer("torch_fidelity.feature_extractor_inceptionv3")
    theirs = extractor.FeatureExtractorInceptionV3("inception-v3-compat", ["2048"], str(weights))
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 3, 40, 64), dtype=np.uint8))
    wanted = theirs(pixels)[0]
    found = InceptionFeatures(weights)(pixels.float() / 127.5 - 1)
    assert wanted.std() > 1e-3
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5 * float(wanted.abs().max()))


def test_inception_takes_grey_images_and_refuses_other_weights(weights: Path, tmp_path: Path) -> None:
    features = InceptionFeatures(weights)
    grey = torch.rand(1, 1, 20, 20) * 2 - 1
    assert torch.equal(features(grey), features(grey.expand(-1, 3, -1, -1)))
    torch.save({"conv.weight": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"other.pth: not the weights .* Conv2d_1a"):
        InceptionFeatures(tmp_path / "other.pth")
    torch.save(features, tmp_path / "code.pth")
    with pytest.raises(ValueError, match=r"code.pth: not a file of Inception weights"):
        InceptionFeatures(tmp_path / "code.pth")
    (tmp_path / "text.pth").write_text("hello")
    with pytest.raises(ValueError, match=r"text.pth: not a file"):
        InceptionFeatures(tmp_path / "text.pth")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_weights_are_read_as_any_file_of_a_stranger(tmp_path: Path) -> None:
    """A pipe does not hang, and memory that is not in the file is not asked for."""
    os.mkfifo(tmp_path / "pipe.pth")
    with pytest.raises(ValueError, match=r"pipe.pth: .* a pipe"):
        InceptionFeatures(tmp_path / "pipe.pth")
    torch.save({"conv.weight": torch.zeros(1).expand(2**40, 8)}, tmp_path / "vast.pth")
    with pytest.raises(ValueError, match=r"vast.pth: not a file of Inception weights \("):
        InceptionFeatures(tmp_path / "vast.pth")


def test_dinov2_features_are_the_class_token(tmp_path: Path) -> None:
    transformers = peer("transformers")
    torch.manual_seed(0)
    config = transformers.Dinov2Config(hidden_size=24, num_hidden_layers=2, num_attention_heads=2, image_size=28)
    network = transformers.Dinov2Model(config).eval()
    network.save_pretrained(tmp_path / "dino")
    images = torch.rand(2, 3, 224, 224).mul(255).round() / 127.5 - 1  # no resizing, no rounding
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    normal = ((images + 1) / 2 - mean[:, None, None]) / std[:, None, None]
    with torch.no_grad():
        wanted = network(normal).pooler_output
    torch.testing.assert_close(Dinov2Features(tmp_path / "dino")(images), wanted, rtol=1e-4, atol=1e-5)
    (tmp_path / "dino" / "model.safetensors").write_bytes(b"hello")
    with pytest.raises(ValueError, match="dino: not a DINOv2 network"):
        Dinov2Features(tmp_path / "dino")


def test_dinov2_needs_its_files(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"with config.json"):
        Dinov2Features(tmp_path)
