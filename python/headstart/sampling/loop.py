"""Running a table of rows: for each row the network calls, of one network or of two under guidance, then one affine op.

Functions, noise levels and factors of all calls are settled before the first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from headstart import ops
from headstart.denoiser import Denoiser, Preconditioned, Preconditioning
from headstart.guidance import Conditions, Guided
from headstart.ops.affine import MAX_TERMS
from headstart.sampling.buffer import BUFFERS
from headstart.solver import Row

Scale = tuple[float, torch.dtype]


class Branch(NamedTuple):
    """One network's part of a prediction: `skip x + out F(scale x, level)`.

    Attributes:
        network: `F`.
        level: noise level that it is told, 0-dim.
        skip, out: factors, the branch's share of the prediction included.
        scale: of its input, and the dtype; None: it is given the state itself.
        guide: whether it has the guide's conditions.
    """

    network: Callable[..., Tensor]
    level: Tensor
    skip: float
    out: float
    scale: Scale | None
    guide: bool = False

    def input(self, x: Tensor) -> Tensor:
        """The input of the network at the state `x`."""
        if self.scale is None:
            return x
        return torch.mul(x, self.scale[0], out=BUFFERS.take(x, self.scale[1]))

    def times(self, share: float, guide: bool) -> Branch:
        """This branch with a share in the prediction."""
        return self._replace(skip=share * self.skip, out=share * self.out, guide=guide)


def branches_of(
    denoiser: Denoiser | Preconditioned, rows: Sequence[Row], dtype: torch.dtype, device: torch.device
) -> list[tuple[Branch, ...]]:
    """The branches that each row calls, none in a row without a call; with levels on the device."""
    if not isinstance(denoiser, Guided):
        return branch_of(denoiser, rows, dtype, device)
    mains = branch_of(denoiser.denoiser, rows, dtype, device)
    guides = branch_of(denoiser.guide, rows, dtype, device)
    found = []
    for row, main, guide in zip(rows, mains, guides, strict=True):
        shares = zip((*main, *guide), denoiser.shares(row.level or 0.0), (False, True), strict=False)
        found.append(tuple(one.times(share, late) for one, share, late in shares if share))
    return found


def branch_of(
    denoiser: Denoiser | Preconditioned, rows: Sequence[Row], dtype: torch.dtype, device: torch.device
) -> list[tuple[Branch, ...]]:
    """The one branch of a denoiser without guidance, in each row with a call."""
    found: list[tuple[Branch, ...]] = []
    if isinstance(denoiser, Preconditioned):
        none = Preconditioning(0.0, 0.0, 0.0, 0.0)
        at = [denoiser.preconditioning(row.level) if row.level else none for row in rows]
        levels = torch.tensor([factors.c_noise for factors in at], dtype=dtype, device=device).unbind()
        for row, (c_skip, c_out, c_in, _), level in zip(rows, at, levels, strict=True):
            one = Branch(denoiser.raw, level, c_skip, c_out, (c_in, denoiser.dtype or dtype))
            found.append((one,) if row.level else ())
        return found
    sigmas = [row.level or 0.0 for row in rows]
    levels = torch.tensor(sigmas, dtype=torch.float64, device=device).unbind()
    for sigma, level in zip(sigmas, levels, strict=True):
        found.append((Branch(denoiser, level, 0.0, 1.0, None),) if sigma else ())
    return found


def evaluations(denoiser: Denoiser | Preconditioned, rows: Sequence[Row]) -> int:
    """Network evaluations a sample: one for each branch of each row that calls."""
    sigmas = [row.level for row in rows if row.level]
    if not isinstance(denoiser, Guided):
        return len(sigmas)
    return sum(share != 0 for sigma in sigmas for share in denoiser.shares(sigma))


def conditions_of(denoiser: Denoiser | Preconditioned, cond: dict[str, Any], n: int) -> Conditions:
    """The conditions of both branches in a batch of `n`."""
    return denoiser.conditions(cond, n) if isinstance(denoiser, Guided) else Conditions(cond, cond, None)


def ask(
    branches: Sequence[Branch], x: Tensor, scaled: Tensor | None, given: Conditions, lend: bool, counted: bool
) -> tuple[list[Tensor], bool]:
    """The output of each branch at `x`, from one call where one serves both; and whether one wrote into its state.

    `scaled`: the input of the first branch, where it is made already; of `2 B` rows for one call.
    `lend`: a branch that is given the state gets the state itself, not a copy.
    `counted`: torch counts writes here, and Python may look at the count.
    """
    first = branches[0]
    if len(branches) == 2 and given.joint is not None:
        scaled = twice(first.input(x)) if scaled is None else scaled
        raw = first.network(scaled, first.level, **given.joint)
        require(first, raw, scaled)
        return [raw[: x.shape[0]], raw[x.shape[0] :]], False
    raws, wrote, at = [], False, first.scale
    for branch in branches:
        if branch.scale is None:
            y = x if lend else x.clone()
        else:
            y = scaled if scaled is not None and branch.scale == at else branch.input(x)
        before = version(y) if counted else None
        raw = branch.network(y, branch.level, **(given.guide if branch.guide else given.main))
        require(branch, raw, x)
        raws.append(raw)
        kept = unchanged(y, before)
        wrote = wrote or (branch.scale is None and not kept)
        scaled, at = (y, branch.scale) if kept and branch.scale is not None else (None, None)  # for the next branch
    return raws, wrote


def twice(x: Tensor) -> Tensor:
    """`x` and `x` again, `[2 B, *shape]`."""
    wide = BUFFERS.take(x, x.dtype, copies=2)
    wide[: len(x)].copy_(x)
    wide[len(x) :].copy_(x)
    return wide


PLAIN = (Tensor, torch.nn.Parameter)


def version(tensor: Tensor) -> int | None:
    """torch's count of the writes into a tensor's memory; None where it keeps none (inference mode, subclasses)."""
    return tensor._version if type(tensor) in PLAIN and not tensor.is_inference() else None


def unchanged(tensor: Tensor, before: int | None) -> bool:
    """Whether torch counted no write since `before`, and would have."""
    return before is not None and version(tensor) == before


def address(tensor: Tensor) -> int | None:
    """Where its memory begins; None for tensors without any."""
    return (tensor.data_ptr() or None) if type(tensor) in PLAIN and tensor.numel() else None


def require(branch: Branch, raw: object, like: Tensor) -> None:
    """Refuses what is no dense floating tensor of the input's shape and device.

    Raises:
        ValueError: another type, or another shape.
    """
    name = "guide" if branch.guide else "denoiser"
    if not isinstance(raw, Tensor) or raw.shape != like.shape:
        got = list(raw.shape) if isinstance(raw, Tensor) else type(raw).__name__
        inner = (
            ("[0]", isinstance(raw, tuple)),
            ("['sample']", isinstance(raw, dict)),
            (".sample", hasattr(raw, "sample")),
        )
        hint = next((f"; return its {part}" for part, has in inner if has), "") if not isinstance(raw, Tensor) else ""
        raise ValueError(f"sample: the {name} must return a tensor {list(like.shape)}, got {got}{hint}")
    if raw.dtype not in ops.check.TYPES or raw.layout is not torch.strided or raw.device != like.device:
        wanted = f"a dense tensor of float32, float64, float16 or bfloat16 on {like.device}"
        got = ops.check.describe(raw) + ("" if raw.layout is torch.strided else f", layout {raw.layout}")
        raise ValueError(f"sample: the {name} must return {wanted}, got {got}")


Term = tuple[float, Tensor]


class Origin(NamedTuple):
    """Seed and sample index of a descent's noise; `place`: where both stand on the device instead, see `ops.Noise`."""

    seed: int
    offset: int
    place: Tensor | None = None


@dataclass
class Prediction:
    """A denoised prediction as `skip state + sum_j out_j raw_j`, not computed unless it must be."""

    skip: float
    state: Tensor
    parts: list[Term]
    places: list[tuple[int | None, int | None]] = field(default_factory=list)

    def note(self) -> None:
        """Remembers where its parts lie, and how often they were written into."""
        self.places = [(address(raw), version(raw)) for _, raw in self.parts]

    def lost(self, later: set[int | None]) -> bool:
        """Whether its parts were overwritten since they were noted: written into, or where `later` outputs lie."""
        return any(
            (place in later and place is not None) or (before is not None and version(raw) != before)
            for (place, before), (_, raw) in zip(self.places, self.parts, strict=False)
        )

    def fold(self) -> int:
        """Computes it, in one pass; the bytes that moved."""
        x, a, terms = self.state, self.skip, self.parts
        if not a and terms and terms[0][1].dtype == x.dtype:
            (a, x), *terms = terms
        denoised = ops.affine(x, a, terms, out=BUFFERS.take(self.state, self.state.dtype))
        self.skip, self.parts, self.places = 0.0, [(1.0, denoised)], []  # its memory is the run's own
        return 2 * denoised.nbytes + sum(y.nbytes for _, y in terms)


class Overwritten(Exception):
    """A denoiser wrote over a prediction that later rows need."""


class Descent:
    """A denoiser and its rows, with the noise levels it is told on the device before the first call.

    Nothing in a run waits for the device or copies to it, so a run can be captured into a CUDA graph.

    A denoiser is watched by numbers that torch keeps anyway. The first call gets a copy of the state: one that writes
    into it gets copies from then on (all calls do where torch counts no writes). One that uses its output's memory
    again is known when a prediction that rows still need has been written over: the run begins anew, and copies what
    is returned.
    """

    def __init__(
        self, denoiser: Denoiser | Preconditioned, rows: list[Row], dtype: torch.dtype, device: torch.device
    ) -> None:
        self.denoiser, self.rows = denoiser, rows
        self.noisy = any(row.c for row in rows)
        self.depth = max(max(len(row.b), len(row.states)) for row in rows)
        self.branches = [*branches_of(denoiser, rows, dtype, device), ()]  # no call after the last row
        self.lends = False  # the state itself: not before a call has shown that the denoiser leaves it alone
        self.writes = self.overwrites = False

    def run(
        self, x: Tensor, origin: Origin, cond: dict[str, Any], advance: Callable[[], object],
        known: Sequence[Tensor] = (),
    ) -> tuple[Tensor, int]:  # fmt: skip
        """The last state, contiguous, and the bytes the rows moved; `x` is left as it is.

        `known`: denoised predictions made before the first row, newest first.

        Raises:
            ValueError: a denoiser that returns what it may not, or begins to write into its input after the first call.
        """
        try:
            return self.attempt(x, origin, cond, advance, known)
        except Overwritten:
            self.overwrites = True
        return self.attempt(x, origin, cond, lambda: None, known)

    def attempt(
        self, x: Tensor, origin: Origin, cond: dict[str, Any], advance: Callable[[], object], known: Sequence[Tensor]
    ) -> tuple[Tensor, int]:
        """`run`, once.

        Raises:
            Overwritten: a prediction was lost.
        """
        given, counted = conditions_of(self.denoiser, cond, x.shape[0]), not ops.library.watched()
        history = [Prediction(0.0, x, [(1.0, denoised)]) for denoised in known]
        x = x.contiguous()
        point, scaled, moved = x, None, 0  # where the next call is made, and the network's input there
        for i, row in enumerate(self.rows):
            if branches := self.branches[i]:
                raws = self.watched(branches, point, scaled, given, counted)
                if counted and history and not self.overwrites:
                    later = {address(raw) for raw in raws}
                    if any(one.lost(later) for one in history[: self.depth - 1]):
                        raise Overwritten
                if i == 0 and not self.noisy:  # noise is drawn in the contiguous order
                    x = point = follow(point, raws[0])
                history = [predict(branches, point, raws), *history[: self.depth - 1]]
                if counted and self.depth > 1:
                    history[0].note()
            elif row.analytic is not None:
                history = [Prediction(row.analytic, point, []), *history[: self.depth - 1]]
            a, terms, folded = unfold(row, x, history)
            noise = ops.Noise(row.c, origin.seed, i, origin.offset, origin=origin.place) if row.c else None
            scaled, base = None, x  # its buffer serves again
            while len(terms) > MAX_TERMS:  # more than the op takes at once: the first ones in a pass of their own
                base, a = ops.affine(base, a, terms[:MAX_TERMS], out=BUFFERS.take(x, x.dtype)), 1.0
                moved += 2 * x.nbytes + sum(y.nbytes for _, y in terms[:MAX_TERMS])
                terms = terms[MAX_TERMS:]
            point, scaled = self.step(i, base, a, terms, noise, given.joint is not None)
            moved += 0 if scaled is None else x.numel() * scaled.element_size()
            moved += folded + 2 * x.nbytes + sum(y.nbytes for _, y in terms)
            x = point if row.commit else x
            advance()
        BUFFERS.trim()
        return x.contiguous(), moved

    def watched(
        self, branches: Sequence[Branch], x: Tensor, scaled: Tensor | None, given: Conditions, counted: bool
    ) -> list[Tensor]:
        """`ask`, of a denoiser that may write into what it is given and into what it returned.

        Raises:
            ValueError: it wrote into the state itself.
        """
        raws, wrote = ask(branches, x, scaled, given, self.lends, counted)
        if wrote and self.lends:
            raise ValueError(
                "sample: the denoiser must leave x as it is, but wrote into it after its first call; give it x.clone()"
            )
        if not (self.lends or self.writes):
            self.lends, self.writes = not wrote, wrote
        return [raw.clone() for raw in raws] if self.overwrites else raws

    def step(
        self, i: int, x: Tensor, a: float, terms: list[Term], noise: ops.Noise | None, joint: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Row `i` itself: where the next call is made, and its input where that is not the state, else None.

        `joint`: one call serves both branches, so that its input is there twice.
        """
        following = self.branches[i + 1]
        if i == len(self.rows) - 1:  # what a user gets is a tensor of its own
            return ops.affine(x, a, terms, noise, torch.empty_like(x)), None
        out = BUFFERS.take(x, x.dtype)
        if not following or following[0].scale is None:
            return ops.affine(x, a, terms, noise, out), None
        n, (scale, dtype), wide = x.shape[0], following[0].scale, joint and len(following) == 2
        scaled = BUFFERS.take(x, dtype, 2 if wide else 1)
        ops.affine(x, a, terms, noise, out, out_scaled=(scale, scaled[:n] if wide else scaled))
        if wide:
            scaled[n:].copy_(scaled[:n])
        return out, scaled


def predict(branches: Sequence[Branch], x: Tensor, raws: Sequence[Tensor]) -> Prediction:
    """The prediction at `x`, of what the branches returned."""
    if len(branches) == 1:
        return Prediction(branches[0].skip, x, [(branches[0].out, raws[0])])
    main, guide = branches
    return Prediction(main.skip + guide.skip, x, [(main.out, raws[0]), (guide.out, raws[1])])


def follow(x: Tensor, raw: Tensor) -> Tensor:
    """`x` in the memory order of `raw`, so that what the network returns is not rearranged at every row."""
    order = ops.check.layout(raw)
    return x if order is torch.contiguous_format else x.contiguous(memory_format=order)


def unfold(row: Row, x: Tensor, history: Sequence[Prediction]) -> tuple[float, list[Term], int]:
    """The row as a coefficient of `x` and other tensors, and the bytes that predictions took to compute.

    Predictions enter as their parts. Where those are more than the op takes, one is computed, the newest that is
    enough: the others have fewer rows left to serve. More than four are left only where states enter by themselves, or
    more than four predictions.
    """
    moved = 0
    states = row.states or (0.0,) * len(row.b)
    used = list(zip(row.b, (*states, *(0.0,) * (len(row.b) - len(states))), history, strict=False))
    while True:
        a = row.a
        terms: list[Term] = []
        for b, e, prediction in used:
            if prediction.skip or e:
                share = b * prediction.skip + e
                if prediction.state is x:
                    a += share
                else:
                    terms.append((share, prediction.state))
            terms += [(b * out, raw) for out, raw in prediction.parts]
        if len(terms) <= MAX_TERMS:
            return a, terms, moved
        counts = [len(one.parts) + bool(one.skip and one.state is not x) for _, _, one in used]
        if max(counts) == 1:
            return a, terms, moved
        wanted = min(max(counts), 1 + len(terms) - MAX_TERMS)
        moved += history[next(i for i, count in enumerate(counts) if count >= wanted)].fold()
