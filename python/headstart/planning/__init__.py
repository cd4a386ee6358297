"""Planning: noise levels and multistep coefficients fitted on the start's own probability-flow ODE."""

from headstart.planning.planner import plan

__all__ = ["plan"]
