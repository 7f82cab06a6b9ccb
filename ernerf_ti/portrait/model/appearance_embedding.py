"""Appearance embeddings: what differs between training frames and is neither pose, speech nor eye closure."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ernerf_ti.portrait.frame_index import FrameIndex, row

_DEVIATION = 0.1  # of the initial embeddings


class AppearanceEmbedding(nn.Module):
    """A learned vector per training frame [NeRF in the Wild, Martin-Brualla et al. 2021, section 4.1].

    Args:
        n_embeddings: number of training frames, at least 1.
        size: length of an embedding.
        smoothing: number of frames in the Hann-weighted mean that is the embedding of a frame, odd; 1 takes the frame's
            own vector. A short training visits each frame rarely; smoothing lets it learn what changes slowly from
            many frames.

    Raises ValueError for no training frame, or an even smoothing.
    """

    _weights: Tensor

    def __init__(self, n_embeddings: int, size: int, smoothing: int = 1):
        super().__init__()
        if n_embeddings < 1:
            raise ValueError(f"n_embeddings: expected at least 1, got {n_embeddings}; pass the training frames")
        if smoothing < 1 or smoothing % 2 == 0:
            raise ValueError(f"appearance_smoothing: expected an odd number, got {smoothing}; pass 1 for no smoothing")
        self.embeddings = nn.Parameter(torch.randn(n_embeddings, size) * _DEVIATION)
        """[n, size] before smoothing."""
        self._half = smoothing // 2
        self.register_buffer("_weights", torch.hann_window(smoothing + 2, periodic=False)[1:-1], persistent=False)

    def forward(self, index: FrameIndex | None) -> Tensor:
        """[size] embedding of a training frame, or the mean embedding for None.

        Raises ValueError if a number is out of range.
        """
        if index is None:
            return self.embeddings.mean(0)
        n = len(self.embeddings)
        if isinstance(index, Tensor):
            if self._half == 0:
                return row(self.embeddings, index)
            rows = index + torch.arange(-self._half, self._half + 1, device=index.device)
            weights = torch.where((rows >= 0) & (rows < n), self._weights, 0.0)
            return weights @ self.embeddings.index_select(0, rows.clamp(0, n - 1)) / weights.sum()
        if not 0 <= index < n:
            raise ValueError(
                f"appearance_index: expected 0 to {n - 1}, got {index}; pass None for a frame that was not trained on"
            )
        if self._half == 0:
            return self.embeddings[index]
        begin, end = max(0, index - self._half), min(n, index + self._half + 1)
        weights = self._weights[begin - index + self._half : end - index + self._half]
        return weights @ self.embeddings[begin:end] / weights.sum()

    def of_all_frames(self) -> Tensor:
        """[n, size] embeddings of all training frames."""
        weights = self._weights.expand(self.embeddings.shape[1], 1, -1)
        rows = torch.stack((self.embeddings.t(), torch.ones_like(self.embeddings).t()))
        sums, totals = F.conv1d(rows, weights, padding=self._half, groups=len(weights))
        return (sums / totals).t()
