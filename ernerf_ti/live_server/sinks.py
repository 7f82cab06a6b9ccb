"""Where the frames of a session go besides the browsers: a file, a stream, a camera. Each has a thread of its own."""

import contextlib
import queue
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import av
import numpy as np

from ernerf_ti.live import LiveFrame
from ernerf_ti.live.frame import FPS, SOUND_PER_FRAME, SOUND_RATE
from ernerf_ti.live_server.listening import stream_error
from ernerf_ti.live_server.shared_session import int16_sound
from ernerf_ti.media.video_formats import Encoding, codec_of
from ernerf_ti.media.video_sound import VideoSound
from ernerf_ti.media.video_writer import VideoWriter
from ernerf_ti.synthesis.video import SYNTHESIZED

_WAITING = 4 * FPS
"""Frames that a slow sink may be behind; more are left out, and the last picture stands for them."""
_LONGEST_GAP = 10 * FPS
_CAMERA = "pip install 'ernerf-ti[camera]'"


class Writer(Protocol):
    """What a sink does with one frame after the other, without gaps."""

    def write(self, image: np.ndarray, sound: np.ndarray) -> None:
        """[H, W, 3 or 4] uint8 and [1920] int16."""

    def close(self) -> None:
        """Complete what was written."""


class Sink:
    """Writes the frames of a session in a thread; what fails ends the sink alone, with a line on stderr.

    Args:
        name: for messages.
        open_writer: called in the thread.
        on_end: called in the thread when the sink has failed.
    """

    def __init__(self, name: str, open_writer: Callable[[], Writer], on_end: Callable[[], None] = lambda: None):
        self._name, self._open, self._on_end = name, open_writer, on_end
        self._queue: queue.Queue[LiveFrame] = queue.Queue(_WAITING)
        self._stop = threading.Event()
        self.n_frames = 0
        self.n_repeated = 0
        """Frames that were left out and replaced by the one before."""
        self.error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name=f"live-sink-{name}", daemon=True)
        self._thread.start()

    def put(self, frame: LiveFrame) -> None:
        """Hand over a frame; never waits. Ignored once the sink is closed."""
        if not self._stop.is_set():
            with contextlib.suppress(queue.Full):
                self._queue.put_nowait(frame)

    def close(self, seconds: float = 30.0) -> None:
        """Write what waits, and complete the output."""
        self._stop.set()
        self._thread.join(seconds)

    def _run(self) -> None:
        try:
            writer = self._open()
            try:
                self._write_all(writer)
            finally:
                writer.close()
        except Exception as error:  # the portrait goes on
            self.error = error
            text = " ".join(str(error).split()) or type(error).__name__
            named = text if text.startswith(f"{self._name}: ") else f"{self._name}: {text}"
            print(f"{named}; it ends here", file=sys.stderr)
            self._on_end()

    def _write_all(self, writer: Writer) -> None:
        begin: float | None = None
        last = np.zeros((0, 0, 3), np.uint8)
        while True:
            try:
                frame = self._queue.get(timeout=0.1)
            except queue.Empty:
                if self._stop.is_set():
                    return
                continue
            begin = frame.time if begin is None else begin
            missing = min(round((frame.time - begin) * FPS) - self.n_frames, _LONGEST_GAP)
            for _ in range(missing if self.n_frames else 0):
                writer.write(last, np.zeros(SOUND_PER_FRAME, np.int16))
                self.n_frames += 1
                self.n_repeated += 1
            last = frame.image
            writer.write(last, int16_sound(frame.sound))
            self.n_frames += 1


class Recording:
    """A video file with sound, which says in its metadata that it is synthesized. It appears when it is closed.

    Args:
        path: .mp4, .mkv, .mov or .webm.
        before_rename: see :meth:`ernerf_ti.media.video_writer.VideoWriter.finish`.
    """

    def __init__(self, path: Path, before_rename: Callable[[Path], None] | None = None):
        # Kinder to the cores that render than the default.
        encoding = Encoding(preset="veryfast") if path.suffix.lower() in (".mp4", ".mkv") else Encoding()
        self._has_alpha = codec_of(path, encoding).has_alpha
        self._before_rename = before_rename
        nothing = VideoSound.of_samples(np.zeros(0, np.float32), SOUND_RATE)
        self._writer = VideoWriter(path, FPS, nothing, encoding, SYNTHESIZED)

    def write(self, image: np.ndarray, sound: np.ndarray) -> None:
        self._writer.write(_with_alpha(image) if self._has_alpha else opaque(image))
        self._writer.write_sound(sound[None].astype(np.float32) / 32768)

    def close(self) -> None:
        try:
            if self._writer.n_frames:
                self._writer.finish(self._before_rename)
        finally:
            self._writer.close()


class Stream:
    """H.264 and AAC in FLV to an RTMP server. The first picture connects; raises OSError if nobody takes the stream.

    Args:
        url: such as rtmp://host/application/key.
        bit_rate: of the pictures, per second.
    """

    def __init__(self, url: str, bit_rate: int = 1_500_000):
        self._url, self._bit_rate = url, bit_rate
        self._file = av.open(url, "w", format="flv", timeout=(10.0, 10.0))
        self._file.metadata.update(SYNTHESIZED)
        self._video = self._file.add_stream("libx264", rate=FPS)
        self._video.pix_fmt = "yuv420p"
        self._video.bit_rate = self._bit_rate
        # A key frame every two seconds is what services ask for.
        self._video.options = {"preset": "veryfast", "tune": "zerolatency", "g": str(2 * FPS)}
        self._audio = self._file.add_stream("aac", rate=SOUND_RATE, layout="mono", bit_rate=128_000)
        self._n = 0

    def write(self, image: np.ndarray, sound: np.ndarray) -> None:
        image = opaque(image)
        height, width = image.shape[0] // 2 * 2, image.shape[1] // 2 * 2
        if self._n == 0:
            self._video.width, self._video.height = width, height
            try:
                self._file.start_encoding()
            except (OSError, ValueError) as error:
                raise stream_error(self._url, error) from None
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(image[:height, :width]), "rgb24")
        picture.pts = self._n
        self._file.mux(self._video.encode(picture))
        piece = av.AudioFrame.from_ndarray(sound[None], "s16", "mono")
        piece.sample_rate, piece.pts = SOUND_RATE, self._n * SOUND_PER_FRAME
        self._file.mux(self._audio.encode(piece))
        self._n += 1

    def close(self) -> None:
        try:
            if self._n:
                self._file.mux(self._video.encode(None))
                self._file.mux(self._audio.encode(None))
        finally:
            self._file.close()


class Camera:
    """A virtual camera, for video calls; without sound. Needs the package pyvirtualcam and, on Linux, v4l2loopback.

    Raises ImportError without the package, and RuntimeError if there is no virtual camera.
    """

    def __init__(self, size: tuple[int, int]):
        self._camera = _camera_library().Camera(*size, fps=FPS)

    def write(self, image: np.ndarray, sound: np.ndarray) -> None:
        self._camera.send(np.ascontiguousarray(opaque(image)))

    def close(self) -> None:
        self._camera.close()


def require_camera() -> None:
    """Raise ImportError without the package pyvirtualcam."""
    _camera_library()


def _camera_library():  # type: ignore[no-untyped-def]
    try:
        import pyvirtualcam
    except ImportError as error:
        raise ImportError(f"camera: expected the package pyvirtualcam, got {error}; {_CAMERA}") from None
    return pyvirtualcam


def opaque(image: np.ndarray) -> np.ndarray:
    """[H, W, 3]; what is transparent becomes black."""
    if image.shape[2] == 3:
        return image
    return (image[..., :3] * (image[..., 3:].astype(np.uint16)) // 255).astype(np.uint8)


def _with_alpha(image: np.ndarray) -> np.ndarray:
    if image.shape[2] == 4:
        return image
    return np.concatenate((image, np.full_like(image[..., :1], 255)), 2)
