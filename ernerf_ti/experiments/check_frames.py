"""Frames of the CUDA check: on the device, on the host and in a video, with each setting off and on."""

import contextlib
from collections import deque
from collections.abc import Iterator
from functools import partial

import torch

from ernerf_ti.data.capture_files import FPS
from ernerf_ti.experiments import device_measures as measures
from ernerf_ti.experiments.check_setup import Check, Settings, Switch
from ernerf_ti.experiments.check_table import Row, isolated
from ernerf_ti.experiments.device_measures import Work
from ernerf_ti.media.video_writer import VideoWriter, hardware_encoding_problem
from ernerf_ti.portrait.records import RenderOutput
from ernerf_ti.synthesis.driving import blinks, head_path, ping_pong
from ernerf_ti.synthesis.frames import frame_inputs, render_frames
from ernerf_ti.synthesis.images import color_image
from ernerf_ti.synthesis.pipeline import images_ahead, images_on_host

FRAME_TARGET = 5.0
"""ms of a head frame of 512x512, from marching to RGB on the device."""
HOST_TARGET = 150.0
"""Frames per second of 512x512, head over torso over background, as uint8 on the host."""
VIDEO_TARGET = 100.0
"""Frames per second of 512x512 into an .mp4."""


def frames(check: Check) -> Iterator[Row]:
    """Rates with the default settings, then each setting off and on."""
    yield from frame_rates(check, (FRAME_TARGET, HOST_TARGET, VIDEO_TARGET))
    for switch in check.switches():
        yield from isolated("frames", switch.name, partial(compare_settings, check, switch))
    speech = _Speech(check, check.default)
    what = "frame on the host, several in flight"
    yield from isolated("frames", what, partial(_compare, check, what, speech.one_at_a_time, speech.on_host))
    yield from isolated("frames", "hardware encoding", partial(_hardware_encoding, check, speech))


def frame_rates(check: Check, targets: tuple[float, float, float], part: str = "frames") -> Iterator[Row]:
    """Rates with the default settings.

    Args:
        check: the check.
        targets: ms of a head frame; frames per second on the host, and into an .mp4.
        part: of the check.
    """
    check.budget.need(10)
    speech = _Speech(check, check.default)
    yield from isolated(part, "head frame", partial(_head_frame, check, speech, targets[0], part))
    for what, work, target, how in (
        ("frames on the host", speech.on_host, targets[1], "as uint8"),
        ("frames into an .mp4", speech.into_video, targets[2], "encoded on the CPU"),
    ):
        yield from isolated(part, what, partial(_rate, check, what, work, target, how, part))


def compare_settings(check: Check, switch: Switch, part: str = "frames") -> Iterator[Row]:
    """Frames with a setting off and on."""
    speech, other = _Speech(check, check.default), _Speech(check, switch.other)
    yield from _compare(check, f"head frame, {switch.name}", other.head, speech.head, part)
    yield from _compare(check, f"frame on the host, {switch.name}", other.on_host, speech.on_host, part)


def _head_frame(check: Check, speech: "_Speech", target: float, part: str) -> Iterator[Row]:
    size = check.sizes.image
    with measures.PeakMemory(check.device) as memory:
        duration = _per_frame(check, speech.head)
    note = f"{size}x{size}, from marching to RGB on the device, frames in a row"
    judged = check.sizes.judged
    yield Row(part, "head frame", duration, unit="ms", target=target, judged=judged, note=note)
    note = f"peak of torch's tensors; in use on the whole device {memory.device:.3g} GB"
    yield Row(part, "head frame, memory", memory.torch, unit="GB", note=note)
    trace = measures.trace(speech.head, 1, check.device)
    busy, launches = (x / speech.n_frames for x in (trace.busy, trace.launches))
    note = f"{busy / duration:.0%} of the frame's time; {launches:.0f} launches"
    yield Row(part, "head frame, device busy", busy, unit="ms", note=note)


def _rate(check: Check, what: str, work: Work, target: float, how: str, part: str) -> Iterator[Row]:
    check.budget.need(4)
    size, judged = check.sizes.image, check.sizes.judged
    value = 1000 / _per_frame(check, work)
    note = f"{size}x{size}, head over torso over background, {how}"
    yield Row(part, what, value, None, None, "frames/s", target, at_most=False, judged=judged, note=note)


def _hardware_encoding(check: Check, speech: "_Speech") -> Iterator[Row]:
    what = "frame into an .mp4, hardware encoding"
    problem = hardware_encoding_problem(check.sizes.image, check.sizes.image, FPS)
    if problem is not None:
        yield Row("frames", what, note=f"skipped: {problem}")
    else:
        yield from _compare(check, what, speech.into_video, partial(speech.into_video, hardware=True))


def _compare(check: Check, what: str, off: Work, on: Work, part: str = "frames") -> Iterator[Row]:
    check.budget.need(5)
    off_ms, on_ms = measures.in_turns(off, on, 1, check.sizes.n_turns, check.device)
    n = check.sizes.frames_per_turn
    yield Row(part, what, off=off_ms / n, on=on_ms / n, unit="ms")


def _per_frame(check: Check, work: Work) -> float:
    """Milliseconds per frame."""
    work()
    n = check.sizes.n_turns
    return measures.milliseconds(work, n, check.device) / check.sizes.frames_per_turn


class _Speech:
    """Frames of the last portrait that was saved, speaking the capture's sound.

    Args:
        check: the check.
        settings: of rendering.
    """

    def __init__(self, check: Check, settings: Settings):
        self.n_frames, self._device = check.sizes.frames_per_turn, check.device
        self._trained, self._path = check.trained(settings), check.folder / "speech.mp4"
        assert check.capture is not None  # as a portrait was trained
        windows = torch.from_numpy(check.capture.audio_windows)
        self._windows = windows[ping_pong(self.n_frames, len(windows))]
        self._poses, self._followed = head_path(self._trained, self.n_frames, "capture")
        self._closures = blinks(self._trained, self.n_frames, "capture")

    def head(self) -> None:
        deque(self._rendered(with_torso=False), maxlen=0)

    def on_host(self) -> None:
        deque(images_on_host(self._rendered(), [color_image], self._device), maxlen=0)

    def one_at_a_time(self) -> None:
        """Frames on the host, the next one being submitted when the last one has arrived."""
        inputs = frame_inputs(self._trained, self._windows, self._poses, self._closures, True, self._followed)
        for of_frame in inputs:
            color_image(self._trained.render(of_frame, self._trained.background, with_attention=False)).cpu()

    def into_video(self, hardware: bool = False) -> None:
        images = images_ahead(self._rendered(), [color_image], self._device)
        writer = VideoWriter(self._path, FPS, hardware=hardware)
        with contextlib.closing(images), contextlib.closing(writer):
            for (color,) in images:
                writer.write(color)
            writer.finish()

    def _rendered(self, with_torso: bool = True) -> Iterator[RenderOutput]:
        return render_frames(
            *(self._trained, self._windows, self._poses, self._closures, self._trained.background, with_torso),
            capture_indices=self._followed,
        )
