"""What a checkpoint keeps of the capture that it was trained on."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ernerf_ti.data.capture import Capture


def identity(capture: Capture) -> dict[str, Any]:
    """What a run can't change of its capture."""
    return {
        "extractor": capture.extractor,
        "feature_dimension": int(capture.audio_windows.shape[2]),
        "width": capture.width,
        "height": capture.height,
        "n_train": len(capture.train),
        **({} if capture.projection is None else {"speech": capture.projection.facts}),
    }


def scene(capture: Capture, poses: Tensor) -> dict[str, Any]:
    """What rendering needs of the capture, so that it needs only the checkpoint.

    Args:
        capture: the capture.
        poses: [N, 4, 4] pose_world_from_camera of its training frames, then of those held out.
    """
    ids = np.concatenate((capture.train.frame_ids, capture.val.frame_ids))
    return {
        "intrinsics": torch.from_numpy(capture.intrinsics),
        "poses": poses,
        "eye_closures": torch.from_numpy(capture.eye_closures[ids]),
        "background": torch.from_numpy(capture.background),
        **({} if capture.projection is None else {"speech": capture.projection.state_dict()}),
    }
