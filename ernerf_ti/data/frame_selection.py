"""Selection of the frames of a capture, and smoothing of their poses and eye closures, with ER-NeRF's options."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from ernerf_ti.data.capture_files import CaptureError, Split


@dataclass(frozen=True)
class FrameSelection:
    """Selection from the frames of the transforms files, in their order. The defaults use all frames unchanged."""

    data_range: tuple[int, int] = (0, -1)
    """First frame and end (exclusive) in each split; an end of -1 is the end of the split."""
    every: int = 1
    """Use every n-th training frame. ER-NeRF's --part is 10."""
    most: int | None = None
    """Use at most this many training frames from the start. ER-NeRF's --part2 is 375, the first 15 s."""
    smooth_path: int = 1
    """Window of the moving average over poses in frames, odd; 1 for no smoothing. ER-NeRF's --smooth_path is 7."""
    smooth_eyes: bool = False
    """Average each eye closure with its two neighbors, as ER-NeRF's --smooth_eye."""
    skip_missing: bool = False
    """Skip frames without an image, as ER-NeRF's loader always does; otherwise a missing image is an error."""

    def __post_init__(self) -> None:
        first, end = self.data_range
        if first < 0 or (end != -1 and end <= first):
            raise ValueError(
                f"data_range: expected 0 <= first < end, or an end of -1, got {first} and {end}; "
                "pass 0 and -1 for all frames"
            )
        if self.every < 1 or (self.most is not None and self.most < 1):
            raise ValueError(
                f"every and most: expected at least 1, got {self.every} and {self.most}; pass larger numbers"
            )
        if self.smooth_path < 1 or self.smooth_path % 2 == 0:
            raise ValueError(
                f"smooth_path: expected an odd number of frames, got {self.smooth_path}; pass 1 for no smoothing"
            )

    def of_split(self, split: Split, name: str, has_image: Callable[[int], bool]) -> Split:
        """The selected frames of a split, with smoothed poses.

        Args:
            split: all of its frames.
            name: "train" or "val".
            has_image: whether the image of a frame number exists.

        Raises CaptureError if no frame is left.
        """
        first, end = self.data_range
        selected = np.arange(len(split))[first : len(split) if end == -1 else end]
        if name == "train":
            selected = selected[:: self.every][: self.most]
        if self.skip_missing:
            selected = np.array([i for i in selected if has_image(int(split.frame_ids[i]))], np.int64)
        if not len(selected):
            raise CaptureError(
                f"data_range: no frame of transforms_{name}.json, which has {len(split)}, is left in the range {first} "
                f"to {end}; pass a range of frames that have images"
            )
        poses = split.poses[selected]
        if self.smooth_path > 1:
            import torch  # which takes seconds, and checks of options need not

            from ernerf_ti.portrait.camera import smooth_path

            poses = smooth_path(torch.from_numpy(poses), self.smooth_path).numpy()
        return replace(split, frame_ids=split.frame_ids[selected], audio_ids=split.audio_ids[selected], poses=poses)

    def smooth_closures(self, eye_closures: np.ndarray, splits: tuple[Split, ...]) -> np.ndarray:
        """[n_frames] eye closures by frame number, smoothed over the frames of each split if that is selected."""
        if not self.smooth_eyes:
            return eye_closures
        result = eye_closures.copy()
        for split in splits:
            values = eye_closures[split.frame_ids].astype(np.float64)
            sums, counts = (np.convolve(x, np.ones(3))[1:-1] for x in (values, np.ones(len(values))))
            result[split.frame_ids] = sums / counts
        return result
