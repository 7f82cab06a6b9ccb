"""Which frames of a capture are used, and whether their poses and blinks are calmed: ER-NeRF's options for it."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch

from ernerf_ti.data.capture_files import CaptureError, Split
from ernerf_ti.portrait.camera import smooth_path


@dataclass(frozen=True)
class FrameSelection:
    """Frames in the order of the transforms files; the defaults use all of them as they are."""

    data_range: tuple[int, int] = (0, -1)
    """First and last but one frame of each split; -1 for its end."""
    every: int = 1
    """Of the training frames, one in so many. ER-NeRF's --part is 10."""
    most: int | None = None
    """At most so many training frames, the first ones. ER-NeRF's --part2 is 375, the first 15 s."""
    smooth_path: int = 1
    """Frames in the mean of a pose, odd, 1 for none. ER-NeRF's --smooth_path is 7."""
    smooth_eyes: bool = False
    """Whether a blink value is the mean of itself and its two neighbors. ER-NeRF's --smooth_eye."""
    skip_missing: bool = False
    """Leave out frames without a picture, as ER-NeRF's loader always does; else a missing picture is an error."""

    def __post_init__(self):
        first, end = self.data_range
        if first < 0 or (end != -1 and end <= first):
            raise ValueError(
                f"data_range: expected two numbers with 0 <= first < end, or an end of -1, got {first} and {end}; "
                "pass 0 and -1 for all frames"
            )
        if self.every < 1 or (self.most is not None and self.most < 1):
            raise ValueError(
                f"frames: expected every and most of at least 1, got {self.every} and {self.most}; pass larger numbers"
            )
        if self.smooth_path < 1 or self.smooth_path % 2 == 0:
            raise ValueError(
                f"smooth_path: expected an odd number of frames, got {self.smooth_path}; pass 1 for no smoothing"
            )

    def of_split(self, split: Split, name: str, has_picture: Callable[[int], bool]) -> Split:
        """The chosen frames of a split, with calmed poses.

        Args:
            split: all of its frames.
            name: "train" or "val".
            has_picture: whether there is a picture of a frame number.

        Raises CaptureError if no frame is left.
        """
        first, end = self.data_range
        chosen = np.arange(len(split))[first : len(split) if end == -1 else end]
        if name == "train":
            chosen = chosen[:: self.every][: self.most]
        if self.skip_missing:
            chosen = np.array([i for i in chosen if has_picture(int(split.frame_ids[i]))], np.int64)
        if not len(chosen):
            raise CaptureError(
                f"data_range: expected frames of transforms_{name}.json, which has {len(split)}, got none from "
                f"{first} to {end}; pass a range with frames that have pictures"
            )
        poses = split.poses[chosen]
        if self.smooth_path > 1:
            poses = smooth_path(torch.from_numpy(poses), self.smooth_path).numpy()
        return replace(split, frame_ids=split.frame_ids[chosen], audio_ids=split.audio_ids[chosen], poses=poses)

    def calm(self, eye_closures: np.ndarray, splits: tuple[Split, ...]) -> np.ndarray:
        """[n_frames] blink by frame number, calmed along the frames of each split; fewer neighbors at its ends."""
        if not self.smooth_eyes:
            return eye_closures
        result = eye_closures.copy()
        for split in splits:
            values = eye_closures[split.frame_ids].astype(np.float64)
            sums, counts = (np.convolve(x, np.ones(3))[1:-1] for x in (values, np.ones(len(values))))
            result[split.frame_ids] = sums / counts
        return result
