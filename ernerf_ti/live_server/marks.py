"""Signs that the picture is synthesized: for machines in every answer, for people on the picture."""

from typing import Any

import cv2
import numpy as np

import ernerf_ti
from ernerf_ti.media.provenance.note import SOURCE_TYPE

TEXT = "synthesized"
"""What the watermark says."""


def note() -> dict[str, Any]:
    """The machine-readable note."""
    return {
        "synthesized": True,
        "digitalSourceType": SOURCE_TYPE,
        "generator": f"ernerf-ti {ernerf_ti.__version__}",
    }


def with_note(sdp: str) -> str:
    """A session description that says so in the line for information on the session (RFC 8866, section 5.4)."""
    lines = sdp.split("\r\n")
    name = next(i for i, line in enumerate(lines) if line.startswith("s="))
    lines[name + 1 : name + 1] = [f"i=Synthesized by ernerf-ti, not a recording of a person. {SOURCE_TYPE}"]
    return "\r\n".join(lines)


class Watermark:
    """Writes :data:`TEXT` into the lower left corner of pictures of one size; light letters with a dark rim."""

    def __init__(self) -> None:
        self._shape: tuple[int, ...] = ()
        self._light = self._rim = np.zeros((0, 0))

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """[H, W, 3 or 4] uint8 -> a marked copy."""
        if image.shape != self._shape:
            self._draw(image.shape)
        height, width = self._light.shape[:2]
        marked = image.copy()
        corner = marked[image.shape[0] - height :, :width].astype(np.float32)
        corner *= 1 - self._rim
        corner[..., :3] += 255 * self._light
        if corner.shape[2] == 4:
            corner[..., 3:] += 255 * self._rim
        marked[image.shape[0] - height :, :width] = corner + 0.5
        return marked

    def _draw(self, shape: tuple[int, ...]) -> None:
        self._shape = shape
        scale = shape[1] / 512
        thickness = max(1, round(1.6 * scale))
        (width, height), below = cv2.getTextSize(TEXT, cv2.FONT_HERSHEY_SIMPLEX, scale, thickness)
        edge = max(2, round(8 * scale))
        canvas = np.zeros((min(shape[0], height + below + 2 * edge), min(shape[1], width + 2 * edge)), np.uint8)
        where = (edge, canvas.shape[0] - edge - below)
        light = cv2.putText(canvas.copy(), TEXT, where, cv2.FONT_HERSHEY_SIMPLEX, scale, (255,), thickness, cv2.LINE_AA)
        rim = cv2.putText(canvas, TEXT, where, cv2.FONT_HERSHEY_SIMPLEX, scale, (255,), thickness + 2, cv2.LINE_AA)
        self._light = light[..., None].astype(np.float32) / 255
        self._rim = np.maximum(rim, light)[..., None].astype(np.float32) / 255
