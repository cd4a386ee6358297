"""Networks of diffusers as denoisers: against the closed form, with every condition; see also test_agreement.py."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

import headstart as hs
from bench.agreement.case import distance

nets = pytest.importorskip("bench.agreement.network", reason='needs pip install "headstart[diffusers]"')
diffusers = nets.diffusers
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of the schedulers


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_the_true_prediction_gives_the_data(prediction: str) -> None:
    """A network that knows the noise, at levels between and below the table's: the denoiser gives `x0` back."""
    scheduler = diffusers.DDPMScheduler(prediction_type=prediction)
    denoiser = hs.diffusers.denoiser(nets.unet(), scheduler)
    x0, noise = nets.normals(2, *nets.SHAPE, dtype=torch.float64), nets.normals(2, *nets.SHAPE, seed=1).double()
    for sigma in (0.004, 0.0312, 0.8, 7.77, 100.0):
        alpha = 1 / math.sqrt(1 + sigma**2)
        truth = {"epsilon": noise, "v_prediction": alpha * noise - sigma * alpha * x0, "sample": x0}[prediction]
        c_skip, c_out, c_in, _ = denoiser.preconditioning(sigma)
        assert torch.allclose(c_skip * (x0 + sigma * noise) + c_out * truth, x0, atol=1e-12)
        assert math.isclose(c_in, alpha)


def test_timesteps_between_levels() -> None:
    scheduler = diffusers.DDPMScheduler()
    levels = ((1 - scheduler.alphas_cumprod) / scheduler.alphas_cumprod).double().sqrt()
    smooth = hs.diffusers.denoiser(nets.unet(), scheduler)
    whole = hs.diffusers.denoiser(nets.unet(), scheduler, whole_timesteps=True)
    exact = ((1 - scheduler.alphas_cumprod.double()) / scheduler.alphas_cumprod.double()).sqrt().tolist()
    for t in (0, 1, 437, 999):
        assert smooth.preconditioning(exact[t]).c_noise == t
    middle = math.sqrt(exact[436] * exact[437])
    assert math.isclose(smooth.preconditioning(middle).c_noise, 436.5, rel_tol=1e-9)
    assert whole.preconditioning(middle * 1.0001).c_noise == 437
    assert smooth.preconditioning(levels[0].item() / 3).c_noise == 0
    with pytest.raises(ValueError, match=r"sigma must be at most 157\.\d+, got 400"):
        smooth.preconditioning(400.0)
    with pytest.raises(ValueError, match="sigma must be at most"):
        hs.sample(smooth, hs.Classic(nets.SHAPE, 400.0), 1, 4)


@pytest.mark.parametrize("kind", ["DDIM", "EulerDiscrete", "EulerAncestralDiscrete", "DPMSolverMultistep"])
def test_no_signal_left_at_the_last_level(kind: str) -> None:
    """Some schedulers write 2^-24 in place of the last signal, 0, which is more than is left at the level before it."""
    scheduler = getattr(diffusers, f"{kind}Scheduler")(rescale_betas_zero_snr=True, prediction_type="v_prediction")
    denoiser = hs.diffusers.denoiser(nets.unet(), scheduler)
    assert scheduler.alphas_cumprod[-1] == (0 if kind == "DDIM" else 2**-24)
    assert denoiser.preconditioning(denoiser.schedule.sigma_max).c_noise == 998
    assert hs.sample(denoiser, hs.Classic(nets.SHAPE, 80.0), 2, 4).isfinite().all()


def test_a_learned_table_of_timesteps_gets_whole_ones() -> None:
    network = nets.unet(time_embedding_type="learned", num_train_timesteps=1000)
    denoiser = hs.diffusers.denoiser(network, diffusers.DDPMScheduler())
    x = nets.normals(2, *nets.SHAPE)
    level = denoiser.preconditioning(3.3)
    direct = level.c_skip * x + level.c_out * network(level.c_in * x, int(level.c_noise)).sample
    assert torch.allclose(denoiser(x, 3.3), direct, atol=1e-5)


def test_classes() -> None:
    scheduler, x, label = diffusers.DDIMScheduler(), nets.normals(3, *nets.SHAPE), torch.tensor([4, 0, 6])
    network = nets.unet(num_class_embeds=7)
    denoiser = hs.diffusers.denoiser(network, scheduler, null_label=6)
    assert (denoiser.shape, denoiser.classes) == (nets.SHAPE, 7)
    one = torch.cat([denoiser(x[i : i + 1], 2.0, label=label[i : i + 1]) for i in range(3)])
    assert torch.allclose(denoiser(x, torch.tensor([2.0, 2.0, 2.0]), label=label), one, atol=1e-5)
    assert torch.equal(denoiser(x, 2.0)[2], denoiser(x, 2.0, label=label)[2])
    assert not torch.equal(denoiser(x, 2.0)[0], denoiser(x, 2.0, label=label)[0])
    with pytest.raises(ValueError, match="class_labels"):
        hs.diffusers.denoiser(network, scheduler)(x, 2.0)


def test_dit_takes_its_null_class_and_gives_its_mean() -> None:
    network, scheduler = nets.dit(), diffusers.DDIMScheduler()
    network.proj_out_2.weight.normal_(0, 0.1)
    denoiser, x, label = hs.diffusers.denoiser(network, scheduler), nets.normals(2, 4, 8, 8), torch.tensor([3, 9])
    at = denoiser.preconditioning(1.7)
    told = torch.full((2,), at.c_noise)
    for given, classes in ((label, label), (None, torch.tensor([10, 10]))):
        noise = network(at.c_in * x, timestep=told, class_labels=classes).sample[:, :4]
        assert torch.allclose(denoiser(x, 1.7, label=given), x - 1.7 * noise, atol=1e-5)
    start = hs.Classic((4, 8, 8), 10.0)
    batched = hs.sample(denoiser, start, 4, 5, cond={"label": torch.arange(4)}, batch=2)
    assert distance(batched, hs.sample(denoiser, start, 4, 5, cond={"label": torch.arange(4)})) < 1e-5


def test_text_conditions() -> None:
    scheduler, prompt = diffusers.DDIMScheduler(), nets.normals(1, 5, 8, seed=1)
    denoiser, x = hs.diffusers.denoiser(nets.text_unet(), scheduler), nets.normals(3, 4, 8, 8)
    wide = denoiser(x, 2.0, encoder_hidden_states=prompt.expand(3, 5, 8))
    assert torch.equal(denoiser(x, 2.0, encoder_hidden_states=prompt), wide)
    with pytest.raises(ValueError, match="cond must have 'encoder_hidden_states', which UNet2DConditionModel needs"):
        hs.sample(denoiser, hs.Classic((4, 8, 8), 10.0), 1, 3)
    options = {"addition_embed_type": "text_time", "addition_time_embed_dim": 4}
    large = nets.text_unet(**options, projection_class_embeddings_input_dim=6 + 6 * 4)
    added = {"text_embeds": nets.normals(3, 6, seed=2), "time_ids": nets.normals(3, 6, seed=3)}
    denoiser = hs.diffusers.denoiser(large, scheduler)
    at = denoiser.preconditioning(2.0)
    direct = large(at.c_in * x, at.c_noise, prompt.expand(3, 5, 8), added_cond_kwargs=added).sample
    assert torch.allclose(denoiser(x, 2.0, encoder_hidden_states=prompt, **added), x - 2.0 * direct, atol=1e-5)


def test_half_precision_weights_and_a_float32_state() -> None:
    scheduler = diffusers.DDIMScheduler()
    exact = hs.diffusers.denoiser(nets.unet(), scheduler)
    rough = hs.diffusers.denoiser(nets.unet().to(torch.bfloat16), scheduler)
    assert rough.dtype == torch.bfloat16
    start = hs.Classic(nets.SHAPE, 3.0)
    x = hs.sample(rough, start, 2, 4)
    assert x.dtype == torch.float32
    assert 0 < distance(x, hs.sample(exact, start, 2, 4)) < 0.1


def test_conditions_take_the_type_of_the_network() -> None:
    """As in a pipeline; integers stay, and half precision is that of the network's own call."""
    network, prompt = nets.text_unet().to(torch.bfloat16), nets.normals(1, 5, 8, seed=1)
    denoiser, x = hs.diffusers.denoiser(network, diffusers.DDIMScheduler()), nets.normals(3, 4, 8, 8)
    found = denoiser(x, 2.0, encoder_hidden_states=prompt)
    assert torch.equal(found, denoiser(x, 2.0, encoder_hidden_states=prompt.to(torch.bfloat16)))
    guided = hs.guided(denoiser, 3.0, null={"encoder_hidden_states": torch.zeros(1, 5, 8)})
    cond = {"encoder_hidden_states": prompt}
    assert hs.sample(guided, hs.Classic((4, 8, 8), 3.0), 2, 3, cond=cond).dtype == torch.float32
    labelled = hs.diffusers.denoiser(nets.unet(num_class_embeds=7).to(torch.float16), diffusers.DDIMScheduler())
    assert labelled.to("cpu") is labelled
    assert labelled(nets.normals(2, *nets.SHAPE), 2.0, label=torch.tensor([1, 6])).isfinite().all()


@pytest.mark.parametrize(
    ("scheduler", "error", "message"),
    [
        (lambda: diffusers.DDIMScheduler(thresholding=True), ValueError, "thresholding=False"),
        (lambda: diffusers.ScoreSdeVeScheduler(), TypeError, "must have alphas_cumprod, .* got ScoreSdeVeScheduler"),
        (lambda: diffusers.EDMDPMSolverMultistepScheduler(prediction_type="sample"), ValueError, "got 'sample'"),
        (lambda: 3, TypeError, "got int"),
    ],
)
def test_schedulers_that_are_refused(scheduler: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        hs.diffusers.denoiser(nets.unet(), scheduler())


def test_networks_that_are_refused() -> None:
    with pytest.raises(ValueError, match=r"evaluation mode, got training mode; call model.eval\(\)"):
        hs.diffusers.denoiser(nets.unet().train(), diffusers.DDIMScheduler())
    with pytest.raises(TypeError, match="model must be a network of diffusers, got Linear"):
        hs.diffusers.denoiser(torch.nn.Linear(2, 2), diffusers.DDIMScheduler())
