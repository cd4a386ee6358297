"""`headstart.start` by its earlier name."""

from headstart.start import *  # noqa: F403
from headstart.start import __all__ as __all__
