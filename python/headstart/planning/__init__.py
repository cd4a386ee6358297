"""Planning: noise levels and coefficients fitted on the start's own probability-flow ODE, or on the network itself."""

from headstart.planning.planner import plan
from headstart.planning.trajectory import gits
from headstart.planning.tuning import tune
from headstart.planning.validation import Validation, validate

__all__ = ["Validation", "gits", "plan", "tune", "validate"]
