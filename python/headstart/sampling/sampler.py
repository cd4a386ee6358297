"""A sampler of fixed shapes: the whole loop, network included, captured once into a CUDA graph and replayed.

Where no graph can be captured the same loop runs without one, and the sampler says why.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypedDict

import torch
from torch import Tensor

from headstart import ops
from headstart.denoiser import Denoiser, Preconditioned
from headstart.io.keyword import gather
from headstart.sampling.edge import broken, check_denoiser, settle, sound, warn_unless_finite
from headstart.sampling.loop import Descent, Origin, evaluations
from headstart.sampling.request import initial_history, initial_state, require_sizes, require_state, resolve_rows
from headstart.solver import DPMpp2M, Solver
from headstart.solver.plan import Plan
from headstart.start.protocol import Start

if TYPE_CHECKING:
    from typing_extensions import Unpack

WARM_UPS = 2  # calls before the capture: libraries choose algorithms, and every kernel is loaded
_abandoned: list[torch.cuda.CUDAGraph] = []  # torch's allocator goes on referring to a graph whose capture failed


class NotCaptured(Exception):
    """Why a function was not captured."""


class Capture:
    """The kernels that `run()` queues, as one CUDA graph with its own memory.

    Args:
        run: takes its input from tensors that stay where they are, and returns a tensor on `device`.
        device: where it runs.

    Raises:
        NotCaptured: the device is not CUDA, `run` waits for the device, or the capture failed.
    """

    def __init__(self, run: Callable[[], Tensor], device: torch.device) -> None:
        if device.type != "cuda":
            raise NotCaptured(f"the state is on {device.type}, a CUDA graph needs a CUDA device")
        with torch.cuda.device(device), torch.no_grad(), uncached_autocast():
            stream = torch.cuda.Stream()
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):  # puts the stream back, which torch does not after a failed capture
                for _ in range(WARM_UPS):
                    run()
                if (place := first_wait(run)) is not None:
                    raise NotCaptured(f"the denoiser waits for the device at {place}")
                self.graph, self.result = record(run, stream)
            torch.cuda.current_stream().wait_stream(stream)
            self.done = torch.cuda.Event()
            self.done.record()
        self.device = device

    def __call__(self, fill: Callable[[], None]) -> Tensor:
        """Calls `fill()`, which writes the input, replays the graph and returns a copy of its result."""
        with torch.cuda.device(self.device):
            stream = torch.cuda.current_stream()
            stream.wait_event(self.done)  # the call before may still run on another stream
            fill()
            self.graph.replay()
            result = self.result.clone()
            self.done.record(stream)
        return result


@contextmanager
def uncached_autocast() -> Iterator[None]:
    """Autocast as it is, but without its cache of cast weights.

    A graph would replay reads of casts that the cache frees when the caller leaves autocast, and would not cast weights
    anew that have changed.
    """
    cached = torch.is_autocast_cache_enabled()
    torch.clear_autocast_cache()
    torch.set_autocast_cache_enabled(False)
    try:
        yield
    finally:
        torch.set_autocast_cache_enabled(cached)


def first_wait(run: Callable[[], Tensor]) -> str | None:
    """File and line of the first operation in `run()` that makes the host wait for the device, None without one.

    Asked before a capture, because a capture that fails leaves torch's allocator waiting for its end.
    """
    mode = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            run()
        finally:
            torch.cuda.set_sync_debug_mode(mode)
    places = [f"{w.filename}:{w.lineno}" for w in caught if "a synchronizing CUDA operation" in str(w.message)]
    return places[0] if places else None


def record(run: Callable[[], Tensor], stream: torch.cuda.Stream) -> tuple[torch.cuda.CUDAGraph, Tensor]:
    """The graph of `run()`, and its result, which every replay writes anew.

    Raises:
        NotCaptured: something in it cannot be captured.
    """
    graph = torch.cuda.CUDAGraph()
    generator = torch.cuda.default_generators[stream.device.index]
    before = generator.clone_state()
    try:
        with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
            result = run()
    except Exception as error:
        _abandoned.append(graph)
        revive(generator, before, stream.device)
        cause = error.__context__ or error  # the end of a failed capture raises an error of its own
        raise NotCaptured(f"the capture failed: {str(cause).strip() or type(cause).__name__}") from error
    return graph, result


def revive(generator: torch.Generator, before: torch.Generator, device: torch.device) -> None:
    """Makes torch's random numbers work again: some versions leave the generator waiting for a capture's end."""
    try:
        torch.rand(1, device=device, dtype=torch.float32)
    except RuntimeError:
        generator.graphsafe_set_state(before)


class SamplerKeywords(TypedDict, total=False):
    """Keyword arguments of `SamplerOptions`."""

    dtype: torch.dtype
    graph: bool
    plan: Plan | None


@dataclass(frozen=True)
class SamplerOptions:
    """Options of a sampler, as `Sampler` describes them."""

    dtype: torch.dtype = torch.float32
    graph: bool = True
    plan: Plan | None = None


class Sampler:
    """`sample` for one batch of fixed shapes, to be called many times.

    `sampler(seed, offset)` has the bits of `sample(..., n=batch, seed=seed, offset=offset)`. On a CUDA device all
    that follows the start's draw is captured into one CUDA graph: a call costs the host one launch instead of one a
    kernel, and reads seed and offset from device memory. Where that cannot be done (no CUDA device, a denoiser that
    waits for the device) the same loop runs as `sample` runs it, and `reason` says why.

    A graph repeats the kernels of its capture: what the denoiser decides in Python is decided once, and the network's
    weights are read from where they were. Calls queue on torch's current stream and do not wait for it. Threads must
    not share a sampler.

    Args:
        denoiser, start, steps, solver, grid, dtype, plan: as in `sample`.
        batch: samples a call.
        cond: keyword arguments of the denoiser, and their values in a call that gives none; `cond["label"]` also goes
            to a start that is conditional on classes. In a graph their tensors are on the state's device.
        graph: false: no graph (True).

    Attributes:
        batch: samples a call.
        nfe: network evaluations a sample, see `SampleInfo`.
        graphed: whether a call replays a graph.
        reason: why it does not, or None.
        broken: samples with NaN or infinity so far. On a CPU each call also warns, as `sample` does; on a GPU its
            calls do not wait: the count is kept there, and reading it waits.

    Raises:
        ValueError, TypeError: as `sample`; and to be pickled or copied with its graph.
    """

    def __init__(
        self, denoiser: Denoiser | Preconditioned, start: Start, steps: int | None = None, solver: Solver = DPMpp2M(),
        batch: int = 1, grid: Tensor | None = None, cond: Mapping[str, Any] | None = None,
        **options: Unpack[SamplerKeywords],
    ) -> None:  # fmt: skip
        asked = gather("Sampler", SamplerOptions, options)
        dtype, plan = asked.dtype, asked.plan
        check_denoiser("Sampler", denoiser)
        start, rows = resolve_rows("Sampler", start, steps, solver, grid, plan)
        _, batch = require_sizes("Sampler", start, 0, batch, None)
        require_state("Sampler", dtype, 0, 0, batch)
        cond = settle("Sampler", cond, batch, start)
        self.start, self.batch, self.dtype, self.nfe = start, batch, dtype, evaluations(denoiser, rows)
        self.plan, self.cond = plan, {name: held(value) for name, value in cond.items()}
        with torch.no_grad():
            self._x = initial_state(start, batch, 0, 0, None, self.cond).to(dtype)
            self._known = initial_history(plan, start, self._x, self.cond)
        device = self._x.device
        self._given = {name: held(value, device) for name, value in self.cond.items()}
        self._origin = torch.zeros(2, dtype=torch.int64, device=device)
        self._descent = Descent(denoiser, rows, dtype, device)
        self._broken = torch.zeros((), dtype=torch.int64, device=device)
        self._capture: Capture | None = None
        self.reason: str | None = "graph=False was given"
        if asked.graph:
            self._try_capture()
        self._broken.zero_()  # what warm-ups counted

    def _try_capture(self) -> None:
        try:
            self._capture, self.reason = Capture(self._run, self._x.device), None
        except NotCaptured as error:
            self.reason = str(error)
            warnings.warn(f"Sampler: runs without a CUDA graph: {error}", stacklevel=3)

    @property
    def graphed(self) -> bool:
        return self._capture is not None

    @property
    def broken(self) -> int:
        """Samples with NaN or infinity in all calls so far; waits for the device."""
        return int(self._broken)

    def __getstate__(self) -> dict[str, Any]:
        if self._capture is not None:
            raise TypeError(
                "Sampler: a CUDA graph cannot be copied or pickled; make the sampler anew where it is needed"
            )
        return self.__dict__

    def __call__(
        self, seed: int = 0, offset: int = 0, cond: Mapping[str, Any] | None = None, latents: Tensor | None = None
    ) -> Tensor:
        """Samples `offset .. offset + batch - 1` of `seed`, `[batch, *shape]`.

        Args:
            seed: in [0, 2^64).
            offset: index of the first sample.
            cond: other values of the conditions, tensors of the same shape and dtype; each left out keeps its own.
            latents: unit normals `[batch, *shape]` for a start that maps them, as in `sample`.

        Raises:
            ValueError, TypeError: an argument out of range, or a condition of another kind, shape or dtype than when
                the sampler was made; before any network call.
        """
        seed, offset = require_state("Sampler", self.dtype, seed, offset, self.batch)
        require_sizes("Sampler", self.start, self.batch, None, latents)
        cond = {**self.cond, **self._require_cond(self._settled(cond))}
        with torch.no_grad():
            x = initial_state(self.start, self.batch, seed, offset, latents, cond).to(self._x)
            known = initial_history(self.plan, self.start, x, cond)
            if self._capture is not None:
                return self._capture(lambda: self._fill(x, known, seed, offset, cond))
            before = 0 if x.is_cuda else self.broken
            out = self._counted(self._descent.run(x, Origin(seed, offset), cond, lambda: None, known)[0])
        if not out.is_cuda and self.broken > before:
            warn_unless_finite("Sampler", out)
        return out

    def _run(self) -> Tensor:
        origin = Origin(0, 0, self._origin)
        return self._counted(self._descent.run(self._x, origin, self._given, lambda: None, self._known)[0])

    def _counted(self, out: Tensor) -> Tensor:
        if out.is_cuda or not sound(out):
            self._broken += broken(out).sum()
        return out

    def _settled(self, cond: Mapping[str, Any] | None) -> dict[str, Any]:
        """A call's conditions in the form that they had when the sampler was made."""
        found = settle("Sampler", cond, self.batch) if cond else {}
        label, was = found.get("label"), self.cond.get("label")
        if isinstance(label, Tensor) and isinstance(was, Tensor) and label.device != was.device:
            found["label"] = label.to(was.device)
        return found

    def _fill(self, x: Tensor, known: list[Tensor], seed: int, offset: int, cond: dict[str, Any]) -> None:
        self._x.copy_(x)
        for buffer, denoised in zip(self._known, known, strict=True):
            buffer.copy_(denoised)
        self._origin[0].fill_(ops.library.signed(int(seed)))  # a kernel's argument: no copy from the host to wait for
        self._origin[1].fill_(offset)
        for name, buffer in self._given.items():
            if isinstance(buffer, Tensor):
                buffer.copy_(cond[name])

    def _require_cond(self, cond: Mapping[str, Any]) -> Mapping[str, Any]:
        for name, value in cond.items():
            if name not in self.cond:
                raise ValueError(f"Sampler: cond must be among {list(self.cond)}, given when it was made, got {name!r}")
            was = self.cond[name]
            if isinstance(was, Tensor):
                same = isinstance(value, Tensor) and value.shape == was.shape and value.dtype == was.dtype
                wanted = f"{str(was.dtype).removeprefix('torch.')} {list(was.shape)}"
                error = ValueError if isinstance(value, Tensor) else TypeError
            else:
                same = value is was or (isinstance(value, (bool, int, float, str)) and value == was)
                wanted, error = f"{was!r}, as when it was made", ValueError
            if not same:
                raise error(f"Sampler: cond[{name!r}] must be {wanted}, got {describe(value)}")
        return cond


def held(value: Any, device: torch.device | None = None) -> Any:
    """The sampler's own copy of a condition; what is no tensor as it is."""
    return value.to(device or value.device, copy=True) if isinstance(value, Tensor) else value


def describe(value: object) -> str:
    return ops.check.describe(value) if isinstance(value, Tensor) else repr(value)
