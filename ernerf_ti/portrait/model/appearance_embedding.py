"""Codes that take up what differs between training frames and is neither pose, speech nor blink."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_DEVIATION = 0.1  # of the codes at first


class AppearanceEmbedding(nn.Module):
    """A learned code per training frame.

    Args:
        n_embeddings: training frames, at least 1.
        size: of a code.
        smoothing: frames in the weighted mean (Hann) that is the code of a frame, odd; 1 for the frame's own alone.
            What changes slowly is learned from many frames so, each of which is met seldom.

    Raises ValueError for no training frame, or an even smoothing.
    """

    def __init__(self, n_embeddings: int, size: int, smoothing: int = 1):
        super().__init__()
        if n_embeddings < 1:
            raise ValueError(f"n_embeddings: expected at least 1, got {n_embeddings}; pass the training frames")
        if smoothing < 1 or smoothing % 2 == 0:
            raise ValueError(f"appearance_smoothing: expected an odd number, got {smoothing}; pass 1 for no smoothing")
        self.codes = nn.Parameter(torch.randn(n_embeddings, size) * _DEVIATION)
        """[n, size] before smoothing."""
        self._half = smoothing // 2
        self.register_buffer("_weights", torch.hann_window(smoothing + 2, periodic=False)[1:-1], persistent=False)

    def forward(self, index: int | None) -> Tensor:
        """[size] code of a training frame, or the mean of all for None.

        Raises ValueError if the index is not of a code.
        """
        if index is None:
            return self.codes.mean(0)
        if not 0 <= index < len(self.codes):
            raise ValueError(
                f"appearance_index: expected 0 to {len(self.codes) - 1}, got {index}; "
                "pass None for a frame that was not trained on"
            )
        if self._half == 0:
            return self.codes[index]
        begin, end = max(0, index - self._half), min(len(self.codes), index + self._half + 1)
        weights = self._weights[begin - index + self._half : end - index + self._half]
        return weights @ self.codes[begin:end] / weights.sum()

    def of_all_frames(self) -> Tensor:
        """[n, size] codes of the training frames."""
        weights = self._weights.expand(self.codes.shape[1], 1, -1)
        rows = torch.stack((self.codes.t(), torch.ones_like(self.codes).t()))
        sums, totals = F.conv1d(rows, weights, padding=self._half, groups=len(weights))
        return (sums / totals).t()
