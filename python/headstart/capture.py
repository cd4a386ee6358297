"""Capturing a function's kernels into a CUDA graph, or saying why that cannot be done."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
from torch import Tensor

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
        with torch.cuda.device(device), torch.no_grad():
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
        torch.rand(1, device=device)
    except RuntimeError:
        generator.graphsafe_set_state(before)
