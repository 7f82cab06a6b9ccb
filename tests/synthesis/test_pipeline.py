"""Frames on the host: inputs made at once, images converted on the device and copied beside the rendering."""

import dataclasses
import weakref
from contextlib import contextmanager

import numpy as np
import pytest
import torch

from ernerf_ti.audio.context import audio_context
from ernerf_ti.experiments.operations import recorded_operations
from ernerf_ti.portrait.render.frame_renderer import PendingFrame
from ernerf_ti.portrait.render.static_shapes import static_shapes_on_cpu
from ernerf_ti.run.trained_portrait import TrainedPortrait
from ernerf_ti.synthesis import pipeline
from ernerf_ti.synthesis.frames import frame_inputs, render_frames
from ernerf_ti.synthesis.images import (
    DepthImages,
    attention_image,
    color_image,
    opaque_image,
    picture_of,
    transparent_image,
)
from ernerf_ti.synthesis.pipeline import images_ahead, images_on_host

N = 6
CPU = torch.device("cpu")


@pytest.fixture
def windows():
    return torch.rand(N, 16, 42)


@pytest.fixture
def arguments(trained, windows):
    return trained, windows, trained.poses[[0, 1, 2, 3, 4, 4]], np.linspace(0, 1, N), trained.background


@pytest.mark.parametrize("as_published", [False, True])
@pytest.mark.parametrize("followed", [None, np.array([0, 2, 4, 3, 1, 0])])
def test_inputs_made_at_once_are_those_of_each_frame(trained, arguments, as_published, followed):
    portrait = dataclasses.replace(trained, as_published=as_published)
    _, windows, poses, closures, _ = arguments
    for k, inputs in enumerate(frame_inputs(portrait, windows, poses, closures, True, followed)):
        assert torch.equal(inputs.audio_window, audio_context(windows, k, as_published))
        assert torch.equal(inputs.eye_closure, torch.tensor([float(closures[k])]))
        assert torch.equal(inputs.head_pose, poses[k])
        of_frame = portrait.torso_appearance(poses[k], None if followed is None else int(followed[k]))
        torch.testing.assert_close(inputs.torso_appearance, of_frame, atol=1e-7, rtol=0)
    assert k == N - 1


def test_inputs_of_a_frame_cost_no_work(trained, arguments):
    inputs = frame_inputs(*arguments[:4])
    next(inputs)
    with recorded_operations() as operations:
        rest = list(inputs)
    assert len(rest) == N - 1
    assert set(operations.names) == {"select", "slice"}


def test_images_wait_for_nothing_but_the_first_depth(trained, arguments):
    output, *_ = render_frames(*arguments, with_attention=True)
    depth_image = DepthImages(arguments[2])
    with recorded_operations() as operations:
        depth_image(output)
    assert operations.waits
    for image in (color_image, opaque_image, transparent_image, attention_image, depth_image):
        with recorded_operations() as operations:
            made = image(output)
        assert made.dtype == torch.uint8 and made.is_contiguous()
        assert not operations.waits


def test_frames_in_flight(trained, arguments, monkeypatch):
    expected, events = list(render_frames(*arguments, with_attention=True)), []
    submit, result = TrainedPortrait.submit, PendingFrame.result

    def submitted(self, *arguments):
        events.append("submit")
        return submit(self, *arguments)

    def fetched(self):
        events.append("result")
        return result(self)

    monkeypatch.setattr(TrainedPortrait, "submit", submitted)
    monkeypatch.setattr(PendingFrame, "result", fetched)
    with static_shapes_on_cpu():
        frames = render_frames(*arguments, with_attention=True)
        # Those that were submitted first have too little room, and are rendered again.
        found = [next(frames) for _ in range(3)]
        with recorded_operations() as operations:
            found += frames
    assert events == ["submit"] * 3 + ["result", "submit"] * (N - 3) + ["result"] * 3
    assert operations.waits == ["_local_scalar_dense"] * (N - 3)  # each frame's number of samples
    for output, alone in zip(found, expected, strict=True):
        torch.testing.assert_close(output.rgb, alone.rgb, atol=1e-4, rtol=0)


@pytest.mark.parametrize("function", [images_on_host, images_ahead])
def test_images_are_those_of_the_frames_in_their_order(arguments, function):
    images = [color_image, transparent_image]
    pictures = list(function(render_frames(*arguments, with_attention=True), images, CPU))
    outputs = list(render_frames(*arguments, with_attention=True))
    assert len(pictures) == len(outputs) == N
    for (color, transparent), output in zip(pictures, outputs, strict=True):
        np.testing.assert_array_equal(color, picture_of(output))
        np.testing.assert_array_equal(transparent, transparent_image(output).numpy())


class Device:
    """Streams that begin work only when somebody waits for it, as a busy device may."""

    def __init__(self, monkeypatch):
        self.log = []
        self.side, self.current = Stream(self), "main"
        monkeypatch.setattr(torch.cuda, "Stream", lambda device: self.side)
        monkeypatch.setattr(torch.cuda, "current_stream", lambda device: self.current)
        monkeypatch.setattr(torch.cuda, "stream", self.entered)
        monkeypatch.setattr(torch.cuda, "Event", lambda blocking: Event(self))
        monkeypatch.setattr(pipeline, "_pinned_like", lambda image: Pinned(self, image))

    @contextmanager
    def entered(self, stream):
        self.current = stream
        yield
        self.current = "main"


class Stream:
    def __init__(self, device):
        self.device, self.work, self.n_done, self.is_behind_main = device, [], 0, False

    def wait_stream(self, stream):
        assert stream == "main"
        self.is_behind_main = True

    def record_event(self, event):
        event.end = len(self.work)
        self.is_behind_main = False  # main gets more work
        return event


class Event:
    def __init__(self, device):
        self.device, self.end = device, None

    def synchronize(self):
        side = self.device.side
        while side.n_done < self.end:
            side.work[side.n_done]()
            side.n_done += 1
        self.device.log.append("wait")


class Pinned:
    def __init__(self, device, image):
        self.device, self.array = device, np.zeros(image.shape, np.uint8)

    def copy_(self, image, non_blocking):
        assert non_blocking and image.is_contiguous()
        assert self.device.current is self.device.side and self.device.side.is_behind_main
        source, array = weakref.ref(image), self.array  # memory of a tensor that nobody holds goes to others

        def copy():
            array[:] = 99 if source() is None else source().numpy()

        self.device.side.work.append(copy)
        return self

    def numpy(self):
        return self.array


def test_copies_beside_the_rendering(monkeypatch):
    device = Device(monkeypatch)

    def frames():
        for k in range(N):
            device.log.append(f"frame {k}")
            yield k

    def image(k):
        return torch.full((2, 3, 3), k, dtype=torch.uint8)

    def inverse(k):
        return torch.full((2, 3, 4), 255 - k, dtype=torch.uint8)

    found = []
    for color, alpha in images_on_host(frames(), [image, inverse], torch.device("cuda")):
        found.append((color, alpha))
        device.log.append(f"use {len(found) - 1}")
    for k, (color, alpha) in enumerate(found):
        assert (color == k).all() and (alpha == 255 - k).all()
    assert device.log[:9] == [*(f"frame {k}" for k in range(3)), "wait", "use 0", "frame 3", "wait", "use 1", "frame 4"]
    assert len(found) == N
