"""EDM's networks: the same outputs as EDM's own code, through every preconditioning, file and sampler."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

import headstart as hs
from bench.agreement import edm as agreement
from bench.agreement import edm_oracle as oracle
from bench.agreement import edm_pickle
from headstart.adapters import edm
from headstart.adapters.edm import precondition
from headstart.cli import app
from headstart.denoiser import Preconditioned

CASES = oracle.CASES["edm"]
LABELLED = CASES["ddpmpp-VEPrecond"]


@pytest.fixture(scope="session")
def live(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("edm")
    try:
        agreement.run_oracle("edm", folder)
    except ImportError as absent:
        pytest.skip(str(absent))
    return folder


@pytest.fixture
def network(tmp_path: Path) -> edm.Network:
    return edm.load(edm_pickle.save(tmp_path / "net.pkl", {"ema": edm_pickle.network(LABELLED)}))


@pytest.mark.parametrize("key", CASES)
def test_recorded_outputs(key: str, tmp_path: Path) -> None:
    errors = agreement.recorded("edm", key, tmp_path)
    assert len(errors) == 7
    assert {name: error for name, error in errors.items() if not error < agreement.bar(name)} == {}


@pytest.mark.parametrize("key", CASES)
def test_outputs_of_a_checkout(key: str, live: Path) -> None:
    errors = agreement.live("edm", key, live)
    assert {name: error for name, error in errors.items() if not error < agreement.bar(name)} == {}


def test_labels(network: edm.Network) -> None:
    x, _ = oracle.inputs(LABELLED.arguments)

    def told(**cond: Any) -> torch.Tensor:
        return network(x, 0.5, **cond)

    label = torch.tensor([2, 0, 3])  # 3: no class
    vectors = torch.cat([torch.eye(3), torch.zeros(1, 3)])[label]
    assert torch.equal(told(label=label), told(class_labels=vectors))
    assert torch.allclose(told(label=label)[2], told()[2], atol=1e-5)
    assert torch.allclose(told(label=1), told(label=torch.tensor([1, 1, 1])), atol=1e-5)
    assert not torch.allclose(told(label=1), told(label=2))
    for wrong in (
        torch.tensor([0, 1]),
        torch.tensor([0.0, 1.0, 2.0]),
        torch.tensor([0, 1, 4]),
        torch.tensor([-1, 0, 0]),
    ):
        with pytest.raises(ValueError, match="label must be"):
            told(label=wrong)
    with pytest.raises(ValueError, match="class_labels must be"):
        told(class_labels=torch.eye(2))
    with pytest.raises(ValueError, match="x must be"):
        network(x[:, :2], 0.5)


def test_factors_fold_into_rows(network: edm.Network) -> None:
    assert isinstance(network, Preconditioned)
    start, cond = hs.Classic(network.shape, 3.0), {"label": torch.tensor([0, 1, 2, 0])}
    folded = hs.sample(network, start, 4, steps=4, cond=cond, dtype=torch.float64)
    whole = hs.sample(lambda x, sigma, label: network(x, sigma, label=label), start, 4, steps=4, cond=cond)
    assert (folded - whole).norm() < 1e-5 * folded.norm()
    parts = hs.sample(network, start, 4, steps=4, cond=cond, batch=3, dtype=torch.float64)
    assert (folded - parts).norm() < 1e-6 * folded.norm()


LEVELS = precondition.IDDPM(edm_pickle.levels().tolist())


@pytest.mark.parametrize("factors", [precondition.EDMPretrained(), precondition.VE(), precondition.VP(), LEVELS])
def test_perfect_network_of_one_point_denoises_to_it(factors: precondition.Precondition) -> None:
    """At `x = p + sigma z` the target of `F` is `(p - c_skip x) / c_out`: z where c_skip is 1, with a sign."""
    for sigma in (0.03, 0.9, 40.0):
        c_skip, c_out, c_in, _ = factors.at(sigma)
        point, z = 0.3, -1.7
        x = point + sigma * z
        assert c_skip * x + c_out * ((point - c_skip * x) / c_out) == pytest.approx(point)
        if c_skip == 1:
            assert (point - x) / c_out == pytest.approx(z * (1 if c_out < 0 else -1))
        if c_in < 1 and c_skip < 1:
            assert c_in**2 * (sigma**2 + 0.25) == pytest.approx(1)


def test_vp_time_inverts_its_schedule() -> None:
    vp = precondition.VP(beta_d=19.9, beta_min=0.1, M=1000)
    for t in (1e-5, 0.01, 0.4, 1.0):
        assert vp.time(vp.sigma(t)) == pytest.approx(t, rel=1e-9)
    assert vp.at(vp.sigma(0.4)).c_noise == pytest.approx(999 * 0.4)


def test_iddpm_levels() -> None:
    known, u = LEVELS, LEVELS.u
    assert [known.index(sigma) for sigma in u[:-1]] == list(range(len(u) - 1))
    assert [known.index(sigma) for sigma in (1e9, u[3] * 1.0001, (u[3] + u[4]) / 2, u[999] * 0.4)] == [0, 3, 3, 999]
    assert LEVELS.at(u[999] * 0.4).c_noise == 0  # EDM's would tell the network -1, and never asks it there
    assert known.at(u[3]).c_noise == 999 - 3
    assert known.round(u[700] * 1.0001) == u[700]
    assert (known.sigma_min, known.sigma_max) == (u[999], u[0])


def test_iddpm_needs_no_rounded_grid(tmp_path: Path) -> None:
    """The solution on any grid is as near to the fine one; a grid that rounding would spoil is refused."""
    net = edm.load(edm_pickle.save(tmp_path / "net.pkl", {"ema": edm_pickle.network(CASES["ddpmpp-iDDPMPrecond"])}))
    x = 80 * oracle.inputs(CASES["ddpmpp-iDDPMPrecond"].arguments)[0]
    grid = hs.log_uniform(80.0, 0.02, 9)
    fine = hs.integrate(net, x, hs.log_uniform(80.0, 0.02, 80), hs.Heun())
    plain, rounded = (hs.integrate(net, x, g, hs.Heun()) for g in (grid, torch.cat([grid[:1], net.round(grid)[1:]])))
    assert 0 < (plain - rounded).norm() < 0.01 * fine.norm()
    assert (plain - fine).norm() < 1.05 * (rounded - fine).norm()
    with pytest.raises(ValueError, match=r"knows apart, got 0.00\d+ and 0.00\d+, both 0.0064\d+ to it; end the grid"):
        net.round(hs.karras(80.0, 0.002, 18))


def test_wrapped_object_is_the_same_denoiser(network: edm.Network) -> None:
    class Foreign:
        """The interface of the original objects."""

        label_dim, sigma_min, sigma_max = 3, 0.02, 100.0

        def round_sigma(self, sigma: torch.Tensor) -> torch.Tensor:
            return sigma

        def __call__(self, x: torch.Tensor, sigma: torch.Tensor, class_labels: Any = None) -> torch.Tensor:
            assert sigma.dtype == torch.float32
            return network(x.float(), sigma, class_labels=class_labels)

    ours, theirs = agreement.answers(network, LABELLED), agreement.answers(edm.wrap(Foreign()), LABELLED)
    for name, out in ours.items():
        assert (out - theirs[name]).norm() < 1e-6 * out.norm(), name
    with pytest.raises(TypeError, match="wrap: net must be callable"):
        edm.wrap(3)
    with pytest.raises(TypeError, match=r"EDM: net must be a raw network .* got Foreign, .*adapters.edm.wrap\(net\)"):
        hs.EDM(Foreign())


@pytest.mark.parametrize("key", ["adm-iDDPMPrecond", "skip-EDMPrecond"])
def test_converted_file_is_the_same_network(key: str, tmp_path: Path) -> None:
    case = CASES[key]
    source = edm_pickle.save(tmp_path / "net.pkl", {"ema": edm_pickle.network(case)})
    target = tmp_path / "new" / "net.safetensors"
    result = CliRunner().invoke(app, ["convert", "--in", str(source), "--out", str(target)])
    assert result.exit_code == 0, result.output
    assert [path.name for path in target.parent.iterdir()] == ["net.safetensors"]
    first, second = edm.load(source), edm.load(target)
    other = second.net.state_dict()
    assert all(torch.equal(value, other[name]) for name, value in first.net.state_dict().items())
    assert (first.shape, first.label_dim, first.precondition) == (second.shape, second.label_dim, second.precondition)
    x, cond = oracle.inputs(case.arguments)
    assert torch.allclose(first(x, 0.7, **cond), second(x, 0.7, **cond), atol=1e-5)
    edm.convert(target, tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == target.read_bytes()


@pytest.mark.parametrize(
    ("source", "says"), [("missing.pkl", "no such file"), ("text.pkl", "of another kind"), ("cut.pkl", "truncated")]
)
def test_convert_says_in_one_line_what_is_wrong(source: str, says: str, tmp_path: Path) -> None:
    whole = edm_pickle.save(tmp_path / "whole.pkl", {"ema": edm_pickle.network(LABELLED)}).read_bytes()
    (tmp_path / "cut.pkl").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.pkl").write_text("a network, but in words")
    out = tmp_path / "net.safetensors"
    result = CliRunner().invoke(app, ["convert", "--in", str(tmp_path / source), "--out", str(out)])
    assert result.exit_code == 1
    assert says in result.output
    assert result.output.count("\n") == 1
    assert not out.exists()


def test_sampling_from_a_file_on_the_command_line(tmp_path: Path) -> None:
    edm_pickle.save(tmp_path / "net.pkl", {"ema": edm_pickle.network(LABELLED)})
    given = {
        "--denoiser": f"edm:{tmp_path / 'net.pkl'}",
        "--start": "classic",
        "--shape": "3,8,8",
        "--out": tmp_path / "out",
    }
    options = [str(part) for pair in given.items() for part in pair]
    result = CliRunner().invoke(
        app, ["sample", *options, "--n", "2", "--steps", "2", "--label", "1", "--device", "cpu"]
    )
    assert result.exit_code == 0, result.output
    assert (tmp_path / "out" / "samples.npz").exists()
    missing = CliRunner().invoke(app, ["sample", *options[2:], "--denoiser", "edm:none.pkl"])
    assert missing.exit_code == 1
    assert "none.pkl: no such file" in missing.output.lower()


def test_convert_help() -> None:
    result = CliRunner().invoke(app, ["convert", "--help"])
    assert result.exit_code == 0
    assert "--in" in result.output
    assert CliRunner().invoke(app, ["convert"]).exit_code == 2
