"""Files of pretrained networks: the projects' own pickles, and the safetensors file that `convert` makes of one.

From a class name, constructor arguments and named tensors to a network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from headstart.adapters.edm import precondition
from headstart.adapters.edm.network import TYPES, Network
from headstart.adapters.edm.precondition import Precondition
from headstart.adapters.edm.song import DhariwalUNet, SongUNet
from headstart.adapters.edm.unet import MagnitudeUNet
from headstart.adapters.edm.unpickle import Record, read
from headstart.argument import require_path, shown
from headstart.io.bound import brief, memory_for, open_regular, require_memory
from headstart.ops.check import require_device
from headstart.start import file

COMMON = ("img_resolution", "img_channels", "label_dim", "use_fp16")
MODELS: dict[str, Callable[..., nn.Module]] = {"SongUNet": SongUNet, "DhariwalUNet": DhariwalUNet}


class Kind(NamedTuple):
    """A class of preconditioned networks in the projects' files.

    Attributes:
        own: arguments of its preconditioning, in the constructor's order after `COMMON`.
        make: the preconditioning from those and the file's tensors.
        model: its raw network's name in the file, and class unless an argument `model_type` says it.
        ignored: beginnings of the names of tensors that a denoiser does not need.
    """

    own: tuple[str, ...]
    make: Callable[[dict[str, Any], Mapping[str, Tensor]], Precondition]
    model: tuple[str, str] = ("model", "DhariwalUNet")
    ignored: tuple[str, ...] = ()

    @property
    def order(self) -> tuple[str, ...]:
        """Names of the constructor's first arguments."""
        return (*COMMON, *self.own, *(("model_type",) if self.model[0] == "model" else ()))


def iddpm(arguments: dict[str, Any], tensors: Mapping[str, Tensor]) -> Precondition:
    """iDDPM's preconditioning with the levels `u` that the file holds."""
    levels = tensors["u"].tolist()
    if len(levels) != arguments.get("M", 1000) + 1 or levels != sorted(levels, reverse=True) or levels[-1] != 0:
        raise ValueError("the levels u must be M + 1, descending to 0")
    return precondition.IDDPM(tuple(levels))


CLASSES = {
    "VPPrecond": Kind(
        ("beta_d", "beta_min", "M", "epsilon_t"), lambda given, _: precondition.VP(**given), ("model", "SongUNet")
    ),
    "VEPrecond": Kind(("sigma_min", "sigma_max"), lambda given, _: precondition.VE(**given), ("model", "SongUNet")),
    "iDDPMPrecond": Kind(("C_1", "C_2", "M"), iddpm, ignored=("u",)),
    "EDMPrecond": Kind(("sigma_min", "sigma_max", "sigma_data"), lambda given, _: precondition.EDMPretrained(**given)),
    "Precond": Kind(
        ("sigma_data", "logvar_channels"),
        lambda given, _: precondition.EDMPretrained(sigma_data=given.get("sigma_data", 0.5)),
        ("unet", "UNet"),
        ("logvar_",),
    ),
}


def build(name: str, arguments: Mapping[str, Any], tensors: Mapping[str, Tensor], dtype: torch.dtype) -> Network:
    """The network of class `name`, one of `CLASSES`, with the tensors of a file.

    Raises:
        ValueError, TypeError: an argument is unknown, missing or out of range, or tensors are missing, not known, or
            of another shape.
    """
    kind, own = CLASSES[name], {key: arguments[key] for key in CLASSES[name].own if key in arguments}
    if odd := [key for key, value in own.items() if not isinstance(value, (int, float))]:
        raise ValueError(f"{odd[0]} must be a number, got {own[odd[0]]!r}")
    try:
        net, factors = skeleton(name, arguments), kind.make(own, tensors)
        side, channels = arguments["img_resolution"], arguments["img_channels"]
    except KeyError as error:
        raise ValueError(f"there is no {error}") from None
    fill(net, tensors, f"{kind.model[0]}.", kind.ignored)
    net.eval().requires_grad_(False)
    if isinstance(net, MagnitudeUNet):
        net.fold()
    return Network(net, factors, (channels, side, side), arguments.get("label_dim", 0), dtype)


def skeleton(name: str, arguments: Mapping[str, Any]) -> nn.Module:
    """The raw network of class `name` without numbers, on the meta device.

    Raises:
        KeyError, ValueError, TypeError: an argument is missing, out of range, or unknown.
    """
    kind = CLASSES[name]
    rest = {key: value for key, value in arguments.items() if key not in kind.order}
    side, channels, labels = arguments["img_resolution"], arguments["img_channels"], arguments.get("label_dim", 0)
    with torch.device("meta"):
        if name == "Precond":
            return MagnitudeUNet(side, channels, labels, **rest)
        model = arguments.get("model_type", kind.model[1])
        if model not in MODELS:
            raise ValueError(f"model_type must be one of {', '.join(MODELS)}, got {model!r}")
        return MODELS[model](side, channels, channels * (2 if name == "iDDPMPrecond" else 1), labels, **rest)


def fill(net: nn.Module, tensors: Mapping[str, Tensor], prefix: str, ignored: tuple[str, ...]) -> None:
    """Puts the tensors named `prefix...` in their places, as float32; EDM2's gains stay as stored, it divides them so.

    Raises:
        ValueError: they are not those of the network, in name or shape.
    """
    wanted = {f"{prefix}{key}": value.shape for key, value in net.state_dict().items()}
    given = {key: value for key, value in tensors.items() if not key.startswith(ignored)} if ignored else dict(tensors)
    if odd := sorted(wanted.keys() ^ given.keys()):
        lack = "lacks" if odd[0] in wanted else "has no place for"
        raise ValueError(f"the network {lack} {odd[0]}" + (f" and {len(odd) - 1} more" if odd[1:] else ""))
    for key, value in given.items():
        if value.shape != wanted[key] or not value.is_floating_point():
            raise ValueError(f"{key} must be floats {list(wanted[key])}, got {value.dtype} {list(value.shape)}")
    wide = {key: value.detach().float().contiguous() if value.dim() else value for key, value in given.items()}
    state = {key.removeprefix(prefix): value for key, value in wide.items()}
    net.load_state_dict(state, assign=True)


FAMILY, KEY = "edm-network", "ema"


class Contents(NamedTuple):
    """What a file holds: the class of the preconditioned network, its constructor's arguments, and its tensors."""

    name: str
    arguments: dict[str, Any]
    tensors: dict[str, Tensor]


def load(path: str | Path, device: torch.device | str = "cpu", dtype: torch.dtype | None = None) -> Network:
    """The pretrained network in a file: a pickle of EDM or EDM2, or what `convert` made of one. No code in it is run.

    Args:
        path: the file.
        device: where the network goes.
        dtype: of convolutions and attention, float32 (None), or float16 as those projects run on GPUs, or bfloat16.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is truncated, foreign, of a later version, or its tensors are not those of its network.
        TypeError: another dtype.
    """
    dtype = torch.float32 if dtype is None else dtype
    if not isinstance(dtype, torch.dtype) or dtype not in TYPES:
        raise TypeError(f"load: dtype must be float32, float16 or bfloat16, got {shown(dtype)}")
    path, device = require_path("load", path), require_device("load", device)
    return made(path, contents(path), dtype).to(device)


def convert(source: str | Path, target: str | Path) -> None:
    """Writes the network of `source` as one safetensors file with a JSON header; it appears whole or not at all.

    Raises:
        FileNotFoundError, ValueError: as `load`.
        OSError: `target` cannot be written.
    """
    source, target = require_path("convert", source, "source"), require_path("convert", target, "target")
    found = contents(source)
    made(source, found, torch.float32)
    header = {"family": FAMILY, "class": found.name, "arguments": found.arguments, "key": KEY}
    file.write(target, header, found.tensors)


def made(path: Path, found: Contents, dtype: torch.dtype) -> Network:
    """The network of `found`.

    Raises:
        ValueError: arguments and tensors do not make one.
    """
    try:
        require_bounds(found.arguments, found.tensors)
        with memory_for(path):
            return build(found.name, found.arguments, found.tensors, dtype)
    except (ValueError, TypeError, ArithmeticError, RuntimeError) as error:
        raise ValueError(f"load: {path} is damaged or of another version: {brief(error, 300)}") from None


def contents(path: Path) -> Contents:
    """What the file at `path` holds.

    Raises:
        FileNotFoundError, ValueError: as `load`.
    """
    try:
        with open_regular(path) as handle:
            head = handle.read(9)
    except FileNotFoundError:
        raise FileNotFoundError(2, "no such file", str(path)) from None
    if head[8:] == b"{":
        return from_safetensors(path)
    if head[:1] == b"\x80":
        return from_pickle(path)
    kind = "a file of torch.save" if head[:2] == b"PK" else "empty" if not head else "of another kind"
    raise ValueError(f"load: {path} is no pickle of EDM or EDM2 and no safetensors file: it is {kind}")


def from_safetensors(path: Path) -> Contents:
    header, tensors = file.read(path)
    if header.get("family") != FAMILY:
        raise ValueError(f"load: {path} holds the family {brief(header.get('family'))}, not {FAMILY!r}")
    arguments = header.get("arguments")
    name = header.get("class")
    if not isinstance(arguments, dict) or not isinstance(name, str) or name not in CLASSES:
        raise ValueError(f"load: {path} holds a network of class {brief(name)}, known are {sorted(CLASSES)}")
    try:
        return Contents(name, plain(arguments), tensors)
    except (TypeError, ValueError) as error:
        raise ValueError(f"load: {path} is damaged: {error}") from None


def from_pickle(path: Path) -> Contents:
    whole = read(path)
    found = whole.get(KEY) if isinstance(whole, dict) else whole
    if not isinstance(found, Record):
        held = f"keys [{', '.join(map(brief, [*whole][:20]))}]" if isinstance(whole, dict) else brief(whole)
        raise ValueError(f"load: {path} holds no network under {KEY!r}, but {held}")
    if found.name not in CLASSES:
        raise ValueError(f"load: {path} holds a network of class {brief(found.name)}, known are {sorted(CLASSES)}")
    try:
        positional, named = found.state["_init_args"], found.state["_init_kwargs"]
        order = CLASSES[found.name].order
        if len(positional) > len(order):
            raise ValueError(f"{len(positional)} positional arguments")
        arguments = plain({**dict(zip(order, positional, strict=False)), **named})
        tensors = dict(tensors_of(found, "", Budget(MAX_MODULES, "modules")))
        require_memory(sum(4 * value.numel() for value in tensors.values()), path)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"load: {path} is damaged: {type(error).__name__} {brief(error, 300)}") from None
    return Contents(found.name, arguments, tensors)


MAX_MODULES, MAX_VALUES, MAX_DEPTH = 50_000, 1_000, 50  # of a network; of its constructor's arguments; of both
MAX_NUMBER = 2**20  # among a constructor's integers, ImageNet's 1000 classes being the largest in use


class Budget:
    """What is left of a number of things: a file may hold one thing in a thousand places, at each of fifty levels."""

    def __init__(self, most: int, things: str) -> None:
        self.left, self.things = most, things

    def take(self, depth: int) -> None:
        """One more thing.

        Raises:
            ValueError: none are left, or it lies too deep.
        """
        self.left -= 1
        if self.left < 0 or depth > MAX_DEPTH:
            raise ValueError(f"too many {self.things}, or nested more than {MAX_DEPTH} deep")


def require_bounds(arguments: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Refuses arguments of a network that could not have the file's tensors, before that network is made.

    Raises:
        ValueError: a number above `MAX_NUMBER`, or more blocks than the file has tensors.
    """
    pending = [*arguments.items()]
    while pending:
        name, value = pending.pop()
        pending += [(name, item) for item in value] if isinstance(value, list) else []
        if isinstance(value, int) and abs(value) > MAX_NUMBER:
            raise ValueError(f"{name} must be at most {MAX_NUMBER:,}, got {brief(value)}")
    levels, blocks = arguments.get("channel_mult", ()), arguments.get("num_blocks", 1)
    depth = max(len(levels), 1) if isinstance(levels, list) else 1
    if isinstance(blocks, int) and max(blocks, 1) * depth > len(tensors):
        raise ValueError(f"num_blocks is {blocks} at {depth} levels, but the file has {len(tensors)} tensors")


def tensors_of(record: Record, prefix: str, budget: Budget, depth: int = 0) -> Iterator[tuple[str, Tensor]]:
    """Parameters and buffers of a module and its children, by the names that torch gives them.

    Raises:
        ValueError: too many modules, or nested too deep.
    """
    budget.take(depth)
    for kind in ("_parameters", "_buffers"):
        for name, value in table(record, kind).items():
            budget.take(depth)
            if isinstance(value, Tensor):
                yield f"{prefix}{name}", value
    for name, child in table(record, "_modules").items():
        if isinstance(child, Record):
            yield from tensors_of(child, f"{prefix}{name}.", budget, depth + 1)


def table(record: Record, kind: str) -> Mapping[str, Any]:
    value = record.state[kind]
    if not isinstance(value, dict):
        raise TypeError(f"{kind} is a {type(value).__name__}")
    return value


def plain(value: Any, budget: Budget | None = None, depth: int = 0) -> Any:
    """Constructor arguments as JSON values.

    Raises:
        TypeError: an argument is neither a number, text, None nor a list or dictionary of those.
        ValueError: too many of them, or nested too deep.
    """
    budget = Budget(MAX_VALUES, "constructor arguments") if budget is None else budget
    budget.take(depth)
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    if isinstance(value, (list, tuple)):
        return [plain(item, budget, depth + 1) for item in value]
    if isinstance(value, dict):
        return {str(name): plain(item, budget, depth + 1) for name, item in value.items()}
    raise TypeError(f"a constructor argument is a {type(value).__name__}")
