"""What a live portrait takes per frame, how late its frames are, and whether it drifts or grows."""

import os
import platform
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace
from fractions import Fraction
from functools import partial
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from time import monotonic, perf_counter, process_time

import av
import numpy as np
import torch

from ernerf_ti.audio.frame_features import SAMPLE_RATE
from ernerf_ti.audio.windows import STEPS_PER_FRAME
from ernerf_ti.live import LiveFrame, LivePortrait, SimulatedClock
from ernerf_ti.live.features import SegmentSteps
from ernerf_ti.live.frame import FPS
from ernerf_ti.live.quality import SCALES
from ernerf_ti.live.renderer import Background, LiveInputs, PictureMaker, PortraitPictures
from ernerf_ti.live.sound import SegmentSound
from ernerf_ti.live.speech import silent_steps, windows_of
from ernerf_ti.process.threads import one_torch_thread
from ernerf_ti.run.trained_portrait import TrainedPortrait

_PIECE = SAMPLE_RATE // 50  # samples pushed at once
_BINS = (0.24, 0.28, 0.32, 0.36, 0.4, 0.5, 1.0)  # s
_TURN = 4.0  # s of speech, then as much of silence
_SESSIONS = (1, 2, 4, 8)
_POSES_APART = 7  # frames
_BIT_RATE = 1_000_000
_MOTION_SECONDS = 2.0  # in processes that measure a rate: fewer poses to prepare
Figures = dict[str, dict[str, float | str]]


def run(path: Path, n: int, seconds: float, simulated: float, device: str) -> Figures:
    """All figures.

    Args:
        path: of the run.
        n: frames per figure of a part.
        seconds: of a session in real time; 0 for none.
        simulated: seconds of a session on a simulated clock; 0 for none.
        device: that renders.

    Returns:
        Figures by name, in groups.
    """
    portrait = LivePortrait.open(path, device)
    width, height = portrait.size
    figures: Figures = {
        "machine": {
            "device": torch.cuda.get_device_name() if device.startswith("cuda") else f"{platform.machine()} CPU",
            "cores": f"{os.cpu_count()}",
            "load of other processes": f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown",
            "torch": torch.__version__,
            "size": f"{width}x{height}",
            "audio features": portrait.trained.extractor,
        },
        "CPU milliseconds per frame": dict(time_parts(portrait, n)),
        "frames per second, without a clock": {
            f"{threads} thread{'s' if threads > 1 else ''}": _in_a_process(path, n, device, threads)
            for threads in (1, 2)
        },
        "frames per second of sessions together, without a clock, 2 threads": {
            f"{sessions} session{'s' if sessions > 1 else ''}": _in_a_process(path, n, device, 2, sessions)
            for sessions in _SESSIONS
        },
    }
    if seconds:
        figures["in real time"] = measure_latency(portrait, seconds)
    if simulated:
        figures["on a simulated clock"] = measure_drift(portrait, simulated)
    return figures


def time_parts(portrait: LivePortrait, n: int) -> dict[str, float]:
    """Medians of CPU milliseconds per frame."""
    sound = SegmentSound()
    sound.push(_noise(n + 20), SAMPLE_RATE)
    steps = SegmentSteps(sound, portrait.features, portrait.features.voice())
    steps.compute(8 * STEPS_PER_FRAME)
    of_features = []
    for k in range(n):
        with one_torch_thread():  # as in a session
            start = process_time()
            steps.compute((9 + k) * STEPS_PER_FRAME)
            of_features.append(process_time() - start)
    generator = np.random.default_rng(0)
    silence = windows_of(silent_steps(portrait.features.silence))
    inputs = []
    for k in range(n + 1):  # poses and mouths of their own
        pose, place = portrait.path.at(_POSES_APART * k)
        windows = silence + generator.standard_normal(silence.shape).astype(np.float32)
        inputs.append(LiveInputs(windows, 0.2, pose, place))
    trained = portrait.trained
    window = torch.from_numpy(inputs[0].windows).to(trained.background.device)
    renderers: dict[str, PictureMaker] = {"": portrait.pictures}
    if trained.baked_renderer is not None:
        renderers = {", known pose": PortraitPictures(trained), ", new pose": PortraitPictures(trained, pose_memory=0)}
    parts: dict[str, Callable[[int], object]] = {"audio encoder": lambda k: trained.portrait.head.audio_encoder(window)}
    for of_pose, pictures in renderers.items():
        for scale in pictures.scales:
            for each in inputs if of_pose == ", known pose" else inputs[:1]:
                pictures.picture(each, trained.background, scale)
            parts[f"picture, {scale:g} of the size{of_pose}"] = partial(_picture, pictures, inputs, trained, scale)
    images = [portrait.pictures.picture(each, trained.background, 1) for each in inputs]
    encoder = _vp8(trained.size)
    parts["encoding (VP8)"] = lambda k: _encode(encoder, images[k], k)
    # The mean, as some extractors work on several frames at once.
    figures = {"features": 1000 * float(np.mean(of_features))}
    for name, part in parts.items():
        times = []
        for k in range(n + 1):
            start = process_time()
            with torch.no_grad():
                part(k)
            times.append(1000 * (process_time() - start))
        figures[name] = median(times[1:])
    for of_pose in renderers:
        # The audio encoder is part of a picture.
        parts_of_frame = ("features", f"picture, 1 of the size{of_pose}", "encoding (VP8)")
        figures[f"from sound to packets{of_pose}"] = sum(figures[name] for name in parts_of_frame)
    return figures


def _picture(
    pictures: PictureMaker, inputs: list[LiveInputs], trained: TrainedPortrait, scale: float, k: int
) -> np.ndarray:
    return pictures.picture(inputs[k], trained.background, scale)


def _vp8(size: tuple[int, int]) -> av.VideoCodecContext:
    """An encoder as servers of WebRTC set it."""
    encoder = av.CodecContext.create("libvpx", "w")
    assert isinstance(encoder, av.VideoCodecContext)
    encoder.width, encoder.height = size
    encoder.pix_fmt, encoder.framerate, encoder.time_base = "yuv420p", Fraction(FPS), Fraction(1, FPS)
    encoder.bit_rate, encoder.thread_count = _BIT_RATE, 1
    encoder.options = {"deadline": "realtime", "cpu-used": "-6", "lag-in-frames": "0"}
    return encoder


def _encode(encoder: av.VideoCodecContext, image: np.ndarray, k: int) -> list[av.Packet]:
    frame = av.VideoFrame.from_ndarray(image, "rgb24").reformat(format="yuv420p")
    frame.pts = k
    return encoder.encode(frame)


def measure_rate(path: Path, n: int, device: str, threads: int, n_sessions: int = 1) -> float:
    """Frames per second of sessions that nothing paces, all together, as callers in a thread each get them."""
    torch.set_num_threads(threads)
    portrait = LivePortrait.open(path, device, motion_seconds=_MOTION_SECONDS)
    return rate_of_sessions(portrait, n, n_sessions)


def rate_of_sessions(portrait: LivePortrait, n: int, n_sessions: int) -> float:
    """Frames per second of all sessions together, of which each makes n frames while it speaks."""
    sessions = [portrait.session(clock=SimulatedClock()) for _ in range(n_sessions)]
    iterators = [session.frames() for session in sessions]
    for session, frames in zip(sessions, iterators, strict=True):
        session.push_audio(_noise(n + 20), SAMPLE_RATE)
        for _ in range(8):  # until it speaks
            next(frames)
    with ThreadPoolExecutor(n_sessions) as pool:
        start = perf_counter()
        counts = list(pool.map(lambda frames: sum(1 for _ in islice(frames, n)), iterators))
        seconds = perf_counter() - start
    for session in sessions:
        session.close()
    return sum(counts) / seconds


def measure_latency(portrait: LivePortrait, seconds: float) -> dict[str, float | str]:
    """Speech that is pushed in pieces of 20 ms as time passes, in turns with silence."""
    session = portrait.session()
    pushed: list[list[float]] = []  # by segment, when the sound of each of its frames began to be pushed

    def push() -> None:
        begin, noise = monotonic(), _noise(round(_TURN * FPS))
        for turn in range(int(seconds / (2 * _TURN)) or 1):
            times: list[float] = []
            pushed.append(times)
            for k in range(len(noise) // _PIECE):
                wait = begin + 2 * _TURN * turn + k * _PIECE / SAMPLE_RATE - monotonic()
                if stopped.wait(max(0.0, wait)):
                    return
                if k % 2 == 0:
                    times.append(monotonic())
                session.push_audio(noise[k * _PIECE : (k + 1) * _PIECE], SAMPLE_RATE)
            session.flush()

    stopped = threading.Event()
    pusher = threading.Thread(target=push)
    latencies, lateness, scales, n_repeated = [], [], [], 0
    start = 0.0
    last: LiveFrame | None = None
    index: dict[int, int] = {}
    try:
        for frame in session.frames():
            now = monotonic()
            if last is None:
                start = now
                pusher.start()
            lateness.append(now - start - frame.time)
            scales.append(session.scale)
            n_repeated += last is not None and last.image is frame.image
            if frame.segment is not None and frame.speaking:
                k = index[frame.segment] = index.get(frame.segment, -1) + 1
                latencies.append(now - pushed[frame.segment][k])
            last = frame
            if frame.time >= seconds:
                break
    finally:
        stopped.set()
        session.close()
        if pusher.ident is not None:
            pusher.join()
    figures: dict[str, float | str] = {"latency of the session, ms": 1000 * session.latency}
    for percent in (50, 95, 99):
        figures[f"sound to picture, {percent} %, ms"] = 1000 * float(np.percentile(latencies or [0.0], percent))
    below = 0
    for limit in _BINS:
        n = sum(value <= limit for value in latencies)
        figures[f"sound to picture, up to {1000 * limit:.0f} ms, frames"] = float(n - below)
        below = n
    figures["sound to picture, longer, frames"] = float(len(latencies) - below)
    figures["late by, 99 %, ms"] = 1000 * float(np.percentile(lateness, 99))
    figures["repeated pictures, %"] = 100 * n_repeated / len(lateness)
    figures["mean scale of the sides"] = float(np.mean(scales))
    return figures


def measure_drift(portrait: LivePortrait, seconds: float) -> dict[str, float | str]:
    """A session with speech and silence in turns, whose pictures and features cost nothing."""
    clock = SimulatedClock()
    stand_in = LivePortrait(portrait.trained, _NoPictures())
    stand_in.features = replace(portrait.features, stream=lambda voice: _NoFeatures(portrait))
    session = stand_in.session(clock=clock)
    sound = _noise(FPS)
    n_sent = n_spoken = 0
    offset, begin, after = 0.0, 0.0, 0
    frames = session.frames()
    for k in range(round(seconds * FPS)):
        if k % FPS == 0 and (k / FPS) % (2 * _TURN) < _TURN:
            session.push_audio(sound, SAMPLE_RATE)
            n_sent += len(sound)
        elif k % FPS == 0:
            session.flush()
        frame = next(frames)
        begin = clock.time() if k == 0 else begin
        offset = max(offset, abs(clock.time() - begin - frame.time))
        n_spoken += frame.speaking
        if k == min(60 * FPS, round(seconds * FPS) // 2):
            after = _resident()
    left = session.buffered
    session.close()
    return {
        "seconds": seconds,
        "largest offset of a frame, ms": 1000 * offset,
        "sound pushed less sound spoken or waiting, s": n_sent / SAMPLE_RATE - n_spoken / FPS - left,
        "memory gained after the first minute, MB": (_resident() - after) / 1e6,
    }


class _NoPictures:
    size = 2, 2
    scales: tuple[float, ...] = SCALES

    def picture(self, inputs: LiveInputs, background: Background, scale: float) -> np.ndarray:
        return np.zeros((2, 2, 3), np.uint8)


class _NoFeatures:
    """As many steps as the sound has, all of them silence."""

    def __init__(self, portrait: LivePortrait):
        self._silence, self._rest = portrait.features.silence, 0

    def push(self, samples: np.ndarray) -> np.ndarray:
        n, self._rest = divmod(self._rest + len(samples), SAMPLE_RATE // (STEPS_PER_FRAME * FPS))
        return np.tile(self._silence, (n, 1))

    def finish(self) -> np.ndarray:
        return self._silence[None][: self._rest > 0]


def _in_a_process(path: Path, n: int, device: str, threads: int, n_sessions: int = 1) -> float:
    """:func:`measure_rate` in a process of its own, whose Taichi starts with as many threads."""
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = str(threads)
    try:
        # Unlike a pool of multiprocessing, which kills its process, it lets it end and tidy up.
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:
            return pool.submit(measure_rate, path, n, device, threads, n_sessions).result()
    finally:
        if before is None:
            del os.environ["OMP_NUM_THREADS"]
        else:
            os.environ["OMP_NUM_THREADS"] = before


def _noise(n_frames: int) -> np.ndarray:
    """Sound of n frames that changes its loudness as speech does."""
    generator = np.random.default_rng(0)
    loudness = np.repeat(generator.uniform(0.0, 0.3, n_frames), SAMPLE_RATE // FPS)
    return (loudness * generator.uniform(-1, 1, len(loudness))).astype(np.float32)


def _resident() -> int:
    """Bytes of memory of the process; 0 where /proc does not say."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return 0
