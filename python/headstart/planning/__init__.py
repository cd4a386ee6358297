"""Planning: noise levels and multistep coefficients fitted on the start's own probability-flow ODE."""

from headstart.planning.planner import plan
from headstart.planning.trajectory import gits
from headstart.planning.validation import Validation, validate

__all__ = ["Validation", "gits", "plan", "validate"]
