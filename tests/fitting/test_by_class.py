"""A mixture for each class, joined into one."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

import headstart as hs
from headstart.cli import app
from headstart.start.transport import carry, levels

CLASSES = (1, 4)  # 0, 2 and 3 have no points
COUNTS = (3000, 1000)


def two_classes(dim: int = 3) -> tuple[Tensor, Tensor]:
    """Class 1: two blobs at +-4 on the first axis; class 4: a needle along the second."""
    generator = torch.Generator().manual_seed(0)
    blobs = torch.randn(COUNTS[0], dim, generator=generator)
    blobs[:, 0] += 8.0 * (torch.arange(COUNTS[0]) % 2) - 4.0
    needle = torch.randn(COUNTS[1], dim, generator=generator) * 0.1
    needle[:, 1] *= 50.0
    labels = torch.tensor(CLASSES).repeat_interleave(torch.tensor(COUNTS))
    order = torch.randperm(len(labels), generator=generator)
    return torch.cat([blobs, needle])[order], labels[order]


def test_each_class_has_its_own_components() -> None:
    x, labels = two_classes()
    law = hs.fit(x, 2, hs.Full(), labels=labels, by_class=True)
    used = law.class_weight > 0
    assert used.sum(1).tolist() == [0, 2, 0, 0, 2]
    assert int(used.sum(0).max()) == 1
    shares = torch.tensor(COUNTS, dtype=torch.float64) / sum(COUNTS)
    assert torch.allclose(law.weight, shares @ law.class_weight[list(CLASSES)])
    assert sorted(law.components.mean[:2, 0].round().tolist()) == [-4.0, 4.0]
    assert law.report.components == 4
    assert law.report.n + law.report.heldout == len(x)


def test_a_class_is_what_a_fit_of_its_points_alone_is() -> None:
    x, labels = two_classes()
    law = hs.fit(x, 2, hs.Full(), labels=labels, by_class=True)
    for label in CLASSES:
        alone, at = hs.fit(x[labels == label], 2, hs.Full()), x[:50] + 0.3
        assert torch.allclose(law.log_prob(at, 0.7, labels=label), alone.log_prob(at, 0.7), atol=1e-5)
        assert torch.allclose(law.denoise(at, 0.7, labels=label), alone.denoise(at, 0.7), atol=1e-4)
        drawn = law.at(0.0).sample(4000, labels=torch.full((4000,), label))
        assert torch.allclose(drawn.var(0), x[labels == label].var(0), rtol=0.2)


def test_without_labels_it_is_the_law_of_all() -> None:
    x, labels = two_classes()
    law = hs.fit(x, 2, hs.Full(), labels=labels, by_class=True)
    parts = [math.log(n / len(x)) + law.log_prob(x, 0.5, labels=c) for c, n in zip(CLASSES, COUNTS, strict=True)]
    assert torch.allclose(law.log_prob(x, 0.5), torch.stack(parts).logsumexp(0), atol=1e-5)
    shared = hs.fit(x, 2, hs.Full(), labels=labels)
    gain = law.log_prob(x, 0.5, labels=labels).mean() - shared.log_prob(x, 0.5, labels=labels).mean()
    assert gain > 0.05  # two shared components cannot be three shapes


def test_the_default_follows_the_points_of_a_class() -> None:
    x, labels = two_classes()
    owned = (hs.fit(x, labels=labels).class_weight[list(CLASSES)] > 0).sum(0)
    assert int(owned.max()) == 1  # 1,000 points in the smallest class
    few = hs.fit(x, labels=labels.where(torch.arange(len(x)) != int((labels == 4).nonzero()[0]), 1))
    assert few.report.components == 32  # 999
    assert hs.fit(x, 5, labels=labels).report.components == 5  # a number that is given is that of all
    assert hs.fit(x, labels=labels, by_class=False).report.components == 32
    many = torch.arange(len(x)) % 33
    assert hs.fit(x, labels=many).report.components == 32
    assert hs.fit(x, labels=many, covariance=hs.Isotropic(), by_class=True).report.components == 33


def test_files_keep_it(tmp_path: Path) -> None:
    x, labels = two_classes(40)
    law = hs.fit(x, labels=labels, by_class=True)
    assert law.report.covariance == "LowRank(rank=25)"  # 10 components for 1,000 points
    law.save(tmp_path / "law.safetensors")
    back = hs.load(tmp_path / "law.safetensors")
    assert torch.equal(back.class_weight, law.class_weight)
    assert back.report == law.report
    drawn = torch.tensor([1, 4]).repeat(8)
    assert torch.equal(back.at(1.0).sample(16, labels=drawn), law.at(1.0).sample(16, labels=drawn))


def test_student_t() -> None:
    x, labels = two_classes()
    law = hs.StudentTMixture.fit(x, 1, hs.Full(), labels=labels, by_class=True)
    alone = hs.StudentTMixture.fit(x[labels == 4], 1, hs.Full())
    assert torch.allclose(law.df[1], alone.df[0])
    assert torch.allclose(law.log_prob(x[:20], 0.5, labels=4), alone.log_prob(x[:20], 0.5), atol=1e-5)


def test_errors() -> None:
    x, labels = two_classes()
    with pytest.raises(ValueError, match="fit: by_class needs labels, got none"):
        hs.fit(x, by_class=True)
    with pytest.raises(ValueError, match="fit: by_class needs a number of components, got auto"):
        hs.fit(x, "auto", labels=labels, by_class=True)
    with pytest.raises(ValueError, match="got 1001; class 4 has 1000"):
        hs.fit(x, 1001, hs.Isotropic(), labels=labels, by_class=True)
    with pytest.raises(ValueError, match=r"all points are equal.*in class 4"):
        hs.fit(torch.where(labels[:, None] == 4, 0.0, x), 1, hs.Full(), labels=labels, by_class=True)


def test_command_line(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (120, 6, 6, 1), dtype=np.uint8)
    np.savez(tmp_path / "data.npz", images=pixels, labels=np.arange(120) % 3)
    call = ["fit", str(tmp_path / "data.npz"), "--out", str(tmp_path / "law.safetensors"), "--by-class"]
    result = CliRunner().invoke(app, [*call, "--components", "2", "--rank", "3"])
    assert result.exit_code == 0, result.output
    law = hs.load(tmp_path / "law.safetensors")
    assert (law.class_weight > 0).sum(1).tolist() == [2, 2, 2]
    refused = CliRunner().invoke(app, [*call, "--family", "flow", "--sigma", "1"])
    assert refused.exit_code != 0
    assert "--by-class: is for gmm, student" in refused.output


def test_labels_cost_a_point_its_own_components_only(monkeypatch: pytest.MonkeyPatch) -> None:
    x, labels = two_classes()
    law = hs.fit(x, 2, hs.Full(), labels=labels, by_class=True)
    seen: list[tuple[int, int]] = []
    posterior = hs.ops.mixture_posterior

    def watched(x: Tensor, components: hs.ops.Components, *rest: object, **named: object) -> hs.ops.Posterior:
        seen.append((len(x), len(components.mean)))
        return posterior(x, components, *rest, **named)

    monkeypatch.setattr(hs.ops, "mixture_posterior", watched)
    x, labels = x[:50], labels[:50]
    mixed = law.denoise(x, 0.7, labels), law.log_prob(x, 0.7, labels)
    assert seen == 2 * [(int((labels == c).sum()), 2) for c in CLASSES]
    for i, label in enumerate(labels.tolist()):
        one = x[i : i + 1]
        torch.testing.assert_close(mixed[0][i : i + 1], law.denoise(one, 0.7, label))
        torch.testing.assert_close(mixed[1][i : i + 1], law.given(label).log_prob(one, 0.7))
    assert law.denoise(x[:0], 0.7, labels[:0]).shape == (0, 3)
    with pytest.raises(ValueError, match="log_prob: no point of class 2 was in the data"):
        law.log_prob(x, 0.7, 2)


def test_transport_takes_each_class_down_its_own_flow() -> None:
    x, labels = two_classes()
    law = hs.fit(x, 2, hs.Full(), labels=labels, by_class=True)
    z, labels = hs.Classic((3,), 1.0).sample(40, seed=1), labels[:40]
    carried, steps = law.transport(z, 1.0, labels=labels), levels(law, 1.0, 80.0)
    for c in CLASSES:
        assert int((labels == c).sum()) > 5
        torch.testing.assert_close(carried[labels == c], carry(law.given(c), z[labels == c], steps))
    assert law.transport(z[:0], 1.0, labels=labels[:0]).shape == (0, 3)
    with pytest.raises(ValueError, match="transport: no point of class 3 was in the data"):
        law.transport(z, 1.0, labels=3)


def test_classes_that_share_components_are_not_split() -> None:
    x, labels = two_classes()
    shared = hs.fit(x, 2, hs.Full(), labels=labels, by_class=False)
    assert shared.classes == {}
    every = hs.GaussianMixture(shared.components, shared.weight, shared.shape, shared.class_weight.clamp_min(1e-9))
    assert every.classes == {}
