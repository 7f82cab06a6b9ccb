"""Sessions as .mp4 files that say that they are synthesized."""

from pathlib import Path
from types import TracebackType

import numpy as np

from ernerf_ti.live.frame import FPS, SOUND_PER_FRAME, SOUND_RATE, LiveFrame
from ernerf_ti.media.video_sound import VideoSound
from ernerf_ti.media.video_writer import VideoWriter
from ernerf_ti.synthesis.video import SYNTHESIZED


class LiveRecording:
    """Writes the frames of a session with their sound; the file appears with :meth:`finish`.

        with LiveRecording(Path("session.mp4")) as recording:
            for frame in session.frames():
                recording.add(frame)

    Frames that were left out are filled with the picture before and silence.

    Args:
        path: .mp4 or .mkv, without alpha.

    Raises as :class:`ernerf_ti.media.video_writer.VideoWriter`.
    """

    def __init__(self, path: Path):
        # The sound comes with the frames.
        nothing = VideoSound.of_samples(np.zeros(0, np.float32), SOUND_RATE)
        self._writer = VideoWriter(path, FPS, nothing, metadata=SYNTHESIZED)
        self._first: int | None = None
        self._image: np.ndarray | None = None
        self._n = 0

    def add(self, frame: LiveFrame) -> None:
        """Add a frame; errors as of :meth:`ernerf_ti.media.video_writer.VideoWriter.write`."""
        number = round(frame.time * FPS)
        self._first = number if self._first is None else self._first
        image = frame.image[..., :3]
        while self._n < number - self._first:
            self._write(image if self._image is None else self._image, np.zeros((1, SOUND_PER_FRAME), np.float32))
        self._write(image, frame.sound)
        self._image = image

    def finish(self) -> None:
        """Complete the file."""
        try:
            self._writer.finish()
        finally:
            self._writer.close()

    def __enter__(self) -> "LiveRecording":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Complete the file; discard it after an error."""
        if kind is None:
            self.finish()
        else:
            self._writer.close()

    def _write(self, image: np.ndarray, sound: np.ndarray) -> None:
        self._writer.write_sound(sound)
        self._writer.write(image)
        self._n += 1
