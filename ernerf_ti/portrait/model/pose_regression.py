"""The identity code that a head pose lets expect, for frames that no code was learned for."""

import torch
from torch import Tensor

_PENALTY = 1e-3  # of the regression, per training frame


class PoseRegression:
    """Ridge regression from the head's rotation and place in the camera to the codes of the training frames.

    A torso's codes say where the shoulders are. These follow the head in part, and that part is linear; the mean of
    all codes would leave them where they are on average.

    Args:
        poses: [n, 4, 4] pose_world_from_camera of the training frames, n at least 1.
        codes: [n, K] theirs.
    """

    def __init__(self, poses: Tensor, codes: Tensor):
        self._low, self._high = codes.amin(0), codes.amax(0)
        u, _, v = torch.linalg.svd(poses[:, :3, :3].double().mean(0))
        self._middle = u @ v
        features = self._features(poses)
        self._mean, self._deviation = features.mean(0), features.std(0, correction=0).clamp(min=1e-6)
        known = (features - self._mean) / self._deviation
        gram = known.t() @ known + _PENALTY * len(known) * torch.eye(6, dtype=known.dtype, device=known.device)
        targets = codes.double()
        self._offset = targets.mean(0)
        self._slopes = torch.linalg.solve(gram, known.t() @ (targets - self._offset))

    def __call__(self, poses: Tensor) -> Tensor:
        """[m, 4, 4] poses -> [m, K] codes, in dtype and range of those of the training frames."""
        expected = self._offset + (self._features(poses) - self._mean) / self._deviation @ self._slopes
        return expected.to(self._low.dtype).clamp(self._low, self._high)

    def _features(self, poses: Tensor) -> Tensor:
        """[m, 6] the axis of the turn from the mean pose times its sine, and the head's place in camera axes."""
        poses = poses.to(self._middle.device, torch.float64)
        turn = poses[:, :3, :3].transpose(1, 2) @ self._middle
        axis = torch.stack([turn[:, i, j] - turn[:, j, i] for i, j in ((2, 1), (0, 2), (1, 0))], 1) / 2
        place = -(poses[:, :3, 3:].transpose(1, 2) @ poses[:, :3, :3])[:, 0]
        return torch.cat((axis, place), 1)
