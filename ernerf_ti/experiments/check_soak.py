"""Open files a thousand times and synthesize an hour of speech at tiny size: do memory, threads or open files grow?"""

import gc
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from time import monotonic

import numpy as np

from ernerf_ti.audio.frame_features import SAMPLE_RATE
from ernerf_ti.data.capture import open_capture
from ernerf_ti.data.capture_files import FPS, CapturePaths, write_sound
from ernerf_ti.data.synthetic.portrait_writers import write_portrait_capture, write_portrait_video
from ernerf_ti.data.synthetic.speech import speak
from ernerf_ti.data.synthetic.synthetic_portrait import SyntheticPortrait
from ernerf_ti.media.images import read_image
from ernerf_ti.media.sound import read_sound
from ernerf_ti.media.video import read_frames
from ernerf_ti.run.checkpoint import load_checkpoint
from ernerf_ti.run.folder import RunFolder
from ernerf_ti.run.trained_portrait import load_portrait
from ernerf_ti.synthesis.options import SynthesisOptions
from ernerf_ti.synthesis.video import synthesize
from ernerf_ti.train.config import PRESETS, STAGES
from ernerf_ti.train.trainer import Trainer

_N_FRAMES = 14
_SIZE = 16
_SAMPLES = 40
_WARM_UP = 0.1
"""Share of the time in which memory may grow: caches fill and kernels are compiled."""


@dataclass(frozen=True)
class Usage:
    """What a process holds."""

    seconds: float
    """Since the start."""
    memory: float
    """MB, resident."""
    threads: int
    """Of the system, those of libraries too."""
    files: int
    """File descriptors."""


def opened_and_closed(folder: Path, n: int) -> Iterator[Usage]:
    """Read a video, its sound, a picture and a checkpoint in turns, n files in all; yields 40 times.

    The folder is that of :func:`prepare`.
    """
    video, checkpoint = folder / "speaker.mp4", RunFolder(folder / "run").checkpoint
    kinds: list[Callable[[], object]] = [
        lambda: sum(1 for _ in read_frames(video, FPS)),
        lambda: next(read_frames(video, FPS)),  # left before its end
        lambda: read_sound(video),
        lambda: read_image(CapturePaths(folder / "capture").image(0)),
        lambda: load_checkpoint(checkpoint),
    ]
    start = monotonic()
    for k in range(n):
        kinds[k % len(kinds)]()
        if (k + 1) % max(1, n // _SAMPLES) == 0:
            yield _usage(start)


def synthesized(folder: Path, seconds: float) -> list[Usage]:
    """Synthesize speech of some length, and look 40 times meanwhile. The folder is that of :func:`prepare`."""
    phrase = speak(30.0, seed=0).samples
    n = round(seconds * SAMPLE_RATE)
    write_sound(folder / "speech.wav", np.tile(phrase, -(-n // len(phrase)))[:n])
    trained = load_portrait(folder / "run")
    usages: list[Usage] = []
    finished = threading.Event()
    start = monotonic()

    def watch() -> None:
        while not finished.wait(1.0):
            usages.append(_usage(start))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        synthesize(trained, SynthesisOptions(folder / "speech.wav", folder / "speech.mp4"))
    finally:
        finished.set()
        watcher.join()
    return usages[:: max(1, len(usages) // _SAMPLES)]


def prepare(folder: Path) -> None:
    """Make a video, a capture and a run of a person of 16 x 16 pixels."""
    person = SyntheticPortrait(_N_FRAMES, _SIZE, seed=1)
    write_portrait_video(person, folder / "speaker.mp4")
    write_portrait_capture(person, folder / "capture", "mel")
    small = PRESETS["small"]
    stages = {stage: replace(getattr(small, stage), iterations=8, n_rays=128) for stage in STAGES}
    stages["finetune"] = replace(stages["finetune"], patch_size=8)
    portrait = replace(small.portrait, head_grid=replace(small.portrait.head_grid, resolution=32))
    Trainer(open_capture(folder / "capture"), replace(small, portrait=portrait, **stages), folder / "run").run()


def table(what: str, usages: list[Usage]) -> str:
    """Usage after the warm-up, halfway and at the end, as lines of Markdown."""
    lines = [f"| {what} | s | memory, MB | threads | open files |", "|---|---|---|---|---|"]
    first = int(_WARM_UP * len(usages))
    for name, k in (("after a tenth", first), ("halfway", len(usages) // 2), ("at the end", -1)):
        usage = usages[k]
        lines.append(f"| {name} | {usage.seconds:.0f} | {usage.memory:.0f} | {usage.threads} | {usage.files} |")
    return "\n".join(lines)


def _usage(start: float) -> Usage:
    """Raises OSError where there is no /proc."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    memory, threads = pages * os.sysconf("SC_PAGE_SIZE") / 1e6, len(os.listdir("/proc/self/task"))
    return Usage(monotonic() - start, memory, threads, len(os.listdir("/proc/self/fd")))
