"""Planning: noise levels and coefficients fitted on the start's own probability-flow ODE, or on the network itself."""

from headstart.planning.measure import Validation, validate
from headstart.planning.planner import plan
from headstart.planning.trajectory import gits
from headstart.planning.tuning import tune

__all__ = ["Validation", "gits", "plan", "tune", "validate"]
