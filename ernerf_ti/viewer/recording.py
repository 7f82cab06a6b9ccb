"""Files that the viewer writes: a recorded session or a whole clip as mp4 with sound, and the camera path."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from torch import Tensor

from ernerf_ti.audio.frame_features import SAMPLE_RATE
from ernerf_ti.data.capture_files import FPS
from ernerf_ti.media.files import write_json
from ernerf_ti.media.video_sound import VideoSound
from ernerf_ti.media.video_writer import VideoWriter
from ernerf_ti.portrait.camera import capture_from_scene
from ernerf_ti.synthesis.video import SYNTHESIZED
from ernerf_ti.viewer.clip import SAMPLES_PER_FRAME, Clip

_JUMP = 0.12  # s; a larger gap between written and heard audio is a seek, a smaller one clock jitter


class SessionRecording:
    """Records the screen and the audio at 25 frames per second, whatever the rate of the window.

    Args:
        path: an .mp4.
        begin: time at the start, s.
    """

    def __init__(self, path: Path, begin: float):
        self.path = path
        self._begin = begin
        self._pieces: list[np.ndarray] = []
        # The sound comes while the session goes on.
        nothing = VideoSound.of_samples(np.zeros(0, np.float32), SAMPLE_RATE)
        self._writer = VideoWriter(path, FPS, nothing, metadata=SYNTHESIZED)
        self._clip: Clip | None = None
        self._next = 0

    @property
    def sound(self) -> np.ndarray:
        """[S] float32 audio recorded so far, mono 16 kHz."""
        return np.concatenate([*self._pieces, np.zeros(0, np.float32)])

    @property
    def n_frames(self) -> int:
        return self._writer.n_frames

    def add(self, screen: np.ndarray, now: float, clip: Clip, position: float | None) -> None:
        """Fill the video up to now with a screen and the audio.

        Args:
            screen: [H, W, 3] uint8 of an even size.
            now: s, on the clock of `begin`.
            clip: the clip being played.
            position: in the clip, s; None while nothing is heard.
        """
        due = int((now - self._begin) * FPS + 1e-6) + 1
        while self._writer.n_frames < due:
            behind = (due - 1 - self._writer.n_frames) / FPS
            self._writer.write(screen)
            piece = self._piece(clip, None if position is None else position - behind)
            self._writer.write_sound(piece[None])
            self._pieces.append(piece)

    def finish(self) -> None:
        try:
            self._writer.finish()
        finally:
            self._writer.close()

    def close(self) -> None:
        """Discard the file unless it is finished."""
        self._writer.close()

    def _piece(self, clip: Clip, position: float | None) -> np.ndarray:
        """The next 40 ms of audio, contiguous with those before unless the user seeked."""
        if position is None or not len(clip.samples):
            self._clip = None
            return np.zeros(SAMPLES_PER_FRAME, np.float32)
        heard = round(position * SAMPLE_RATE)
        if clip is not self._clip or abs(heard - self._next) > _JUMP * SAMPLE_RATE:
            self._clip, self._next = clip, heard
        indices = np.arange(self._next, self._next + SAMPLES_PER_FRAME) % len(clip.samples)
        self._next = int(indices[-1]) + 1
        return clip.samples[indices]


class ClipExport:
    """Renders a clip from start to end, one frame at a time.

    Args:
        path: an .mp4.
        clip: the clip to render.
        picture: frame -> [H, W, 3] uint8.
    """

    def __init__(self, path: Path, clip: Clip, picture: Callable[[int], np.ndarray]):
        self.path, self.clip = path, clip
        sound = clip.sound or VideoSound.of_samples(clip.samples, SAMPLE_RATE)
        self._writer = VideoWriter(path, FPS, sound.lasting(len(clip) / FPS), metadata=SYNTHESIZED)
        self._frames = self._write(picture)

    @property
    def text(self) -> str:
        return f"exporting {self._writer.n_frames} of {len(self.clip)} frames"

    def advance(self) -> np.ndarray | None:
        """Write the next frame and return it; None when the file is complete."""
        return next(self._frames, None)

    def close(self) -> None:
        """Discard the file unless it is complete."""
        self._writer.close()

    def _write(self, picture: Callable[[int], np.ndarray]) -> Iterator[np.ndarray]:
        try:
            for k in range(len(self.clip)):
                image = picture(k)
                self._writer.write(image)
                yield image
            self._writer.finish()
        finally:
            self._writer.close()


def write_camera_path(path: Path, poses: Tensor, intrinsics: tuple[float, ...], size: tuple[int, int]) -> None:
    """Write poses as a transforms file, for `ernerf-ti synthesize --pose`.

    Args:
        path: a .json.
        poses: [n, 4, 4] pose_world_from_camera, scene.
        intrinsics: fx, fy, cx, cy in pixels.
        size: width, height.
    """
    in_capture = capture_from_scene(poses.double().cpu())
    fx, fy, cx, cy = intrinsics
    frames = [{"img_id": k, "aud_id": k, "transform_matrix": matrix} for k, matrix in enumerate(in_capture.tolist())]
    camera = {"fl_x": fx, "fl_y": fy, "cx": cx, "cy": cy, "w": size[0], "h": size[1]}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {**camera, "frames": frames})
