"""Pretrained networks of EDM and EDM2 as denoisers, and EDM2's latents.

net = hs.adapters.edm.load("edm-ffhq-64x64-uncond-ve.pkl")          # reads the file; runs no code of it
x = hs.sample(net, start.at(sigma=3.0), n=64, steps=6)
x = hs.sample(net, start.at(sigma=3.0), n=64, steps=6, cond={"label": labels})   # a network with classes
"""

from headstart.adapters.edm.file import convert, load
from headstart.adapters.edm.latents import VAE, rgb_bytes, vae_bytes
from headstart.adapters.edm.latents import LatentMoments as Moments
from headstart.adapters.edm.network import Network, Wrapped, wrap

__all__ = ["VAE", "Moments", "Network", "Wrapped", "convert", "load", "rgb_bytes", "vae_bytes", "wrap"]
