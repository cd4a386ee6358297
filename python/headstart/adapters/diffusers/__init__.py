"""diffusers: its networks as denoisers, and learned starts for its pipelines.

    network = hs.diffusers.denoiser(pipe.unet, pipe.scheduler)
    x = hs.sample(network, start.at(3.0), n=64, steps=6)

or, with the pipeline's own sampler,

    z = hs.diffusers.latents(start.at(3.0), pipe, n=4, seed=0)
    images = pipe(prompt, latents=z, timesteps=hs.diffusers.timesteps(start.at(3.0), pipe, steps=6)).images

Pipelines that take no latents (`DDPMPipeline`, `DDIMPipeline`, `DiTPipeline`) have a short loop instead:

    scheduler.set_timesteps(timesteps=hs.diffusers.timesteps(start.at(3.0), scheduler, steps=6))
    x = hs.diffusers.latents(start.at(3.0), scheduler, n=4, seed=0)
    for t in scheduler.timesteps:
        x = scheduler.step(unet(x, t).sample, t, x).prev_sample
"""

from headstart.adapters.diffusers.network import DiffusersNetwork as Network
from headstart.adapters.diffusers.network import denoiser, load
from headstart.adapters.diffusers.start import latents, sigmas, timesteps

__all__ = ["Network", "denoiser", "latents", "load", "sigmas", "timesteps"]
