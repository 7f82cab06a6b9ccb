"""A synthetic talking portrait with exact ground truth: sound, poses, mouth, layers and landmarks.

portrait = SyntheticPortrait(n_frames=250, size=256, seed=0, voice="tenor")
portrait.samples, portrait.poses, portrait.mouths, portrait.blinks
frame = portrait.render(17)
frame.image, frame.labels, frame.torso, frame.landmarks
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from ernerf_ti.data.synthetic.background import background
from ernerf_ti.data.synthetic.frame_state import FrameState
from ernerf_ti.data.synthetic.landmarks import face_landmarks
from ernerf_ti.data.synthetic.motion import natural_motion
from ernerf_ti.data.synthetic.mouth import FRAME_RATE, mouth_track
from ernerf_ti.data.synthetic.ray_tracing_kernel import render_layers
from ernerf_ti.data.synthetic.speech import VOICES, speak
from ernerf_ti.data.synthetic.text_speech import speak_words

FOCAL_PER_SIZE = 2.4
"""Focal length relative to the side of the picture."""
VARIED = "varied"
"""Name of the voice that changes with every phrase."""


class Intrinsics(NamedTuple):
    """Focal lengths and principal point in pixels; centers of pixels are at + 0.5."""

    fx: float
    fy: float
    cx: float
    cy: float


@dataclass(frozen=True)
class PortraitFrame:
    """One frame with its ground truth.

    Attributes:
        image: [H, W, 3] uint8 RGB.
        labels: [H, W] uint8; 0 background, 1 head, 2 neck, 3 torso: what most rays of the pixel hit.
        torso: [H, W, 4] uint8 RGBA, straight alpha: neck and torso without the head, which still casts its
            shadow on them.
        landmarks: [68, 2] float32 x, y in pixels, the iBUG layout.
    """

    image: np.ndarray
    labels: np.ndarray
    torso: np.ndarray
    landmarks: np.ndarray


class SyntheticPortrait:
    """A talking person of `n_frames` frames at 25 per second; frames are rendered on demand.

    Args:
        n_frames: > 0.
        size: side of the square picture in pixels, even, >= 16.
        seed: of speech, motion, blinks and background.
        voice: one of :data:`ernerf_ti.data.synthetic.speech.VOICES`, which speaks random syllables, or "varied":
            English words in many voices.
        phones: one of :data:`ernerf_ti.data.synthetic.phonemes.PHONE_SETS`, of random syllables.
        n_samples: rays per pixel where the picture has detail: 4, 9 or 16.
        device: where frames are rendered; Taichi runs on one device per process.
        blinks: a key of :data:`ernerf_ti.data.synthetic.motion.BLINKS`.

    Attributes:
        samples: [640 n_frames] float32 mono sound at 16 kHz in [-1, 1].
        timeline: the phones that are spoken.
        poses: [n_frames, 4, 4] float64 pose_world_from_camera; world = head, meters, OpenGL camera.
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
        blinks: str = "natural",
        phones: str = "english",
    ):
        if n_frames < 1:
            raise ValueError(f"n_frames: expected a number > 0, got {n_frames}; ask for at least one frame")
        if size < 16 or size % 2:
            raise ValueError(f"size: expected an even number >= 16, got {size}; choose for example 256")
        if n_samples not in (4, 9, 16):
            raise ValueError(f"n_samples: expected 4, 9 or 16, got {n_samples}; choose one of these")
        if voice not in (*VOICES, VARIED):
            expected = ", ".join((*VOICES, VARIED))
            raise ValueError(f"voice: expected one of {expected}, got {voice!r}; choose one of these")
        self.n_frames, self.size, self.seed, self.voice = n_frames, size, seed, voice
        duration = n_frames / FRAME_RATE
        speech = speak_words(duration, seed) if voice == VARIED else speak(duration, seed, voice, phones)
        self.samples, self.timeline = speech.samples, speech.timeline
        self.mouths = mouth_track(speech.timeline, n_frames)
        motion = natural_motion(n_frames, seed, blinks)
        self.poses, self.blinks = motion.poses, motion.blinks
        focal = FOCAL_PER_SIZE * size
        self.intrinsics = Intrinsics(focal, focal, size / 2, size / 2)
        self._motion, self._n_samples, self._device = motion, n_samples, torch.device(device)
        self._background = torch.from_numpy(np.round(background(size, seed) * 255) / np.float32(255)).to(self._device)

    def background(self) -> np.ndarray:
        """[H, W, 3] uint8 RGB: the background alone."""
        return _bytes(self._background)

    def state(self, k: int) -> FrameState:
        """State of frame k. Raises IndexError if there is no such frame."""
        if not 0 <= k < self.n_frames:
            raise IndexError(f"k: expected a frame in 0 ... {self.n_frames - 1}, got {k}; frames count from 0")
        return self._motion.state(k, self.mouths[k])

    def render(self, k: int) -> PortraitFrame:
        """Frame k. Raises IndexError if there is no such frame."""
        return self.render_state(self.state(k))

    def render_state(self, state: FrameState) -> PortraitFrame:
        """A frame of this person in any state."""
        packed = torch.from_numpy(state.packed(self.intrinsics.fx, self.size)).to(self._device)
        image, torso, labels = render_layers(packed, self._background, self._n_samples)
        return PortraitFrame(
            _bytes(image), labels.cpu().numpy(), _bytes(torso), face_landmarks(packed).astype(np.float32)
        )


def _bytes(picture: torch.Tensor) -> np.ndarray:
    return (picture * 255 + 0.5).to(torch.uint8).cpu().numpy()
