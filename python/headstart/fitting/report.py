"""Reports of fits: how a mixture was fitted, and how a flow was trained."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from typing import Any


@dataclass(frozen=True)
class Candidate:
    """One mixture that `components="auto"` tried.

    Attributes:
        components: components asked for.
        covariance: the covariance family, as text.
        log_likelihood: of a held-out point, mean, in nats.
    """

    components: int
    covariance: str
    log_likelihood: float


@dataclass(frozen=True)
class FitReport:
    """How a mixture was fitted. Log-likelihoods are means over points, in nats, under the returned mixture,
    given the class where each class was fitted by itself.

    Attributes:
        n: points fitted on.
        heldout: points held out (5 %, drawn by the seed; 0 when there are fewer than 200 points).
        components: components in the returned mixture.
        dropped: components that collapsed on the way (mass below two points, or twins) and were dropped.
        covariance: the covariance family, as text.
        iterations: EM iterations (M steps), those on a subsample included.
        converged: whether the last change of the log-likelihood was below the tolerance.
        log_likelihood: on the points fitted on.
        heldout_log_likelihood: on the points held out, or None.
        seconds: wall time.
        seed: seed of the split and of the first components.
        history: log-likelihood at each iteration on all points fitted on.
        df: degrees of freedom of each component, or None where they are normal.
        candidates: mixtures that `components="auto"` compared, in order; empty where the number was given.
    """

    n: int
    heldout: int
    components: int
    dropped: int
    covariance: str
    iterations: int
    converged: bool
    log_likelihood: float
    heldout_log_likelihood: float | None
    seconds: float
    seed: int
    history: tuple[float, ...] = ()
    df: tuple[float, ...] | None = None
    candidates: tuple[Candidate, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> FitReport:
        """The report back from `to_dict`; keys of later versions are ignored."""
        known = {field.name: values[field.name] for field in fields(cls) if field.name in values}
        known["history"] = tuple(known.get("history", ()))
        known["df"] = None if known.get("df") is None else tuple(known["df"])
        known["candidates"] = tuple(Candidate(**one) for one in known.get("candidates", ()))
        return cls(**known)


@dataclass(frozen=True)
class FlowReport:
    """How a flow was trained. Log-likelihoods are means over noised points, in nats.

    Attributes:
        n: points trained on.
        heldout: points held out (drawn by the seed; their noise is the same at every epoch).
        noise: the noising regime, as text.
        epochs: epochs run.
        best: the epoch whose weights were kept, counted from 1: the last one where no point was held out.
        stopped: whether training stopped for want of progress, before its last epoch.
        log_likelihood: on the points trained on, while that epoch went over them.
        heldout_log_likelihood: on the points held out, after that epoch, or None.
        seconds: wall time, over all runs that were resumed.
        seed: seed of split, weights, order and noise.
        history: held-out log-likelihood after each epoch (of the points trained on where none was held out).
    """

    n: int
    heldout: int
    noise: str
    epochs: int
    best: int
    stopped: bool
    log_likelihood: float
    heldout_log_likelihood: float | None
    seconds: float
    seed: int
    history: tuple[float, ...] = ()

    def shifted(self, nats: float) -> FlowReport:
        """The report with `nats` added to every log-likelihood: a change of units."""
        heldout = self.heldout_log_likelihood
        return replace(
            self,
            log_likelihood=self.log_likelihood + nats,
            heldout_log_likelihood=None if heldout is None else heldout + nats,
            history=tuple(value + nats for value in self.history),
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> FlowReport:
        """The report back from `to_dict`; keys of later versions are ignored."""
        known = {field.name: values[field.name] for field in fields(cls) if field.name in values}
        known["history"] = tuple(known.get("history", ()))
        return cls(**known)
