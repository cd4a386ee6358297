"""Whole experiments on a network of the user's: the published protocol and ours side by side.

A protocol is data (`protocol.py`); one runner (`run.py`) fits the start, draws every way's samples in parts that are
kept as they are done, scores them, and writes a table and pictures.
"""

from headstart.recipes.job import Job
from headstart.recipes.protocol import FFHQ64, IMAGENET512, Flow, Protocol
from headstart.recipes.run import run
from headstart.recipes.way import Way

PROTOCOLS = {protocol.name: protocol for protocol in (FFHQ64, IMAGENET512)}

__all__ = ["FFHQ64", "IMAGENET512", "PROTOCOLS", "Flow", "Job", "Protocol", "Way", "run"]
