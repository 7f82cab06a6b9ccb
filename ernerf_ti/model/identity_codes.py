"""Codes that take up what differs between training frames and is neither pose, speech nor blink."""

import torch
from torch import Tensor, nn

_DEVIATION = 0.1  # of the codes at first


class IdentityCodes(nn.Module):
    """A learned code per training frame.

    Args:
        n_identities: training frames, at least 1.
        size: of a code.
    """

    def __init__(self, n_identities: int, size: int):
        super().__init__()
        if n_identities < 1:
            raise ValueError(f"n_identities: expected at least 1, got {n_identities}; pass the training frames")
        self.codes = nn.Parameter(torch.randn(n_identities, size) * _DEVIATION)

    def forward(self, index: int | None) -> Tensor:
        """[size] code of a training frame, or the mean of all for None.

        Raises ValueError if the index is not of a code.
        """
        if index is None:
            return self.codes.mean(0)
        if not 0 <= index < len(self.codes):
            raise ValueError(
                f"identity_index: expected 0 to {len(self.codes) - 1}, got {index}; "
                "pass None for a frame that was not trained on"
            )
        return self.codes[index]
