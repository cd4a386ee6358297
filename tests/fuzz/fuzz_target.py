"""What the fuzzer calls: every public name with arguments that are right, to be spoiled one or two at a time."""

# ruff: noqa: C408 (arguments read as a call)
from __future__ import annotations

import types
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import headstart as hs

Call = tuple[Callable[..., Any], dict[str, Any]]


def rows(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def half(x: Tensor, sigma: Any = None, **cond: Any) -> Tensor:
    """A denoiser."""
    return x * 0.5


@cache
def mixture(covariance: str = "full") -> hs.GaussianMixture:
    family = {"full": hs.Full(), "rank": hs.LowRank(2), "diagonal": hs.Diagonal()}[covariance]
    return hs.GaussianMixture.fit(rows(120, 3), 2, family, max_iter=3)


@cache
def student() -> hs.StudentTMixture:
    return hs.StudentTMixture.fit(rows(120, 3), 2, hs.Full(), max_iter=3)


@cache
def plan() -> hs.Plan:
    return hs.plan(mixture().at(2.0), 2)


@cache
def files(folder: str = ".") -> dict[str, str]:
    """Good files in the working folder."""
    mixture().save("start.safetensors")
    plan().save("plan.json")
    Path("text.txt").write_text("nothing")
    return {"start": "start.safetensors", "plan": "plan.json", "text": "text.txt"}


@cache
def pipe() -> Any:
    """What a pipeline of diffusers has that its adapter looks at."""
    from diffusers import DDIMScheduler, UNet2DModel

    network = UNet2DModel(8, 1, 1, block_out_channels=(32,), down_block_types=("DownBlock2D",),
                          up_block_types=("UpBlock2D",), layers_per_block=1).eval()  # fmt: skip
    return types.SimpleNamespace(scheduler=DDIMScheduler(), unet=network)


@cache
def flow() -> hs.Flow:
    return hs.Flow.fit(rows(60, 3), 1.0, hs.Coupling(1, (4,)), epochs=1, batch=32)


@cache
def tarflow() -> hs.TarFlow:
    images = rows(40, 1, 8, 8).clamp(-1, 1)
    return hs.TarFlow.fit(images, 1.0, channels=64, blocks=1, layers=1, epochs=1, batch=16)


def parts() -> hs.ops.Components:
    return hs.ops.Components(*(part.clone() for part in mixture("rank").components))  # type: ignore[arg-type, union-attr]


def base() -> dict[str, Call]:
    """Targets by name."""
    gm, x, images = mixture(), rows(120, 3), rows(60, 1, 8, 8).clamp(-1, 1)
    start, sigma = gm.at(2.0), torch.tensor([2.0, 1.0, 0.5, 0.0])
    stats = hs.metrics.statistics(x)
    weight = gm.weight.float().log()
    noise = hs.ops.Noise(0.5, 1, 2)
    made: dict[str, Call] = {
        "fit": (hs.fit, dict(data=x, components=2, covariance=hs.Full(), seed=0, max_iter=2, tol=1e-3, device="cpu",
                             labels=torch.arange(120) % 2, by_class=False)),
        "sample": (hs.sample, dict(denoiser=half, start=start, n=3, steps=2, solver=hs.Heun(), seed=1, offset=0,
                                   batch=2, cond={"y": torch.arange(3)}, dtype=torch.float32)),
        "sample_info": (hs.sample_info, dict(denoiser=half, start=start, n=3, steps=2, solver=hs.Euler())),
        "gits": (hs.gits, dict(denoiser=half, start=start, nfe=3, sigma_min=0.1, n=4, cond={}, seed=0)),
        "sample with a grid": (hs.sample, dict(denoiser=half, start=start, n=3, grid=sigma, latents=rows(3, 3))),
        "sample with a plan": (hs.sample, dict(denoiser=half, start=start, n=2, plan=plan())),
        "integrate": (hs.integrate, dict(denoiser=half, x=x[:3], grid=sigma, solver=hs.DPMpp2M(), seed=0, offset=0,
                                         cond={})),
        "Sampler": (build_and_call, dict(denoiser=half, start=start, steps=2, solver=hs.UniPC(), batch=2, grid=None,
                                         cond={}, dtype=torch.float32, graph=False)),
        "plan": (hs.plan, dict(start=start, nfe=2, sigma_start=2.0, free_history=True, seed=0, progress=False)),
        "tune": (hs.tune, dict(plan=plan(), denoiser=half, start=start, target="network", cond={}, seed=0,
                          progress=False, n=8, iterations=1, budget=200)),
        "validate": (hs.validate, dict(plan=plan(), denoiser=half, start=start, n=2, cond={}, seed=0, fine_steps=4)),
        "horizon": (hs.horizon, dict(law=gm, denoiser=gm.denoise, heldout=x, low=0.5, high=2.0, threshold=0.01, far=9.0,
                                     levels=4, seed=0, batch=60, cond={}, exact=False)),
        "initialization_kl": (hs.initialization_kl, dict(start=start, denoiser=gm.denoise, heldout=x, far=9.0, levels=3,
                                                         seed=0, batch=60, cond={}, exact=False)),
        "tail_check": (hs.tail_check, dict(start=start, heldout=x, n=1200, seed=0)),
        "dip_horizon": (hs.dip_horizon, dict(data=x, low=0.1, high=2.0, projections=2, level=0.05, seed=0)),
        "error_budget": (hs.error_budget, dict(law=gm, start=start, denoiser=gm.denoise, grid=[2.0, 1.0, 0.5],
                                               solver=hs.DDPM(), n=4, paths=2, seed=0)),
        "karras": (hs.karras, dict(sigma_max=2.0, sigma_min=0.1, steps=3, rho=7.0)),
        "log_uniform": (hs.log_uniform, dict(sigma_max=2.0, sigma_min=0.1, steps=3)),
        "guided": (guided_call, dict(denoiser=half, weight=1.5, guide=half, interval=(0.0, 1.0), null=None,
                                     batched=True)),
        "Guided": (hs.Guided, dict(denoiser=half, weight=1.5, guide=half, null={}, interval=(0.0, 1.0), batched=True)),
        "load": (hs.load, dict(path=files()["start"])),
        "load_plan": (hs.load_plan, dict(path=files()["plan"])),
        "EDM": (hs.EDM, dict(net=half, sigma_data=0.5, dtype=torch.float32, shape=(3,))),
        "Classic": (hs.Classic, dict(shape=(3,), sigma_max=2.0, dtype=torch.float32, device="cpu")),
        "Empirical": (hs.Empirical, dict(data=x, labels=torch.arange(120) % 2)),
        "Empirical.at.sample": (lambda data, sigma, n, seed: hs.Empirical(data).at(sigma).sample(n, seed=seed),
                                dict(data=x, sigma=1.0, n=3, seed=0)),
        "GaussianMixture": (hs.GaussianMixture, dict(components=gm.components, weight=gm.weight, shape=(3,),
                                                     class_weight=torch.eye(2))),
        "GaussianMixture.fit": (hs.GaussianMixture.fit, dict(data=x, components=2, covariance=hs.LowRank(1), seed=0,
                                                             max_iter=2, tol=1e-3)),
        "GaussianMixture.log_prob": (gm.log_prob, dict(x=x[:5], sigma=0.5, labels=None)),
        "GaussianMixture.denoise": (gm.denoise, dict(x=x[:5], sigma=0.5, labels=None)),
        "GaussianMixture.denoise, low rank": (mixture("rank").denoise, dict(x=x[:5], sigma=0.5)),
        "GaussianMixture.log_prob, diagonal": (mixture("diagonal").log_prob, dict(x=x[:5], sigma=0.5)),
        "GaussianMixture.transport": (gm.transport, dict(z=x[:3], sigma=2.0, sigma_max=80.0)),
        "GaussianMixture.at.sample": (lambda sigma, n, seed, offset: gm.at(sigma).sample(n, seed, offset),
                                      dict(sigma=1.0, n=3, seed=0, offset=0)),
        "Gaussian.fit": (hs.Gaussian.fit, dict(data=x, covariance=hs.Full(), labels=torch.arange(120) % 2)),
        "StudentTMixture": (hs.StudentTMixture, dict(components=student().components, weight=student().weight,
                                                     shape=(3,), df=student().df)),
        "StudentTMixture.fit": (hs.StudentTMixture.fit, dict(data=x, components=1, covariance=hs.Full(), seed=0,
                                                             max_iter=2, tol=1e-3, df=(1.0, 100.0))),
        "StudentTMixture.log_prob": (student().log_prob, dict(x=x[:5], sigma=0.5)),
        "StudentTMixture.denoise": (student().denoise, dict(x=x[:5], sigma=0.5)),
        "Flow.fit": (hs.Flow.fit, dict(data=x[:60], sigma=1.0, transform=hs.Coupling(1, (4,)), base=hs.GaussianBase(),
                                       noise=hs.Fixed(), epochs=1, batch=32, learning_rate=1e-3, heldout=0.1,
                                       patience=2, seed=0, labels=torch.arange(60) % 2)),
        "TarFlow.fit": (hs.TarFlow.fit, dict(data=images[:20], sigma=1.0, patch=4, channels=64, blocks=1, layers=1,
                                             noise=hs.Dynamic(), epochs=1, batch=10, learning_rate=1e-3, heldout=0.1,
                                             patience=2, average=0.0, seed=0, labels=torch.arange(20) % 2)),
        "Flow": (hs.Flow, dict(network=flow().network, frame=flow().frame)),
        "TarFlow": (hs.TarFlow, dict(network=tarflow().network, frame=tarflow().frame, guidance=0.0)),
        "LowRank": (hs.LowRank, dict(rank=2)),
        "Coupling": (hs.Coupling, dict(layers=2, hidden=(4,))),
        "Spline": (hs.Spline, dict(layers=2, hidden=(4,), bins=4)),
        "StudentTBase": (hs.StudentTBase, dict(df=4.0, learned=True)),
        "Ancestral": (hs.Ancestral, dict(eta=0.5)),
        "Churn": (hs.Churn, dict(amount=1.0, sigma_min=0.0, sigma_max=9.0, noise=1.0)),
        "DPMppSDE2M": (hs.DPMppSDE2M, dict(eta=1.0)),
        "DPMppSDE3M": (hs.DPMppSDE3M, dict(eta=1.0)),
        "Heun": (hs.Heun, dict(churn=hs.Churn(1.0))),
        "UniPC": (hs.UniPC, dict(bh2=False)),
        "Plan": (hs.Plan, {field: getattr(plan(), field) for field in plan().__dataclass_fields__}),
        "ops.affine": (hs.ops.affine, dict(x=x, a=0.5, terms=[(0.5, x)], noise=noise, out=torch.empty_like(x))),
        "ops.mixture_posterior": (hs.ops.mixture_posterior, dict(x=x, components=gm.components, log_weight=weight,
                                                                 sigma=0.5, denoise=True, respond=True)),
        "ops.mixture_posterior, low rank": (hs.ops.mixture_posterior, dict(x=x, components=parts(), log_weight=weight,
                                                                           sigma=0.5)),
        "ops.mixture_sample": (hs.ops.mixture_sample, dict(component=torch.tensor([0, 1, 1]), components=gm.components,
                                                           sigma=0.5, seed=0, step=0, offset=0)),
        "ops.noise": (hs.ops.noise, dict(x=x, scale=0.5, seed=0, step=0, offset=0, out=torch.empty_like(x), stream=1)),
        "ops.normal": (hs.ops.normal, dict(shape=(3, 2), seed=0, step=0, offset=0, stream=0, scale=1.0,
                                           dtype=torch.float32, device="cpu")),
        "ops.uniform": (hs.ops.uniform, dict(n=3, seed=0, step=0, offset=0, stream=2, device="cpu")),
        "ops.Components": (hs.ops.Components, parts()._asdict()),
        "ops.Stream": (hs.ops.Stream, dict(value=1)),
        "metrics.evaluate": (hs.metrics.evaluate, dict(samples=images[:30], data=images[30:], features={"pixels": None},
                                                       train=images[:40], n=20, seed=0, batch=16)),
        "metrics.Evaluator": (hs.metrics.Evaluator, dict(data=images, n=20, features={"pixels": None}, train=images,
                                                         seed=0, batch=16, real={"pixels": rows(40, 64)})),
        "metrics.GradientFeatures.fit": (hs.metrics.GradientFeatures.fit, dict(images=images, rank=4)),
        "metrics.GradientFeatures": (hs.metrics.GradientFeatures.fit(images, 4), dict(images=images[:3])),
        "metrics.Lite0Features": (hs.metrics.Lite0Features, dict(size=112, device="cpu")),
        "metrics.Dinov2Features": (hs.metrics.Dinov2Features, dict(path=files()["text"], device="cpu")),
        "metrics.InceptionFeatures": (hs.metrics.InceptionFeatures, dict(path=files()["text"], device="cpu")),
        "metrics.statistics": (hs.metrics.statistics, dict(images=x, features=half, batch=50)),
        "metrics.Moments.add": (add_rows, dict(rows=x)),
        "metrics.frechet_distance": (hs.metrics.frechet_distance, dict(p=stats, q=hs.metrics.statistics(rows(90, 3)))),
        "metrics.frechet_distance, fields": (distance, dict(mean=stats.mean, covariance=stats.covariance, n=9)),
        "metrics.kernel_distance": (hs.metrics.kernel_distance, dict(x=x, y=rows(90, 3), subset=20, seed=0)),
        "metrics.sliced_wasserstein": (hs.metrics.sliced_wasserstein, dict(x=x, y=rows(90, 3), projections=8, seed=0,
                                                                           v=torch.eye(3), bulk=(0.0, 1.0))),
        "metrics.max_sliced_wasserstein": (hs.metrics.max_sliced_wasserstein, dict(
            x=x, y=rows(90, 3), projections=8, steps=2, seed=0, restarts=2, bulk=(0.0, 1.0))),
        "metrics.tail_ratios": (hs.metrics.tail_ratios, dict(x=x, y=rows(200, 3), direction=torch.ones(3),
                                                             levels=(0.9, 0.5))),
        "metrics.memorization": (hs.metrics.memorization, dict(samples=x[:9], train=x, heldout=rows(110, 3, seed=1))),
        "metrics.neighbours": (hs.metrics.neighbours, dict(samples=x[:9], train=x, count=2)),
        "metrics.neighbour_sheet": (hs.metrics.neighbour_sheet, dict(samples=images[:9], train=images, columns=3,
                                                                     count=2)),
        "zoo.images": (hs.zoo.images, dict(name="fashion", split="test")),
        "zoo.denoiser": (hs.zoo.denoiser, dict(name="fashion", device="cpu")),
        "adapters.edm.load": (hs.adapters.edm.load, dict(path=files()["text"], device="cpu", dtype=None)),
        "adapters.edm.convert": (hs.adapters.edm.convert, dict(source=files()["text"], target="out.safetensors")),
        "adapters.edm.wrap": (hs.adapters.edm.wrap, dict(net=half)),
        "adapters.edm.VAE": (hs.adapters.edm.VAE, dict(path=files()["text"], device="cpu", batch=2)),
        "adapters.edm.rgb_bytes": (hs.adapters.edm.rgb_bytes, dict(x=rows(2, 3, 4, 4))),
        "adapters.edm.vae_bytes": (hs.adapters.edm.vae_bytes, dict(x=rows(2, 3, 4, 4))),
        "adapters.diffusers.load": (hs.adapters.diffusers.load, dict(path=files()["text"], device="cpu")),
        "adapters.diffusers.denoiser": (hs.adapters.diffusers.denoiser, dict(
            model=pipe().unet, scheduler=pipe().scheduler, whole_timesteps=None, timestep_scale=1.0)),
        "adapters.diffusers.latents": (hs.adapters.diffusers.latents, dict(start=start, pipe=pipe(), n=2, seed=0)),
        "adapters.diffusers.sigmas": (hs.adapters.diffusers.sigmas, dict(start=start, pipe=pipe(), steps=2, mu=0.5)),
        "adapters.diffusers.timesteps": (hs.adapters.diffusers.timesteps, dict(start=start, pipe=pipe(), steps=2)),
        "adapters.kdiffusion.model": (kdiffusion_call, dict(denoiser=half, x=x[:3], sigma=torch.ones(3))),
    }  # fmt: skip
    return made | dict(records(set(made)))


def records(known: set[str]) -> Iterator[tuple[str, Call]]:
    """The other public names: classes that only hold what they are given, called with the right number of fields."""
    rooms = {"": hs, "ops.": hs.ops, "metrics.": hs.metrics}
    for prefix, room in rooms.items():
        for name in room.__all__:
            thing = getattr(room, name)
            if prefix + name in known or not isinstance(thing, type) or getattr(thing, "_is_protocol", False):
                continue
            fields = list(getattr(thing, "__dataclass_fields__", getattr(thing, "_fields", ())))
            yield prefix + name, (thing, dict.fromkeys(fields, 1.0))


def build_and_call(**given: Any) -> Any:
    """A sampler, and a batch of it."""
    return hs.Sampler(**given)(0)


def guided_call(**given: Any) -> Any:
    """A guided denoiser, and a call of it."""
    return hs.guided(**given)(rows(2, 3), torch.tensor(0.5))


def kdiffusion_call(denoiser: Any, x: Any, sigma: Any) -> Any:
    return hs.adapters.kdiffusion.model(denoiser)(x, sigma)


def add_rows(rows: Any) -> Any:
    moments = hs.metrics.Moments()
    moments.add(rows)
    return moments.statistics()


def distance(mean: Any, covariance: Any, n: Any) -> float:
    return hs.metrics.frechet_distance(hs.metrics.Statistics(mean, covariance, n), hs.metrics.statistics(rows(90, 3)))
