"""A synthetic talking portrait whose truth is known: sound, poses, mouth, layers and landmarks.

portrait = SyntheticPortrait(n_frames=250, size=256, seed=0, voice="tenor")
portrait.samples, portrait.poses, portrait.mouths, portrait.blinks
frame = portrait.render(17)
frame.image, frame.labels, frame.torso, frame.landmarks
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from ernerf_ti.data.synthetic.backdrop import backdrop
from ernerf_ti.data.synthetic.frame_state import FrameState
from ernerf_ti.data.synthetic.landmarks import face_landmarks
from ernerf_ti.data.synthetic.motion import natural_motion
from ernerf_ti.data.synthetic.mouth import FRAME_RATE, mouth_track
from ernerf_ti.data.synthetic.ray_tracing_kernel import render_layers
from ernerf_ti.data.synthetic.speech import speak

FOCAL_PER_SIZE = 2.4
"""Focal length in pixels, in sides of the picture."""


class Intrinsics(NamedTuple):
    """Focal lengths and principal point in pixels; centers of pixels are at + 0.5."""

    fx: float
    fy: float
    cx: float
    cy: float


@dataclass(frozen=True)
class PortraitFrame:
    """What is known of one frame.

    Attributes:
        image: [H, W, 3] uint8 RGB.
        labels: [H, W] uint8; 0 background, 1 head, 2 neck, 3 torso; what most rays of the pixel meet.
        torso: [H, W, 4] uint8 RGBA, straight alpha: neck and torso as they would be seen without the
            head, which still casts its shadow on them.
        landmarks: [68, 2] float32 x, y in pixels, the iBUG layout.
    """

    image: np.ndarray
    labels: np.ndarray
    torso: np.ndarray
    landmarks: np.ndarray


class SyntheticPortrait:
    """A talking person of `n_frames` frames at 25 per second; frames are rendered when asked for.

    Args:
        n_frames: > 0.
        size: side of the square picture in pixels, even, >= 16.
        seed: what is said, how the head moves, when the eyes blink, and the background.
        voice: one of :data:`ernerf_ti.data.synthetic.speech.VOICES`.
        n_samples: rays per pixel: 4, 9 or 16.
        device: where frames are rendered; Taichi runs on one device per process.

    Attributes:
        samples: [640 n_frames] float32 mono sound at 16 kHz in [-1, 1].
        timeline: what is said when.
        poses: [n_frames, 4, 4] float64 pose_world_from_camera; world = head, metres, OpenGL camera.
        intrinsics: fx, fy, cx, cy in pixels.
        blinks: [n_frames] float32, 0 open, 1 closed.
        mouths: [n_frames, 3] float32, columns :data:`ernerf_ti.data.synthetic.mouth.MOUTH_COLUMNS`.

    The same arguments give the same bytes. Raises ValueError if an argument is not as above.
    """

    def __init__(
        self,
        n_frames: int = 250,
        size: int = 256,
        seed: int = 0,
        voice: str = "tenor",
        n_samples: int = 4,
        device: torch.device | str = "cpu",
    ):
        if n_frames < 1:
            raise ValueError(f"n_frames: expected a number > 0, got {n_frames}; ask for at least one frame")
        if size < 16 or size % 2:
            raise ValueError(f"size: expected an even number >= 16, got {size}; choose for example 256")
        if n_samples not in (4, 9, 16):
            raise ValueError(f"n_samples: expected 4, 9 or 16, got {n_samples}; choose one of these")
        self.n_frames, self.size, self.seed, self.voice = n_frames, size, seed, voice
        speech = speak(n_frames / FRAME_RATE, seed, voice)
        self.samples, self.timeline = speech.samples, speech.timeline
        self.mouths = mouth_track(speech.timeline, n_frames)
        motion = natural_motion(n_frames, seed)
        self.poses, self.blinks = motion.poses, motion.blinks
        focal = FOCAL_PER_SIZE * size
        self.intrinsics = Intrinsics(focal, focal, size / 2, size / 2)
        self._torsos, self._n_samples, self._device = motion.torsos, n_samples, torch.device(device)
        self._behind = torch.from_numpy(np.round(backdrop(size, seed) * 255) / np.float32(255)).to(self._device)

    def background(self) -> np.ndarray:
        """[H, W, 3] uint8 RGB: the picture without the person."""
        return _bytes(self._behind)

    def state(self, k: int) -> FrameState:
        """What frame k is rendered from. Raises IndexError if there is no such frame."""
        if not 0 <= k < self.n_frames:
            raise IndexError(f"k: expected a frame in 0 ... {self.n_frames - 1}, got {k}; frames count from 0")
        opening, width, rounding = (float(value) for value in self.mouths[k])
        return FrameState(self.poses[k], self._torsos[k], float(self.blinks[k]), opening, width, rounding)

    def render(self, k: int) -> PortraitFrame:
        """Frame k. Raises IndexError if there is no such frame."""
        return self.render_state(self.state(k))

    def render_state(self, state: FrameState) -> PortraitFrame:
        """A frame of this person in any state: to hold the pose still, or to look at one mouth."""
        packed = torch.from_numpy(state.packed(self.intrinsics.fx, self.size)).to(self._device)
        image, torso, labels = render_layers(packed, self._behind, self._n_samples)
        return PortraitFrame(
            _bytes(image), labels.cpu().numpy(), _bytes(torso), face_landmarks(packed).astype(np.float32)
        )


def _bytes(picture: torch.Tensor) -> np.ndarray:
    return (picture * 255 + 0.5).to(torch.uint8).cpu().numpy()
