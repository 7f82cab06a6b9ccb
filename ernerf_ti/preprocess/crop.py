"""Choice of the square crop around head and shoulders."""

import numpy as np

from ernerf_ti.data.crop import Crop

_SIDE = 2.3  # face heights
_CENTER_LEVEL = 0.48  # of the side: position of the face's center below the top
_HEAD = 0.75, 1.05, 0.6  # face heights from the face's center to the head's sides, top and chin
_WHOLE = 0.88  # of the shorter side; a larger crop becomes the whole shorter side, which needs no rescaling
_LEAST_SIDE = 32  # px of a crop by hand; no face is found in fewer


def choose_crop(boxes: np.ndarray, width: int, height: int) -> Crop:
    """Choose the crop for a clip.

    Its side is 2.3 face heights, or more if the head moves far, but at most the shorter side of the video. It is
    centered on the range of the face's motion.

    Args:
        boxes: [F, 3] center x, center y, side in pixels of the speaker's face in some frames.
        width: of the video, px.
        height: of the video, px.

    Raises:
        ValueError: no boxes.
    """
    if not len(boxes):
        raise ValueError(
            "video: no face found; use a video of one person who faces the camera, with a face at least a tenth as "
            "wide as the video"
        )
    face = float(np.median(boxes[:, 2]))
    low, high = np.percentile(boxes[:, :2], (2, 98), axis=0)
    sides, top, chin = _HEAD
    travel = np.array([high[0] - low[0] + 2 * sides * face, high[1] - low[1] + (top + chin) * face])
    side = max(_SIDE * face, *travel)
    shorter = min(width, height)
    side = shorter if side >= _WHOLE * shorter else 2 * round(side / 2)
    middle = (low + high) / 2
    x = int(np.clip(round(middle[0] - side / 2), 0, width - side))
    y = int(np.clip(round(middle[1] - _CENTER_LEVEL * side), 0, height - side))
    return Crop(x, y, side)


def parse_crop(text: str, width: int, height: int) -> Crop:
    """`X,Y,SIDE` -> crop; raises ValueError if it is not inside the video, or smaller than a face can be."""
    try:
        x, y, side = (int(part) for part in text.split(","))
    except ValueError:
        x = y = side = -1
    if not (x >= 0 and y >= 0 and side >= _LEAST_SIDE and x + side <= width and y + side <= height):
        raise ValueError(
            f"crop: expected X,Y,SIDE of a square of {_LEAST_SIDE} pixels or more inside the {width}x{height} video, "
            f"got {text!r}; omit it for an automatic crop"
        )
    return Crop(x, y, side)
