"""From a class name, constructor arguments and named tensors to a network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from headstart.adapters.edm import precondition
from headstart.adapters.edm.dhariwal import DhariwalUNet
from headstart.adapters.edm.network import Network
from headstart.adapters.edm.precondition import Precondition
from headstart.adapters.edm.song import SongUNet
from headstart.adapters.edm.unet import UNet

COMMON = ("img_resolution", "img_channels", "label_dim", "use_fp16")
MODELS: dict[str, Callable[..., nn.Module]] = {"SongUNet": SongUNet, "DhariwalUNet": DhariwalUNet}


class Kind(NamedTuple):
    """A class of preconditioned networks in the projects' files.

    Fields:
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
    "EDMPrecond": Kind(("sigma_min", "sigma_max", "sigma_data"), lambda given, _: precondition.EDM(**given)),
    "Precond": Kind(
        ("sigma_data", "logvar_channels"),
        lambda given, _: precondition.EDM(sigma_data=given.get("sigma_data", 0.5)),
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
    if isinstance(net, UNet):
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
            return UNet(side, channels, labels, **rest)
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
