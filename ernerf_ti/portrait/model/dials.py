"""Expression dials: further conditions beside the eye closure, each confined to its region of the face.

A dial is a number d, 0 where the face is neutral. The density network takes, for each dial, d times a weight of the
point: a learned gate in (0, 1), as region attention gives the eye closure, times a fixed mask. The mask is 0 outside
boxes in the face's frontal view, so that a dial changes nothing there whatever is learned, even if it goes along with
blinks or speech in the recording.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from ernerf_ti.portrait.model.mlp import MLP

BOXES_PER_DIAL = 2
MARGIN = 0.016
"""Scene units, 4 mm: how far outside a box its mask falls from 1 to 0."""


class FoldedDials(NamedTuple):
    """What dials add to a linear layer of H units: mixed (reach sigmoid(gates relu(hidden x)))."""

    hidden: Tensor
    """[K, n_features]."""
    gates: Tensor
    """[D, K]."""
    mixed: Tensor
    """[H, D]."""


class Dials(nn.Module):
    """The weights of D dials.

    Args:
        n_dials: D.
        n_features: features of a point.
        width: hidden units of the gates.
    """

    boxes: Tensor

    def __init__(self, n_dials: int, n_features: int, width: int):
        super().__init__()
        self.gates = MLP(n_features, width, n_dials, 2)
        self.register_buffer("boxes", torch.zeros(n_dials, BOXES_PER_DIAL, 2, 2))
        """[D, 2, 2, 2] two boxes for each dial, each with its lowest and its highest x and z (up, and to the right),
        scene units; they reach through the whole depth. Set before training."""

    def __len__(self) -> int:
        return len(self.boxes)

    def reach(self, positions: Tensor, values: Tensor) -> Tensor:
        """[D, M] values [D] of the dials times their masks at positions [M, 3] in the scene."""
        low, high = self.boxes.to(positions.dtype).unbind(2)
        at = positions[:, ::2].t()
        outside = torch.maximum(low[..., None] - at, at - high[..., None]) / MARGIN  # [D, 2, 2, M]
        inside = 1 - outside.clamp(0, 1)
        mask = (inside.square() * (3 - 2 * inside)).prod(2).amax(1)
        return mask * values[:, None].to(mask.dtype)

    def forward(self, features: Tensor, reach: Tensor, out: Tensor | None = None) -> Tensor:
        """[M, D] what the density network takes of each dial; channel-major in memory.

        Args:
            features: [M, n_features].
            reach: [D, M] as of :meth:`reach`.
            out: [D, M] contiguous, for the result; without gradients only.
        """
        gates = self.gates(features, out=out)
        if out is None:
            return gates.sigmoid() * reach.t().to(gates.dtype)
        return gates.sigmoid_().mul_(reach.t())

    def folded(self, columns: Tensor) -> FoldedDials:
        """What dials add to a linear layer, whose columns [H, D] take what :meth:`forward` returns."""
        return FoldedDials(self.gates.first_weight, self.gates.last_weight, columns)
