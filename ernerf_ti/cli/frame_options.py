"""Options that choose frames of a capture, with ER-NeRF's names for them."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ernerf_ti.data.frame_selection import FrameSelection

_PART, _PART2 = 10, 375

BARE_VALUES = {"smooth-path": "7"}
"""ER-NeRF's --smooth_path takes no number and averages over 7 frames."""


@dataclass(frozen=True)
class FrameOptions:
    """Frames of the capture, as chosen by ER-NeRF's options of the same names."""

    data_range: tuple[int, int] = (0, -1)
    """First frame of each split, and the one after its last; -1 for the end of the split."""
    part: bool = False
    """Train on every tenth frame only."""
    part2: bool = False
    """Train on the first 375 frames (15 s) only; without effect if --part is given."""
    smooth_path: int = 1
    """Average the head pose over this many frames, an odd number; 1 for no smoothing, 7 if no number follows."""
    smooth_eye: bool = False
    """Average the eye closure over three frames."""
    skip_missing: bool = False
    """Leave out frames whose image is missing rather than stop."""

    def selection(self) -> "FrameSelection":
        """The frames chosen. Raises ValueError for numbers that make no sense."""
        from ernerf_ti.data.frame_selection import FrameSelection

        return FrameSelection(
            self.data_range,
            _PART if self.part else 1,
            _PART2 if self.part2 and not self.part else None,
            self.smooth_path,
            self.smooth_eye,
            self.skip_missing,
        )
