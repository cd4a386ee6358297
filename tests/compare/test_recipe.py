"""Recipes end to end: every row, runs that go on where they were cut, the same samples however they are shared out."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import headstart as hs
from bench.agreement import edm_oracle, edm_pickle
from headstart import ops
from headstart.cli import app
from headstart.compare.network import OnPictures, features_of, real_subject
from headstart.compare.recipe import (
    FFHQ64,
    IMAGENET512,
    PROTOCOLS,
    FlowProtocol,
    Job,
    Protocol,
    RecipeScore,
    divide,
    settings_of,
    slug,
)  # fmt: skip
from headstart.compare.recipe import run_recipe as run
from headstart.compare.store import Part, claim, parts
from headstart.io import DataError, Dataset, read_dataset
from headstart.io.output import to_bytes, write_samples
from headstart.metrics import Evaluator, frechet_distance, statistics

TINY = Protocol("tiny", 1.0, 6, 4, 5.0, nfe=(4,), planned=())


def data(n: int = 240) -> Dataset:
    """Images `[n, 1, 4, 4]` around two patterns, which are their classes; zero is near one of them."""
    labels = torch.arange(n) % 2
    centre = torch.where(labels[:, None] == 0, -0.2, 0.9) * torch.linspace(0.5, 1, 16)
    return Dataset((centre + 0.1 * ops.normal((n, 16), 0, 0, device="cpu")).view(n, 1, 4, 4), labels)


class Exact:
    """The denoiser of the law that the data are from, as far as a fit tells it."""

    def __init__(self) -> None:
        self.law: Any = hs.fit(data().images, 2, max_iter=20)
        self.rows = 0

    def __call__(self, x: torch.Tensor, sigma: torch.Tensor, label: torch.Tensor | None = None) -> torch.Tensor:
        self.rows += len(x)
        return self.law.denoise(x, sigma)


@pytest.fixture(scope="module")
def exact() -> Exact:
    return Exact()


def job(out: Path, denoiser: Any, labels: bool = True, **others: Any) -> Job:
    images = data() if labels else Dataset(data().images)
    given: dict[str, Any] = {"features": {"pixels": None}, "n": 40, "seeds": 1, "part": 12, "components": 2} | others
    return Job(given.pop("protocol", TINY), denoiser, images, out, decode=to_bytes, **given)


def samples_of(job: Job, name: str) -> torch.Tensor:
    """What the way called `name` drew for seed 0."""
    train, held = divide(job.data, job.n)
    way = next(way for way in job.ways() if slug(way) == name)
    return RecipeScore(job, job.experiment(train), held).samples(way, 0)


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("protocol", PROTOCOLS.values(), ids=lambda protocol: protocol.name)
def test_the_published_rows_and_ours_are_all_there(protocol: Protocol) -> None:
    ways = protocol.ways()
    heun = {way.start: way for way in ways if way.solver == "Heun"}
    assert list(heun) == ["classic", "uninformed", "learned", "empirical"]
    steps = 40 if protocol is FFHQ64 else 32
    assert heun["classic"].nfe == 2 * steps - 1
    grid = heun["learned"].levels(protocol.horizon)
    assert grid is not None
    assert (heun["learned"].nfe, len(grid), grid[0], grid[-2], grid[-1]) == (39, 21, 7, pytest.approx(0.002), 0)
    for start in heun:
        assert [way.nfe for way in ways if (way.start, way.solver_name) == (start, "DPM++ 2M")] == list(protocol.nfe)
    assert [way.nfe for way in ways if way.solver_name == "planned"] == list(protocol.planned)
    assert (ways[-1].nfe, ways[-1].horizon(protocol.horizon)) == (0, 0)
    assert len({slug(way) for way in ways}) == len(ways)
    assert (IMAGENET512.guidance, IMAGENET512.latents, FFHQ64.latents) == (1.9, True, False)


@pytest.mark.parametrize("conditional", [False, True])
def test_the_published_flow_is_there_on_request(conditional: bool) -> None:
    flow = FFHQ64.flow
    assert (flow.patch, flow.channels, flow.blocks, flow.layers) == (2, 128, 1, 8)
    assert (flow.scale, flow.epochs, flow.learning_rate) == (14, 700, 3e-4)
    ways = FFHQ64.flow_ways(conditional)
    heun = [way for way in ways if way.solver == "Heun"]
    names = ["tarflow cfg 0.5", "tarflow cfg 1", "tarflow cfg 2"] if conditional else ["tarflow"]
    assert [(way.start, way.nfe, way.horizon(FFHQ64.horizon)) for way in heun] == [(name, 39, 7) for name in names]
    ours = [way for way in ways if way.solver_name == "DPM++ 2M"]
    assert [(way.start, way.nfe) for way in ours] == [(names[len(names) // 2], nfe) for nfe in FFHQ64.nfe]


@pytest.mark.parametrize(("n", "size"), [(10, 4), (8, 4), (3, 5)])
def test_parts_cover_every_sample_once(n: int, size: int) -> None:
    made = parts(["a", "b"], range(2), n, size)
    for name in ("a", "b"):
        for seed in (0, 1):
            own = [part for part in made if (part.slug, part.seed) == (name, seed)]
            assert [i for part in own for i in range(part.offset, part.offset + part.n)] == list(range(n))
    assert len({part.path(Path()) for part in made}) == len(made)


def test_a_learned_start_scores_better_than_an_uninformed_one(tmp_path: Path, exact: Exact) -> None:
    table = run(job(tmp_path, exact, seeds=2))
    assert table is not None
    assert json.loads((tmp_path / "table.json").read_text()) == table

    def swd(start: str, solver: str) -> dict[str, float]:
        (row,) = (row for row in table["rows"] if (row["start"], row["solver"]) == (start, solver))
        return next(figure for figure in row["figures"] if figure["metric"] == "SWD")

    learned = swd("learned", "DPM++ 2M")
    assert learned["value"] < 0.7 * swd("uninformed", "DPM++ 2M")["value"]
    assert learned["value"] < 3 * learned["floor"]
    assert learned["spread"] > 0
    assert swd("classic", "Heun")["floor"] == learned["floor"]
    assert (tmp_path / "learned-heun-7.png").exists()
    assert (tmp_path / "learned-heun-7-nearest.png").exists()


def test_a_run_goes_on_where_it_was_cut(tmp_path: Path, exact: Exact) -> None:
    run(job(tmp_path, exact))
    whole = content(tmp_path)
    lost = Part("learned-dpm++_2m-4", 0, 12, 12).path(tmp_path)
    for path in (lost, tmp_path / "table.json", tmp_path / "scores" / "learned-dpm++_2m-4-seed0.json"):
        path.unlink()
    exact.rows = 0
    run(job(tmp_path, exact))
    assert exact.rows == 4 * 12  # the lost part alone
    assert content(tmp_path) == whole
    exact.rows = 0
    run(job(tmp_path, exact))
    assert exact.rows == 0


LATENT = Protocol("tiny", 1.0, 4, 3, 5.0, nfe=(3,), planned=(), guidance=1.9, latents=True)
FLOW = replace(TINY, flow=FlowProtocol(patch=2, channels=8, layers=1, epochs=3, scale=2.0, guidance=(0.5, 1.0)))


def test_a_flow_joins_a_run(tmp_path: Path, exact: Exact) -> None:
    """Its rows alone are drawn; a run without it leaves it alone, another flow is refused."""
    run(job(tmp_path, exact, n=12))
    exact.rows = 0
    table = run(job(tmp_path, exact, n=12, protocol=FLOW, flow=True))
    assert table is not None
    extra = [(row["start"], row["solver"], row["nfe"]) for row in table["rows"] if "tarflow" in row["start"]]
    assert extra == [("tarflow cfg 0.5", "Heun", 7), ("tarflow cfg 1", "Heun", 7), ("tarflow cfg 1", "DPM++ 2M", 4)]
    assert exact.rows == 12 * (7 + 7 + 4)
    start: Any = hs.load(tmp_path / "flow.safetensors")
    assert (start.sigma, start.frame.scale, start.conditional) == (TINY.horizon, 2.0, True)
    kept = run(job(tmp_path, exact, n=12, protocol=FLOW))
    assert kept is not None
    assert len(kept["rows"]) == len(table["rows"]) - 3
    other = replace(FLOW, flow=replace(FLOW.flow, layers=2))
    with pytest.raises(DataError, match="layers is 1, not 2"):
        run(job(tmp_path, exact, n=12, protocol=other, flow=True))


def test_a_flow_goes_on_where_its_training_was_cut(
    tmp_path: Path, exact: Exact, monkeypatch: pytest.MonkeyPatch
) -> None:
    from headstart.fitting import flow as fitting

    asked = {"n": 12, "protocol": FLOW, "flow": True}
    run(job(tmp_path / "whole", exact, **asked))
    learn, epochs = fitting.learn, []

    def cut(trained: Any, *others: Any) -> float:
        epochs.append(trained.log["epoch"])
        if len(epochs) == 3:
            raise KeyboardInterrupt
        return learn(trained, *others)

    monkeypatch.setattr(fitting, "learn", cut)
    with pytest.raises(KeyboardInterrupt):
        run(job(tmp_path / "cut", exact, **asked))
    assert (tmp_path / "cut" / "flow.pt").exists()
    run(job(tmp_path / "cut", exact, **asked))
    assert epochs == [0, 1, 2, 2]
    assert not (tmp_path / "cut" / "flow.pt").exists()
    whole, other = (hs.load(tmp_path / name / "flow.safetensors").sample(4) for name in ("whole", "cut"))
    assert torch.equal(whole, other)


def test_samples_do_not_depend_on_batch_or_processes(tmp_path: Path, exact: Exact) -> None:
    run(job(tmp_path / "one", exact, batch=5))
    first = threading.Thread(target=run, args=(job(tmp_path / "three", exact),), kwargs={"rank": 0, "world": 3})
    first.start()
    assert [run(job(tmp_path / "three", exact), rank, 3) for rank in (1, 2)] == [None, None]
    first.join(60)
    one, three = content(tmp_path / "one"), content(tmp_path / "three")
    assert one.keys() == three.keys()
    for name in one:
        if name.startswith("samples"):
            a, b = (np.load(tmp_path / place / name)["arr_0"] for place in ("one", "three"))
            assert np.abs(a.astype(int) - b).max() <= 1  # rounding of a product of another size


def test_classes_go_round(tmp_path: Path, exact: Exact) -> None:
    run(job(tmp_path, exact, n=24, part=24, seeds=1))
    with np.load(Part("learned_alone-none-0", 0, 0, 24).path(tmp_path)) as file:
        bright = file["arr_0"].reshape(24, -1).mean(1) > 127
    assert bright.tolist() == [False, True] * 12


@pytest.mark.parametrize(
    ("others", "message"),
    [
        ({"n": 36}, "n is 40, not 36"),
        ({"seeds": 3}, "seeds is 1, not 3"),
        ({"components": 3}, "components is 2, not 3"),
        ({"settings": {"checkpoint": "b.pkl"}}, "checkpoint is None, not 'b.pkl'"),
        ({"labels": False}, "labels is True, not False"),
        ({"n": 121}, "n must be at most half of the 240"),
    ],
)
def test_another_run_is_not_mixed_in(tmp_path: Path, exact: Exact, others: dict[str, Any], message: str) -> None:
    claim(tmp_path, settings_of(job(tmp_path, exact)))
    with pytest.raises(ValueError, match=message):
        run(job(tmp_path, exact, **others))
    assert [path.name for path in tmp_path.iterdir()] == ["recipe.json"]


def test_a_damaged_part_is_named(tmp_path: Path, exact: Exact) -> None:
    run(job(tmp_path, exact, n=12, seeds=1))
    lost = Part("classic-heun-11", 0, 0, 12).path(tmp_path)
    lost.write_bytes(lost.read_bytes()[:50])
    (tmp_path / "classic-heun-11.png").unlink()
    with pytest.raises(DataError, match=r"seed0-00000000.npz: damaged .*delete it"):
        run(job(tmp_path, exact, n=12, seeds=1))


def call(*arguments: object, code: int = 0) -> str:
    result = CliRunner().invoke(app, ["recipe", *(str(part) for part in arguments)], env={"COLUMNS": "160"})
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return " ".join(result.output.split())


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, str]]:
    """Folder and output of the trial of every recipe, of one with the flow too."""
    folder, made = tmp_path_factory.mktemp("smoke"), {}
    for name in PROTOCOLS:
        start = ["--start", "tarflow"] if name == "imagenet512" else []
        made[name] = folder / name, call(name, "--out", folder / name, "--smoke", *start)
    return made


@pytest.mark.parametrize("name", PROTOCOLS)
def test_smoke_runs_the_whole_path(smoke: dict[str, tuple[Path, str]], name: str) -> None:
    out, text = smoke[name]
    for word in ("classic", "uninformed", "learned", "empirical", "planned", "learned alone", "floor", "MaxSWD"):
        assert word in text
    flow = name == "imagenet512"
    assert ("tarflow cfg 0.5" in text, "channels of latents" in text) == (flow, flow)
    table = json.loads((out / "table.json").read_text())
    assert len(table["rows"]) == (13 if flow else 10)
    assert len(list(out.glob("*-nearest.png"))) == len(table["rows"])
    assert all(np.isfinite(figure["value"]) for row in table["rows"] for figure in row["figures"])
    assert all(figure["floor"] is not None for row in table["rows"] for figure in row["figures"])


def test_torchrun_gives_the_table_of_one_process(smoke: dict[str, tuple[Path, str]], tmp_path: Path) -> None:
    """Two processes draw every sample of a fitted trial anew, and score a row of it."""
    one, two = smoke["ffhq64"][0], tmp_path / "two"
    shutil.copytree(one, two)
    shutil.rmtree(two / "samples")
    for path in (two / "table.json", *(two / "scores").glob("learned-dpm*")):
        path.unlink()
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "headstart"]
    command = [sys.executable, *launch, "recipe", "ffhq64", "--smoke", "--out", str(two), "--device", "cpu"]
    place = str(Path(hs.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": place, "OMP_NUM_THREADS": "1", "COLUMNS": "160"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("mean of 2 seeds") == 1  # the first process alone prints
    samples = sorted(path.relative_to(one) for path in (one / "samples").rglob("*.npz"))
    assert samples == sorted(path.relative_to(two) for path in (two / "samples").rglob("*.npz"))
    for path in samples:
        a, b = (np.load(folder / path)["arr_0"] for folder in (one, two))
        assert np.abs(a.astype(int) - b).max() <= 1  # threads may order a product's terms in another way
    tables = [json.loads((folder / "table.json").read_text())["rows"] for folder in (one, two)]
    for row, other in zip(*tables, strict=True):
        assert (row["start"], row["solver"], row["nfe"]) == (other["start"], other["solver"], other["nfe"])
        for figure, same in zip(row["figures"], other["figures"], strict=True):
            assert same["value"] == pytest.approx(figure["value"], rel=1e-3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["other"], "recipe: must be one of ffhq64, imagenet512, got 'other'"),
        (["ffhq64"], "needs --checkpoint and --data"),
        (["ffhq64", "--checkpoint", "a.pkl", "--data", "gone.zip"], "gone.zip: no such file"),
        (["imagenet512", "--smoke", "--features", "gradient"], "latents need --vae"),
        (["ffhq64", "--smoke", "--data", "a.zip"], "--smoke: tries the path on networks and data of its own"),
        (["ffhq64", "--start", "other"], "--start: must be one of mixture, tarflow, got 'other'"),
        (["ffhq64", "--smoke", "--epochs", "3"], "--epochs: is for --start tarflow"),
    ],
)
def test_the_command_has_one_line_for_an_error(tmp_path: Path, arguments: list[str], message: str) -> None:
    assert message in call(*arguments, "--out", tmp_path / "out", code=1)
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def latent_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network and its guide of EDM2's kind, latents with classes, a VAE, and images of the latents' classes."""
    diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed")
    folder = tmp_path_factory.mktemp("latents")
    torch.manual_seed(0)
    kinds = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
    vae = diffusers.AutoencoderKL(block_out_channels=(8, 8), norm_num_groups=4, sample_size=16, **kinds)
    vae.save_pretrained(folder / "vae")
    case = edm_oracle.CASES["edm2"]["stored-half"]
    for name in ("net", "guide"):
        edm_pickle.save(folder / f"{name}.pkl", {"ema": edm_pickle.network(case)})
    shape = tuple(hs.adapters.edm.load(folder / "net.pkl").shape)
    raw = 4 * ops.normal((60, *shape), 0, 0, device="cpu")
    torch.save({"images": raw, "labels": torch.arange(60) % 2}, folder / "latents.pt")
    pixels = (ops.uniform(40 * 16 * 16 * 3, 0, 0, device="cpu") * 255).byte().view(40, 16, 16, 3).numpy()
    np.savez(folder / "images.npz", images=pixels, labels=np.arange(40) % 4)
    return folder


def test_latents_networks_and_decoder_are_read_from_files(latent_files: Path, tmp_path: Path) -> None:
    """EDM2's kind of network guided by another, on its normalized latents, pictures through a decoder."""
    latents = read_dataset(latent_files / "latents.pt")
    files = [latent_files / f"{name}.pkl" for name in ("net", "guide")]
    subject = real_subject(LATENT, *files, latent_files / "vae", latents, torch.device("cpu"))
    deviations = subject.data.images.std(dim=(0, 2, 3)).tolist()
    assert deviations == pytest.approx([2 / 4.17, 2 / 4.62, 2 / 3.71, 2 / 3.28], rel=0.1)
    maps = {"means": OnPictures(lambda x: x.flatten(2).mean(2), subject.decode)}
    table = run(
        Job(LATENT, subject.denoiser, subject.data, tmp_path / "out", maps, subject.decode, 8, 1, 8, components=2)
    )
    assert table is not None
    sheet = np.asarray(Image.open(tmp_path / "out" / "learned-heun-5-nearest.png"))
    height, width = subject.decode(subject.data.images[:1]).shape[1:3]
    assert sheet.shape == (4 * (height + 2) + 2, 8 * (width + 2) + 2, 3)  # decoded, above three neighbours


def test_true_images_are_the_reference_of_latents(latent_files: Path, tmp_path: Path) -> None:
    """Figures on feature maps are against the images of the same classes, not against decoded latents."""
    net, vae, latents, images = (latent_files / name for name in ("net.pkl", "vae", "latents.pt", "images.npz"))
    subject = real_subject(LATENT, net, None, vae, read_dataset(latents), torch.device("cpu"))
    maps: dict[str, Any] = {"means": OnPictures(lambda x: x.flatten(2).mean(2), subject.decode)}
    real = features_of(str(images), (0, 1), maps, 7, torch.device("cpu"), progress=False)
    kept = read_dataset(images, classes=(0, 1)).images
    assert len(kept) == 20
    torch.testing.assert_close(real["means"], kept.flatten(2).mean(2))
    own = Job(LATENT, subject.denoiser, subject.data, tmp_path, maps, subject.decode, 8, 1, 8, components=2)
    jobs = [replace(own, out=tmp_path / name, real=lambda f=found: f) for name, found in (("a", {}), ("b", real))]
    tables = [run(one) for one in jobs]
    decoded, true = ({f["metric"]: f for f in table["rows"][0]["figures"]} for table in tables if table)
    assert decoded["SWD"] == true["SWD"]  # on the latents themselves
    assert decoded["FD"]["value"] != true["FD"]["value"]
    samples = samples_of(jobs[1], "classic-heun-7")
    groups = torch.randperm(20, generator=torch.Generator().manual_seed(0)).split(8)
    wanted = frechet_distance(statistics(maps["means"](samples)), statistics(real["means"][groups[0]]))
    assert true["FD"]["value"] == pytest.approx(wanted, rel=1e-5)
    with pytest.raises(ValueError, match="real must be at least n = 8 samples on means, got 5"):
        Evaluator(subject.data.images, 8, maps, real={"means": real["means"][:5]})


def test_the_command_takes_true_images(latent_files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PROTOCOLS, "imagenet512", LATENT)
    monkeypatch.chdir(latent_files)
    common = ["imagenet512", "--checkpoint", "net.pkl", "--latents", "latents.pt", "--out", tmp_path / "out"]
    assert "--images: are the reference of pictures" in call(*common, "--images", "images.npz", code=1)
    files = ["--vae", "vae", "--images", "images.npz", "--classes", "0,1", "--components", "2"]
    text = call(*common, *files, "--features", "pixels", "--n", "8", "--seeds", "1")
    assert "reference: images of images.npz on feature maps, held-out latents on samples" in text
    held = json.loads((tmp_path / "out" / "table.json").read_text())["reference"]
    assert held.startswith("images of images.npz")
    assert "gone.zip: no such file" in call(*common, *files[:2], "--images", "gone.zip", code=1)
    write_samples(latent_files / "few", np.zeros((3, 8, 8, 3), np.uint8), 0)
    few = call(*common, *files[:2], "--images", "few", "--n", "8", code=1)
    assert "--images: must be at least n = 8 images, few has 3" in few
