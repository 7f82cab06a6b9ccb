"""A portrait for live sessions, which share its weights."""

import threading
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import torch
from tqdm import tqdm

from ernerf_ti.audio.frame_features import SAMPLE_RATE
from ernerf_ti.audio.windows import LONGEST_LOOK_AHEAD, LOOK_AHEAD, WINDOW
from ernerf_ti.live.clock import Clock, MonotonicClock
from ernerf_ti.live.features import SegmentSteps, StreamingFeatures
from ernerf_ti.live.frame import FPS
from ernerf_ti.live.motion import Blinks, CapturePath
from ernerf_ti.live.renderer import Background, LiveInputs, PictureMaker, PortraitPictures
from ernerf_ti.live.session import LiveSession
from ernerf_ti.live.sound import SegmentSound
from ernerf_ti.live.speech import silent_steps, windows_of
from ernerf_ti.portrait.model.calls import Call, call_plainly
from ernerf_ti.run.trained_portrait import TrainedPortrait, load_portrait

_MOST_SOUND = 120.0
"""Seconds that wait in a session."""
_MOTION_SECONDS = 10.0
BackgroundChoice = None | tuple[int, int, int] | np.ndarray | Literal["transparent"]


class LivePortrait:
    """A portrait that speaks in any number of sessions at once, in any threads.

    Args:
        trained: the portrait.
        pictures: what renders it; None for its own renderer.
        motion_seconds: of the capture whose head motion is played forward and backward, all of it if it is shorter;
            None for all of it, or for 10 s of it if the portrait is baked and rendered on the CPU, which keeps these
            poses in memory: 2.5 MB each at 256x256, 2 GB at most, or fewer if 10 s find no room.

    Raises:
        ValueError: it was trained on audio features that can't be computed as sound arrives.
        FileNotFoundError, ImportError: the speech model, or a package that it needs, is missing.
    """

    def __init__(
        self, trained: TrainedPortrait, pictures: PictureMaker | None = None, motion_seconds: float | None = None
    ):
        if motion_seconds is not None and not motion_seconds > 0:
            raise ValueError(f"motion_seconds: expected more than 0, got {motion_seconds!r}; pass e.g. 10")
        self.trained = trained
        self.features = StreamingFeatures.of(trained)
        self.pictures: PictureMaker = pictures or PortraitPictures(trained)
        self._fits_motion = motion_seconds is None and trained.baked_renderer is not None
        if self._fits_motion:
            motion_seconds = _MOTION_SECONDS
        self.path = CapturePath(trained, motion_seconds)
        self.open_eyes = float(trained.eye_closures.median())
        """Eye closure between blinks."""
        self._lock, self._n_sessions = threading.Lock(), 0

    @classmethod
    def open(
        cls,
        path: str | Path,
        device: torch.device | str = "cpu",
        precision: torch.dtype = torch.float32,
        call: Call = call_plainly,
        motion_seconds: float | None = None,
        mouth_gain: float | None = None,
    ) -> "LivePortrait":
        """Load a portrait and :meth:`warm_up`.

        Args:
            path: a run folder or a checkpoint file.
            device, precision, call, mouth_gain: as of :func:`ernerf_ti.run.trained_portrait.load_portrait`.
            motion_seconds: as of the class.

        Raises:
            FileNotFoundError, ValueError: no such run, a damaged one, or one with audio features that can't be computed
                as sound arrives.
            ImportError: a package that its audio features need is missing.
        """
        portrait = cls(load_portrait(Path(path), device, precision, call, mouth_gain), motion_seconds=motion_seconds)
        portrait.warm_up()
        return portrait

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the pictures."""
        return self.pictures.size

    def warm_up(self) -> None:
        """Hear something, and render once at each resolution, which loads and compiles what that takes, and render
        whatever is kept of poses."""
        sound = SegmentSound()
        noise = np.random.default_rng(0).normal(scale=0.01, size=SAMPLE_RATE)
        sound.push(noise.astype(np.float32), SAMPLE_RATE)
        SegmentSteps(sound, self.features, self.features.voice()).compute(2 * WINDOW)
        pose, place = self.path.at(0)
        inputs = LiveInputs(windows_of(silent_steps(self.features.silence)), self.open_eyes, pose, place)
        for scale in self.pictures.scales:
            self.pictures.picture(inputs, self.trained.background, scale)
        if isinstance(self.pictures, PortraitPictures) and self.pictures.keeps_poses:
            if self._fits_motion:
                self._shorten_path(self.pictures.capacity(pose, place))
            for pose, place in tqdm(self.path.all_poses(), "preparing poses", unit="pose"):
                if not self.pictures.prepare(pose, place):
                    break

    def _shorten_path(self, n: int) -> None:
        """Until it has at most n poses."""
        n_frames = len(self.path)
        while (excess := len(self.path.all_poses()) - n) > 0 and n_frames > 1:
            n_frames = max(1, n_frames - excess)
            self.path = CapturePath(self.trained, n_frames / FPS)

    def session(
        self,
        look_ahead: float = LOOK_AHEAD,
        background: BackgroundChoice = None,
        idle: bool = True,
        clock: Clock | None = None,
        limit: float = _MOST_SOUND,
    ) -> LiveSession:
        """Begin a session.

        Args:
            look_ahead: seconds of sound after a frame that the mouth depends on, 0 to 0.24; the latency grows with it.
                0.24 is what synthesis has; 0.12 cost .06 dB at the lips of a real speaker. Features may need more sound
                beyond it.
            background: None for that of the capture, a color (red, green, blue) from 0 to 255, a picture [H, W, 3]
                uint8 RGB of any size, or "transparent".
            idle: whether head and eyes move while nobody speaks.
            clock: paces the frames; None for the system's.
            limit: seconds of pushed sound that wait at most.

        Raises ValueError for another look-ahead, background or limit.
        """
        if not 0 <= look_ahead <= LONGEST_LOOK_AHEAD:
            raise ValueError(
                f"look_ahead: expected 0 to {LONGEST_LOOK_AHEAD:g} seconds, got {look_ahead!r}; pass e.g. "
                f"{LOOK_AHEAD:g}"
            )
        if not 0 < limit <= 3600:
            raise ValueError(f"limit: expected up to 3600 seconds, got {limit!r}; pass e.g. {_MOST_SOUND:g}")
        with self._lock:
            number = self._n_sessions
            self._n_sessions += 1
        blinks = Blinks(number, self.open_eyes)
        behind = self._background(background)
        return LiveSession(
            self.features, self.pictures, self.path, blinks, behind, look_ahead, idle, clock or MonotonicClock(), limit
        )

    def _background(self, choice: BackgroundChoice) -> Background:
        width, height = self.size
        background = self.trained.background
        if choice is None:
            return background
        if isinstance(choice, str) and choice == "transparent":
            return None
        color = np.asarray(choice)
        if color.shape == (3,) and color.dtype.kind in "iu" and color.min() >= 0 and color.max() <= 255:
            flat = torch.tensor(color.tolist(), dtype=torch.float32, device=background.device) / 255
            return flat.expand(height, width, 3).contiguous()
        if color.ndim == 3 and color.shape[2] == 3 and color.dtype == np.uint8 and color.size:
            image = cv2.resize(color, (width, height), interpolation=cv2.INTER_AREA)
            return torch.from_numpy(image).float().to(background.device) / 255
        got = repr(choice) if isinstance(choice, (str, tuple)) else f"{color.dtype} of shape {list(color.shape)}"
        raise ValueError(
            'background: expected None, "transparent", a color (red, green, blue) from 0 to 255, or a picture '
            f"[H, W, 3] of uint8, got {got}; pass one of these"
        )
