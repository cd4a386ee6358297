"""TarFlow: an autoregressive transformer flow over patches, a start at one sigma."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from headstart.argument import require_number
from headstart.fitting import FlowReport
from headstart.io.keyword import gather
from headstart.ops.library import exact
from headstart.start.check import check_data
from headstart.start.learn import TarFlowOptions, training_of
from headstart.start.noised_flow import Frame, NoisedFlow, restore, standardize, train
from headstart.start.tarflow_network import Architecture, TarFlowNetwork, check_architecture, make_tarflow_network

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from headstart.start.learn import TarFlowKeywords


def require_guidance(op: str, guidance: Any) -> float:
    """A strength of guidance: finite and at least 0."""
    value = require_number(op, "guidance", guidance)
    if not 0 <= value < math.inf:
        raise ValueError(f"{op}: guidance must be finite and at least 0, got {value}")
    return value


DROP, DECAY = 0.1, 1e-4  # share of labels dropped for guidance; weight decay


class TarFlow(NoisedFlow):
    """A transformer flow of noised images: blocks `z_t = (x_t - mu(x_<t)) exp(-alpha(x_<t))` over patches.

    `log p(x) = log N(z; 0, I) - sum alpha - D log scale`. A density costs one pass of the network; a sample costs a
    step of one token for each patch and block. Given the patches before it, no block mixes the values of one patch:
    small patches model more, and cost more. Sampling runs in float32 and no guidance enters `log_prob`.

    Reference: "Normalizing Flows are Capable Generative Models" (Zhai et al., 2024, https://arxiv.org/abs/2412.06329);
    the code is our own, and differs in that a learned start token conditions the first patch, which the paper leaves
    as it is, and in that data are centred and divided by their noised standard deviation, or by `scale`.
    """

    network: TarFlowNetwork

    def __init__(
        self, network: TarFlowNetwork, frame: Frame, report: FlowReport | None = None, guidance: float = 0.0
    ) -> None:
        super().__init__(network, frame, report)
        self.guidance = require_guidance("TarFlow", guidance)

    @classmethod
    @exact
    @torch.inference_mode(False)
    @torch.enable_grad()
    def fit(
        cls,
        data: Tensor,
        sigma: float,
        patch: int = 2,
        channels: int = 128,
        blocks: int = 4,
        layers: int = 2,
        **options: Unpack[TarFlowKeywords],
    ) -> TarFlow:
        """Fit by maximum likelihood to images noised at `sigma`, with AdamW, in bfloat16 on CUDA.

        The weights best on held-out points are kept. The same data and seed give the same flow on one machine, resumed
        or not (on the CPU).

        Args:
            data: clean images `[N, C, H, W]`, floating.
            sigma: noise level, above 0, in units of the data.
            patch: side of a patch; it divides H and W.
            channels: width of the transformer, up to 64 or a multiple of it.
            blocks: autoregressive maps, each over the patches in the order opposite to the one before.
            layers: transformer layers in a block.
            noise: `Fixed()`: one noised copy of the data; `Dynamic()`, the default: fresh noise at each epoch.
            epochs: most passes over the data (700).
            batch: images in a step (128).
            learning_rate: of AdamW (0.0003).
            heldout: share of the images held out (0.1).
            patience: epochs without a better held-out likelihood after which training stops (50); None: never.
            average: decay of the running average of the weights a step, such as 0.999; 0, the default: none.
            seed: seed of split, weights, order, noise and dropped labels (0).
            device: where to train; None: where the data is.
            progress: show a progress bar (False).
            checkpoint: file that the run is kept in and resumed from; None: none. Only a run of the same data and
                settings goes on from it; `epochs` and `patience` may differ.
            labels: classes `[N]` of integers from 0, a tenth of them dropped while training, for `guided`; or None.
            scale: divisor of the data, above 0; None: their noised standard deviation.

        Raises:
            ValueError: an argument out of its range, the checkpoint of another run, or a likelihood that diverges.
            TypeError: an unknown keyword.
        """
        asked, data = gather("fit", TarFlowOptions, options), check_data("fit", data)
        sizes = (patch, channels, blocks, layers)
        check_architecture(Architecture(tuple(data.shape[1:]), *sizes, 0))  # type: ignore[arg-type]
        points, frame = standardize(data, sigma, asked.labels, asked.device, asked.scale)
        classes = 0 if frame.class_weight is None else len(frame.class_weight)
        size = Architecture(frame.shape, *sizes, classes)  # type: ignore[arg-type]
        training = replace(
            training_of(asked),
            decay=DECAY, average=asked.average, drop=0.0 if asked.labels is None else DROP, bfloat16=True,
        )  # fmt: skip
        network = make_tarflow_network(size, asked.seed)
        report = train(network, points, frame, training, repr(size), asked.progress)
        return cls(network, frame, report)

    def guided(self, guidance: float) -> TarFlow:
        """This flow with class guidance `w` at sampling: `mu_c + w (mu_c - mu_0)`, and so for `alpha`; 0 is none.

        The weights are shared. 0.5 to 2 are usual; `sample` then follows no density that `log_prob` could give.

        Raises:
            ValueError: the flow has no classes, or `guidance` is negative or not finite.
        """
        if not self.conditional:
            raise ValueError("guided: this TarFlow was fitted without labels")
        return TarFlow(self.network, self.frame, self.report, require_guidance("guided", guidance))

    def invert(self, z: Tensor, label: Tensor | None) -> Tensor:
        return self.network.inverse(z, label, self.guidance)

    @classmethod
    def from_file(cls, header: dict[str, Any], tensors: dict[str, Tensor]) -> TarFlow:
        """The flow from a file's header and tensors."""
        config = header["network"]

        def build(shape: tuple[int, ...], classes: int) -> TarFlowNetwork:
            return make_tarflow_network(Architecture(shape, classes=classes, **config), seed=0)  # type: ignore[arg-type]

        return cls(*restore(header, tensors, build))
