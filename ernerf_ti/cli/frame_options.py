"""Options of a command line that choose frames of a capture, with ER-NeRF's spellings beside ours."""

import argparse

from ernerf_ti.data.frame_selection import FrameSelection

_PART, _PART2, _WINDOW = 10, 375, 7


def add_frame_options(parser: argparse.ArgumentParser) -> None:
    """Add what :func:`frame_selection` reads."""
    group = parser.add_argument_group("frames of the capture")
    group.add_argument(
        *("--data-range", "--data_range"),
        nargs=2,
        type=int,
        default=FrameSelection.data_range,
        metavar=("FIRST", "END"),
        help="of each split, -1 for its end",
    )
    group.add_argument("--part", action="store_true", help=f"one in {_PART} of the training frames")
    group.add_argument("--part2", action="store_true", help=f"the first {_PART2} training frames, 15 s")
    group.add_argument(
        *("--smooth-path", "--smooth_path"),
        nargs="?",
        type=int,
        const=_WINDOW,
        default=FrameSelection.smooth_path,
        metavar="WINDOW",
        help=f"calm the poses: frames in a mean, odd, {_WINDOW} if no number follows",
    )
    group.add_argument("--smooth-eye", "--smooth_eye", action="store_true", help="calm the blinks: means of three")
    group.add_argument("--skip-missing", action="store_true", help="leave out frames without a picture")


def frame_selection(options: argparse.Namespace) -> FrameSelection:
    """The choice that was made. With --part2 beside --part only the latter counts, as in ER-NeRF.

    Raises ValueError for numbers that make no sense.
    """
    return FrameSelection(
        tuple(options.data_range),
        _PART if options.part else 1,
        _PART2 if options.part2 and not options.part else None,
        options.smooth_path,
        options.smooth_eye,
        options.skip_missing,
    )
