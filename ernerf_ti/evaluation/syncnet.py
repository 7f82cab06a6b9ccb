"""SyncNet [Chung and Zisserman 2016]: how well lip motion matches the sound.

Two networks embed five frames of a face, and the 20 cepstra of the same 200 ms, so that matching pairs are close.
Layers, inputs and weight names are those of the published `syncnet_v2.model`.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

FACE_SIDE = 224
"""Width and height of a face crop in pixels."""
FRAMES, STEPS = 5, 20
"""Frames and cepstra per window."""
SHIFTS = 15
"""Largest shift of the sound in frames, in either direction, in the search for the offset."""

_STEPS_PER_FRAME = 4
_Size = int | tuple[int, ...]
_BATCH_SIZE = 24  # frames: 150 MB in the widest layer


class SyncNet(nn.Module):
    """Both networks, with the attribute names of the published file."""

    def __init__(self) -> None:
        super().__init__()
        self.netcnnaud = nn.Sequential(
            *_convolution(nn.Conv2d, 1, 64, 3, 1, padding=1),
            nn.Identity(),  # a 1x1 pooling in the published network; it counts in the numbering of the layers
            *_convolution(nn.Conv2d, 64, 192, 3, 1, padding=1),
            nn.MaxPool2d(3, (1, 2)),
            *_convolution(nn.Conv2d, 192, 384, 3, 1, padding=1),
            *_convolution(nn.Conv2d, 384, 256, 3, 1, padding=1),
            *_convolution(nn.Conv2d, 256, 256, 3, 1, padding=1),
            nn.MaxPool2d(3, 2),
            *_convolution(nn.Conv2d, 256, 512, (5, 4), 1),
        )
        self.netfcaud = _head()
        self.netcnnlip = nn.Sequential(
            *_convolution(nn.Conv3d, 3, 96, (FRAMES, 7, 7), (1, 2, 2)),
            nn.MaxPool3d((1, 3, 3), (1, 2, 2)),
            *_convolution(nn.Conv3d, 96, 256, (1, 5, 5), (1, 2, 2), padding=(0, 1, 1)),
            nn.MaxPool3d((1, 3, 3), (1, 2, 2), padding=(0, 1, 1)),
            *_convolution(nn.Conv3d, 256, 256, (1, 3, 3), 1, padding=(0, 1, 1)),
            *_convolution(nn.Conv3d, 256, 256, (1, 3, 3), 1, padding=(0, 1, 1)),
            *_convolution(nn.Conv3d, 256, 256, (1, 3, 3), 1, padding=(0, 1, 1)),
            nn.MaxPool3d((1, 3, 3), (1, 2, 2)),
            *_convolution(nn.Conv3d, 256, 512, (1, 6, 6), 1),
        )
        self.netfclip = _head()

    def faces(self, frames: Tensor) -> Tensor:
        """[3, T, 224, 224] BGR in [0, 255] -> [T - 4, 1024], one vector for every five consecutive frames.

        Only the first layer spans several frames, so that overlapping windows share the work of all others.
        """
        return self.netfclip(self.netcnnlip(frames[None])[0, :, :, 0, 0].T)

    def sounds(self, windows: Tensor) -> Tensor:
        """[N, 13, 20] cepstra -> [N, 1024]."""
        return self.netfcaud(self.netcnnaud(windows[:, None]).flatten(1))


@dataclass(frozen=True)
class Synchrony:
    """Synchrony of N windows of a video with its sound."""

    distances: np.ndarray
    """[N] between face and sound vectors, at the offset with the smallest mean distance."""
    typical: float
    """Median over the offsets of the mean distance."""
    offset: int
    """Delay of the sound in frames."""

    @property
    def confidences(self) -> np.ndarray:
        """[N] typical distance minus the window's own; their mean is the published confidence."""
        return self.typical - self.distances


@torch.no_grad()
def face_vectors(network: SyncNet, faces: Callable[[int], np.ndarray], n: int, device: torch.device | str) -> Tensor:
    """[n - 4, 1024] vectors of n face crops, on the CPU; `faces(i)` -> [224, 224, 3] uint8 RGB is called in batches."""
    vectors = []
    for start in range(0, n - FRAMES + 1, _BATCH_SIZE):
        batch = range(start, min(start + _BATCH_SIZE + FRAMES - 1, n))
        frames = torch.from_numpy(np.stack([faces(i)[..., ::-1] for i in batch])).to(device)
        vectors.append(network.faces(frames.permute(3, 0, 1, 2).float()).cpu())
    return torch.cat(vectors)


@torch.no_grad()
def sound_vectors(network: SyncNet, cepstra: np.ndarray, n: int, device: torch.device | str) -> Tensor:
    """[n, 1024] vectors of the first n windows of cepstra [T, 13], T >= 4 n + 16, on the CPU."""
    windows = torch.from_numpy(cepstra.T.astype(np.float32)).unfold(1, STEPS, _STEPS_PER_FRAME).transpose(0, 1)[:n]
    return torch.cat([network.sounds(batch.to(device)).cpu() for batch in windows.split(256)])


def synchrony(faces: Tensor, sounds: Tensor, shifts: int = SHIFTS) -> Synchrony:
    """Compare face vectors [N, D] with sound vectors [N, D] up to `shifts` windows earlier and later.

    The sound vectors are padded with zeros, as in the published evaluation.
    """
    padded = F.pad(sounds, (0, 0, shifts, shifts))
    # [2 shifts + 1, N]
    distances = torch.stack([F.pairwise_distance(faces, padded[k : k + len(faces)]) for k in range(2 * shifts + 1)])
    means = distances.mean(1)
    best = int(means.argmin())
    return Synchrony(distances[best].double().numpy(), float(means.median()), shifts - best)


def _convolution(
    kind: type, n_in: int, n_out: int, kernel: _Size, stride: _Size, padding: _Size = 0
) -> tuple[nn.Module, ...]:
    norm = nn.BatchNorm2d if kind is nn.Conv2d else nn.BatchNorm3d
    return kind(n_in, n_out, kernel, stride, padding), norm(n_out), nn.ReLU(inplace=True)


def _head() -> nn.Sequential:
    return nn.Sequential(nn.Linear(512, 512), nn.BatchNorm1d(512), nn.ReLU(), nn.Linear(512, 1024))
