"""How the ops live beside torch: its dispatcher, its autocast and precision settings, its threads."""

from __future__ import annotations

import ctypes
import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn import Parameter

from headstart import _core

P = ParamSpec("P")
R = TypeVar("R")
_library = torch.library.Library("headstart", "DEF")
_modes = torch._C._len_torch_dispatch_stack
_trace = torch._C._get_tracing_state
_included = torch._C._dispatch_tls_is_dispatch_key_included
_PRE_DISPATCH = torch._C.DispatchKey.PreDispatch
_transform = torch._C._functorch.peek_interpreter_stack


def define(schema: str, implementation: Callable[..., Any], fake: Callable[..., Any]) -> None:
    """Registers one op for CPU and CUDA. Eager code calls the implementation directly, which is faster."""
    name = schema.split("(", 1)[0]
    _library.define(schema)
    for key in ("CPU", "CUDA"):
        _library.impl(name, implementation, key)
    torch.library.register_fake(f"headstart::{name}", fake, lib=_library)


def signed(seed: int) -> int:
    """A 64-bit seed as the signed integer that op schemas carry."""
    return seed if seed <= 2**63 - 1 else seed - 2**64  # torch.compile compares within 64 bits


def _recorded() -> bool:
    return _modes() > 0 or _trace() is not None or _included(_PRE_DISPATCH)


def watched() -> bool:
    """Whether something sees torch's calls: `torch.compile`, a dispatch mode, a tracer, a transform of functions.

    A kernel called by address is invisible to all of these.
    """
    return torch.compiler.is_compiling() or _recorded() or _transform() is not None or forward_ad._current_level >= 0


def is_plain(tensor: Tensor) -> bool:
    """Whether its memory holds its values: no subclass that dispatches, meta tensor, wrapper, lazy negation or zero."""
    if type(tensor) not in (Tensor, Parameter) and torch._C._dispatch_keys(tensor).has(torch._C.DispatchKey.Python):
        return False
    try:
        return tensor.data_ptr() != 0 and not tensor.is_neg()
    except RuntimeError:  # wrappers of torch.func have no address
        return False


def is_odd(tensor: Tensor) -> bool:
    """Whether Python must not look into it: something watches torch's calls, or it is not plain."""
    return watched() or (tensor.numel() > 0 and not is_plain(tensor))


def dispatched(op: str, *tensors: Tensor | None) -> bool:
    """Whether a call must go through torch's dispatcher, which records it, or resolves what is not plain.

    Raises:
        RuntimeError: inside `torch.func`'s transforms or forward-mode differentiation, which the ops have no rules for.
    """
    if torch.compiler.is_compiling():
        return True
    given = [tensor for tensor in tensors if tensor is not None]
    if _transform() is not None or any(map(torch._is_functional_tensor, given)):
        raise RuntimeError(f"{op}: must be called outside of torch.func transforms (vmap, grad, functionalize)")
    if forward_ad._current_level >= 0 and any(forward_ad.unpack_dual(x).tangent is not None for x in given):
        raise RuntimeError(f"{op}: must be given tensors without tangents, such as unpack_dual(x).primal")
    return _recorded() or not all(is_plain(x) for x in given if x.numel())


def autocasting() -> bool:
    """Whether autocast is on for a device that the ops run on."""
    return torch.is_autocast_enabled("cpu") or torch.is_autocast_enabled("cuda")


def exact(function: Callable[P, R]) -> Callable[P, R]:
    """Decorator: the function's own algebra keeps its dtypes, whatever autocast it is called under.

    For functions that call no network: a network's calls stay as the user wants them.
    """

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        if not autocasting():
            return function(*args, **kwargs)
        with torch.autocast("cpu", enabled=False), torch.autocast("cuda", enabled=False):
            return function(*args, **kwargs)

    return run


def multiplied(a: Tensor, b: Tensor) -> Tensor:
    """`a @ b` at the full precision of its dtype.

    Where torch may round float32 products (`torch.set_float32_matmul_precision`, a setting of the whole process that a
    library must not change under other threads), they are made in float64.
    """
    if a.dtype is not torch.float32 or not rounds_products(a.device):
        return a @ b
    return (a.double() @ b.double()).float()


def rounds_products(device: torch.device) -> bool:
    """Whether torch may round the factors of float32 matrix products on this device to TF32 or bfloat16."""
    backend = torch.backends.cuda if device.type == "cuda" else torch.backends.mkldnn
    setting = getattr(getattr(backend, "matmul", None), "fp32_precision", None)
    if setting is None:  # torch < 2.9; later it refuses this question after a mix of old and new settings
        return torch.get_float32_matmul_precision() != "highest"
    return setting not in ("none", "ieee")


def share_threads() -> bool:
    """Hands torch's GNU OpenMP runtime to the kernels; False where torch has none (then they start plain threads)."""
    maps = Path("/proc/self/maps")
    if not maps.exists():
        return False
    paths = {line.split(maxsplit=5)[-1].strip() for line in maps.read_text().splitlines() if "libgomp" in line}
    torch_first = sorted(paths, key=lambda path: "torch" not in path)
    if not torch_first:
        return False
    runtime = ctypes.CDLL(torch_first[0])
    names = ("GOMP_parallel", "omp_get_thread_num", "omp_get_num_threads")
    parallel, thread, team = (ctypes.cast(getattr(runtime, name), ctypes.c_void_p).value or 0 for name in names)
    _core.set_openmp(parallel, thread, team)
    os.register_at_fork(after_in_child=lambda: _core.set_openmp(0, 0, 0))  # GNU OpenMP hangs in a forked child
    return True
