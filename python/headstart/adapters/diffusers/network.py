"""A network of diffusers and its scheduler as a denoiser.

A saved network of diffusers and its scheduler, read from a folder: nothing is downloaded, no pickle is opened.
"""

from __future__ import annotations

import inspect
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from headstart.adapters.diffusers.schedule import Schedule, schedule_of
from headstart.argument import require_path
from headstart.denoiser import Preconditioning, denoise
from headstart.io.bound import MAX_TEXT_BYTES, DataError, brief, parse_json, read_bytes
from headstart.ops.check import require_device

ADDED = ("text_embeds", "time_ids", "image_embeds")  # what a text-conditioned U-Net takes in one dict


class DiffusersNetwork:
    """The denoiser that `denoiser` makes.

    Attributes:
        net: the network of diffusers.
        schedule: how its noise levels and timesteps read.
        dtype: of its weights.
        shape: of one sample, where its configuration says it.
        classes: number of classes, where it has them.
    """

    def __init__(
        self, net: Any, schedule: Schedule, whole_timesteps: bool, timestep_scale: float, null_label: int | None
    ) -> None:
        self.net, self.schedule, self.dtype = net, schedule, net.dtype
        self.whole_timesteps, self.timestep_scale, self.null_label = whole_timesteps, timestep_scale, null_label
        self.shape = shape_of(net.config)
        taken = list(inspect.signature(net.forward).parameters.values())[1:]
        self._takes = {parameter.name for parameter in taken}
        classes = (net.config.get(name) for name in ("num_embeds_ada_norm", "num_class_embeds"))
        self.classes: int | None = next(filter(None, classes), None) if "class_labels" in self._takes else None
        self._needs = [p.name for p in taken if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD]

    def to(self, device: torch.device | str) -> DiffusersNetwork:
        """This network, moved."""
        self.net.to(device)
        return self

    def preconditioning(self, sigma: float) -> Preconditioning:
        """Coefficients at one noise level; `c_noise` is the timestep.

        Raises:
            ValueError: a level above the highest of the schedule.
        """
        if sigma > self.schedule.sigma_max * (1 + 1e-3):
            raise ValueError(f"denoiser: sigma must be at most {self.schedule.sigma_max:g}, got {sigma:g}")
        found = self.schedule.preconditioning(sigma)
        return found._replace(c_noise=float(round(found.c_noise))) if self.whole_timesteps else found

    def raw(self, x: Tensor, c_noise: Tensor, label: Tensor | None = None, **cond: Any) -> Tensor:
        """What the network predicts.

        Args:
            x: `c_in` times the state, `[B, *shape]`.
            c_noise: timesteps, 0-dim or `[B]`.
            label: classes `[B]`; None: `null_label`.
            cond: other arguments of the network, whose tensors of one row serve every sample; they go to the state's
                device, floating ones in the network's dtype.

        Raises:
            ValueError: an argument that the network needs is not among them.
        """
        n = x.shape[0]
        timestep = c_noise.long() if self.whole_timesteps else self.timestep_scale * c_noise
        given = {name: spread(value, n, x) for name, value in cond.items()}
        if "added_cond_kwargs" in self._takes and any(name in given for name in ADDED):
            given["added_cond_kwargs"] = {name: given.pop(name) for name in ADDED if name in given}
        if label is None and self.null_label is not None:
            label = torch.full((n,), self.null_label, device=x.device, dtype=torch.int64)
        if label is not None:
            given["class_labels"] = label.to(x.device)
        for name in self._needs:
            if name not in given and name != "timestep":
                raise ValueError(f"denoiser: cond must have {name!r}, which {type(self.net).__name__} needs")
        raw = self.net(x, timestep=timestep.expand(n), return_dict=False, **given)[0]
        learns_variance = raw.dim() > 1 and raw.shape[1] == 2 * x.shape[1]
        return raw[:, : x.shape[1]].contiguous() if learns_variance else raw

    def __call__(self, x: Tensor, sigma: Tensor | float, **cond: Any) -> Tensor:
        """`D(x, sigma)` by itself, for levels `sigma` that are scalar or `[B]`, one a sample."""
        return denoise(self, x, sigma, **cond)


def denoiser(
    model: Any, scheduler: Any, whole_timesteps: bool | None = None, timestep_scale: float = 1.0,
    null_label: int | None = None,
) -> DiffusersNetwork:  # fmt: skip
    """The denoiser `D = c_skip x + c_out F(c_in x, timestep)` of a network of diffusers, in variance-exploding terms.

    With `sigma^2 = 1/abar - 1` of the scheduler's alphas, `c_in = 1/sqrt(1 + sigma^2)`, and

        epsilon      c_skip = 1                  c_out = -sigma
        v            c_skip = 1/(1 + sigma^2)    c_out = -sigma/sqrt(1 + sigma^2)
        sample       c_skip = 0                  c_out = 1
        flow         c_skip = 1/(1 + sigma)      c_out = -sigma/(1 + sigma)          c_in = 1/(1 + sigma)

    and EDM's factors for the EDM schedulers. The factors are folded into the solver's rows. Of a network that also
    predicts a variance (2C channels) the mean is taken. `clip_sample` of the scheduler is not applied: a clipped
    prediction is no posterior mean. Noise above the scheduler's highest level is refused; with zero terminal SNR that
    is the last level with signal.

    Args:
        model: `UNet2DModel`, `UNet2DConditionModel`, `DiTTransformer2DModel`, or another network called as
            `model(x, timestep=t, **cond, return_dict=False)`, such as `SD3Transformer2DModel`.
        scheduler: the one it was trained with: any that has `alphas_cumprod`, a FlowMatch or an EDM one.
        whole_timesteps: round timesteps to integers. None: where the network looks them up in a table; others
            take any real number, which is what a noise level between two timesteps is.
        timestep_scale: factor of the timestep, 1 for most, 0.001 for those that take `t` in [0, 1], such as
            `FluxTransformer2DModel`.
        null_label: class that stands for none, used when `cond` has no label. None: the last row of a DiT's table,
            and for other networks there is none.

    `cond` takes the network's own arguments by their names (`encoder_hidden_states`, `pooled_projections`, also
    `text_embeds` and `time_ids`), and `label` `[B]` for its `class_labels`.

    Raises:
        TypeError: a scheduler of another kind, or a model that is no network of diffusers.
        ValueError: a network in training mode, a scheduler that thresholds, another prediction type.

    References: see `schedule.Diffusion` and `schedule.Flow`.
    """
    if not isinstance(model, torch.nn.Module) or not hasattr(model, "config"):
        raise TypeError(f"denoiser: model must be a network of diffusers, got {type(model).__name__}")
    if model.training:
        raise ValueError("denoiser: model must be in evaluation mode, got training mode; call model.eval()")
    if isinstance(scheduler, type):
        raise TypeError(f"denoiser: scheduler must be an object, got the class {scheduler.__name__}")
    if getattr(scheduler, "config", {}).get("thresholding"):
        raise ValueError(
            f"denoiser: {type(scheduler).__name__} thresholds predictions by quantiles of the sample, which are no "
            "posterior mean; give one made with thresholding=False"
        )
    config: Any = model.config
    if whole_timesteps is None:
        whole_timesteps = config.get("time_embedding_type") == "learned"
    if null_label is None and type(model).__name__ == "DiTTransformer2DModel":
        null_label = config["num_embeds_ada_norm"]
    return DiffusersNetwork(model, schedule_of(scheduler), whole_timesteps, timestep_scale, null_label)


def shape_of(config: Any) -> tuple[int, ...] | None:
    """`(channels, height, width)` of a configuration that has them."""
    size, channels = config.get("sample_size"), config.get("in_channels")
    if size is None or channels is None:
        return None
    return (channels, size, size) if isinstance(size, int) else (channels, *size)


def spread(value: Any, n: int, like: Tensor) -> Any:
    """A tensor on the device of `like`, in its dtype where both float, one row for all as a row for each of `n`."""
    if isinstance(value, Tensor):
        value = value.to(like.device, like.dtype if value.is_floating_point() else None)
    single = isinstance(value, Tensor) and value.dim() > 0 and value.shape[0] == 1 and n > 1
    return value.expand(n, *value.shape[1:]) if single else value


PARTS = ("unet", "transformer", "")  # folders of the network in a pipeline's; "": the folder itself


def load(
    path: str | Path, device: torch.device | str = "cpu", dtype: torch.dtype | None = None, **options: Any
) -> DiffusersNetwork:
    """The denoiser of a folder that `save_pretrained` wrote: a pipeline's, or one with `config.json` and a scheduler.

    Args:
        path: a folder with `unet` or `transformer` (or the network itself), and `scheduler` (or
            `scheduler_config.json` itself).
        device: where the weights go.
        dtype: of the weights; None: float32.
        options: `whole_timesteps`, `timestep_scale` and `null_label` of `denoiser`.

    Raises:
        ImportError: diffusers is not installed.
        FileNotFoundError: no such folder, or one without network, scheduler or safetensors weights.
        ValueError: a configuration that names no network or scheduler of diffusers; as `denoiser`.
    """
    folder, device = require_path("load", path), require_device("load", device)
    if not folder.is_dir():
        raise FileNotFoundError(2, "no such folder", str(path))
    place = next((folder / part for part in PARTS if (folder / part / "config.json").is_file()), None)
    if place is None:
        raise FileNotFoundError(
            2, "holds no network (unet/config.json, transformer/config.json, config.json)", str(path)
        )
    if not any(place.glob("*.safetensors")):
        raise FileNotFoundError(2, "holds no safetensors weights; pickles are not opened", str(place))
    rules = next(
        (folder / part for part in ("scheduler", "") if (folder / part / "scheduler_config.json").is_file()), None
    )
    if rules is None:
        raise FileNotFoundError(2, "holds no scheduler (scheduler/scheduler_config.json)", str(path))
    network_class = class_of(place / "config.json", "ModelMixin")
    scheduler = class_of(rules / "scheduler_config.json", "SchedulerMixin").from_pretrained(
        rules, local_files_only=True
    )
    network = network_class.from_pretrained(
        place, local_files_only=True, use_safetensors=True, torch_dtype=dtype,
        low_cpu_mem_usage=find_spec("accelerate") is not None,  # asked for without accelerate, it warns
    )  # fmt: skip
    return denoiser(network.to(device).eval().requires_grad_(False), scheduler, **options)


def class_of(config: Path, kind: str) -> Any:
    """The class of diffusers that a configuration names, a `ModelMixin` or a `SchedulerMixin`.

    Raises:
        ImportError: diffusers is not installed.
        ValueError: it names none.
    """
    try:
        import diffusers
    except ImportError:
        raise ImportError('reading a diffusers folder needs diffusers: pip install "headstart[diffusers]"') from None
    try:
        name = parse_json(read_bytes(config, MAX_TEXT_BYTES), config).get("_class_name")
    except (DataError, AttributeError) as error:
        reason = f" ({error})" if isinstance(error, DataError) else ""
        raise ValueError(f"{config}: must be a configuration in JSON{reason}") from None
    found = getattr(diffusers, name, None) if isinstance(name, str) else None
    if not (isinstance(found, type) and issubclass(found, getattr(diffusers, kind))):
        raise ValueError(f"{config}: _class_name must be a {kind} of diffusers, got {brief(name)}")
    return found
