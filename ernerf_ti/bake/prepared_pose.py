"""What a baked portrait shows from one pose whatever is said, kept in little memory."""

from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from torch import Tensor

import taichi_kernels as tk
from ernerf_ti.portrait.render.alpha import over
from taichi_kernels.baked_grid import BakedSamples


@dataclass(frozen=True, eq=False)
class PreparedPose:
    """The stored part of the head and the torso from one pose, and where the dynamic samples lie.

    Of N pixels, D show M dynamic samples. At 256x256 a real speaker takes .7 MB. What is rounded to 8 bits is not
    multiplied by anything later, and what is kept in half precision changes a color by less than .001.
    """

    still: Tensor
    """[N, 4] uint8 premultiplied color and opacity: the whole portrait where there are no dynamic samples, and what is
    behind the head elsewhere."""
    pixels: Tensor
    """[D] int32, numbers of the pixels with dynamic samples, row by row."""
    counts: Tensor
    """[D] int16 dynamic samples."""
    before: Tensor
    """[D, 4] float16 run before the first dynamic sample: color times opacity, transmittance."""
    ts: Tensor
    """[M] distances to the dynamic samples."""
    deltas: Tensor
    """[M] float16 lengths of their steps."""
    after: Tensor
    """[M, 4] float16 run after a dynamic sample, as `before`."""

    @staticmethod
    def of(samples: BakedSamples, behind: Tensor | None) -> "PreparedPose":
        """Args:
        samples: of all N pixels.
        behind: [N, 4] premultiplied color and opacity of what is behind the head; None for nothing.
        """
        counts = samples.packed_info[:, 1]
        pixels = counts.nonzero()[:, 0]
        color, opacity = samples.before[:, :3], 1 - samples.before[:, 3]
        still = torch.cat((color, opacity[:, None]), 1)
        if behind is not None:
            still = over(still, opacity, behind)
        still[pixels] = 0.0 if behind is None else behind[pixels]
        return PreparedPose(
            (still.clamp(0, 1) * 255 + 0.5).to(torch.uint8),
            pixels.to(torch.int32),
            counts[pixels].to(torch.int16),
            samples.before[pixels, :4].half(),
            samples.ts,
            samples.deltas.half(),
            samples.after[:, :4].half(),
        )

    @property
    def n_bytes(self) -> int:
        """Memory that it takes."""
        return sum(getattr(self, each.name).nbytes for each in fields(self))

    def samples(
        self, pose: Tensor, intrinsics: tuple[float, float, float, float], width: int, bound: float
    ) -> BakedSamples:
        """The dynamic samples of the D pixels, without depths.

        Args:
            pose: [4, 4] pose_world_from_camera that it was prepared for.
            intrinsics: fx, fy, cx, cy in pixels.
            width: of the picture, pixels.
            bound: half side of the scene's cube.
        """
        counts = self.counts.int()
        packed_info = torch.stack((counts.cumsum(0, dtype=torch.int32) - counts, counts), 1)
        positions, directions = tk.place_samples(pose, intrinsics, width, self.pixels, packed_info, self.ts, bound)
        before, after = (F.pad(run.float(), (0, 1)) for run in (self.before, self.after))
        return BakedSamples(positions, directions, self.ts, self.deltas.float(), packed_info, before, after)
