"""Errors, interruption and unusual file names: one exception, and no half-written file."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from ernerf_ti.data.capture_files import write_sound
from ernerf_ti.media.images import write_image
from ernerf_ti.media.video_writer import VideoWriter
from ernerf_ti.process.prefetch import ahead
from ernerf_ti.synthesis import video as module
from ernerf_ti.synthesis.frames import render_frames
from ernerf_ti.synthesis.options import SynthesisOptions
from ernerf_ti.synthesis.outputs import check_formats
from ernerf_ti.synthesis.video import synthesize


def test_ahead_keeps_the_order_and_raises_errors_in_their_place():
    assert list(ahead(range(50), 3)) == list(range(50))

    def broken():
        yield 1
        raise ValueError("second")

    items = ahead(broken())
    assert next(items) == 1
    with pytest.raises(ValueError, match="second"):
        next(items)


def test_ahead_can_be_closed_early():
    made = []

    def endless():
        while True:
            made.append(0)
            yield 0

    items = ahead(endless(), 2)
    next(items)
    items.close()
    assert len(made) < 10


@pytest.mark.skipif(sys.platform == "win32", reason="no such signals")
def test_a_second_ctrl_c_does_not_forget_the_thread(ctrl_c_raises):
    go_on = threading.Event()

    def slow():
        yield 0
        go_on.wait()

    items = ahead(slow())
    next(items)
    ctrl_c = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT))
    ctrl_c.start()
    with pytest.raises(KeyboardInterrupt):
        items.close()
    (thread,) = (thread for thread in threading.enumerate() if thread.name == "ahead")
    assert thread.is_alive()  # so that the interpreter waits for it
    go_on.set()
    thread.join()


ABANDONED = """
import sys
import torch
from ernerf_ti.process.prefetch import ahead

def frames():
    a = torch.rand(400, 400)
    while True:
        for _ in range(20):
            a = torch.tanh(a @ a)
        yield a

class Cycle:  # so that the iterator is not closed by counting references
    def __init__(self):
        self.me = self

def consume():
    cycle = Cycle()
    cycle.items = items = ahead(frames())
    for k, _ in enumerate(items):
        if k == 2:
            raise OSError("disk full")

try:
    consume()
except OSError as error:
    print(error, file=sys.stderr)
    sys.exit(1)
"""


def test_an_abandoned_iterator_does_not_abort_the_process():
    done = subprocess.run([sys.executable, "-c", ABANDONED], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr.strip()) == (1, "disk full")


@pytest.fixture
def outputs(tmp_path):
    names = ("out.mp4", "depth.mp4", "attention.mp4")
    return {name.split(".")[0]: tmp_path / "results" / name for name in names}


def make_options(speech, outputs):
    return SynthesisOptions(speech, outputs["out"], depth=outputs["depth"], attention=outputs["attention"])


def assert_nothing_is_left(outputs):
    assert list(outputs["out"].parent.iterdir()) == []  # hidden temporary files neither
    assert not [thread for thread in threading.enumerate() if thread.name == "ahead"]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError("disk full")], ids=["Ctrl-C", "error"])
@pytest.mark.parametrize(("owner", "function"), [(module, "attention_image"), (VideoWriter, "write")])
def test_interruption_while_images_are_made_or_written(trained, speech, outputs, monkeypatch, owner, function, error):
    calls, whole = iter(range(100)), getattr(owner, function)

    def interrupted(*arguments):
        if next(calls) == 4:
            raise error
        return whole(*arguments)

    monkeypatch.setattr(owner, function, interrupted)
    with pytest.raises(type(error)):
        synthesize(trained, make_options(speech, outputs))
    assert_nothing_is_left(outputs)


def test_error_while_rendering(trained, speech, outputs, monkeypatch):
    def broken(*arguments, **named):
        frames = render_frames(*arguments, **named)
        yield next(frames)
        raise RuntimeError("out of memory")

    monkeypatch.setattr(module, "render_frames", broken)
    with pytest.raises(RuntimeError, match="out of memory"):
        synthesize(trained, make_options(speech, outputs))
    assert_nothing_is_left(outputs)


def frames_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_shorter_output_leaves_no_picture_of_a_longer_one(trained, speech, tmp_path):
    short, folder = tmp_path / "short.wav", tmp_path / "frames"
    write_sound(short, np.zeros(2_000))  # 4 frames
    synthesize(trained, SynthesisOptions(speech, folder, pose="still"))
    own, notes = folder / "00007.png", folder / "notes.txt"
    write_image(own, np.zeros((4, 4, 3), np.uint8))  # of the user's
    notes.touch()
    synthesize(trained, SynthesisOptions(short, folder, pose="still"))
    names = sorted(frames_of(folder))
    # Behind a picture that is not ours, what follows may be the user's too.
    assert names[:6] == [*(f"{k:05d}.png" for k in range(4)), "00007.png", "00008.png"] and notes.exists()
    assert not any(name.startswith(".") for name in names)
    own.unlink()
    synthesize(trained, SynthesisOptions(speech, tmp_path / "new", pose="still"))
    synthesize(trained, SynthesisOptions(short, tmp_path / "new", pose="still"))
    assert sorted(frames_of(tmp_path / "new")) == [f"{k:05d}.png" for k in range(4)]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError("disk full")], ids=["Ctrl-C", "error"])
def test_an_interrupted_output_leaves_the_pictures_of_the_earlier_one(trained, speech, tmp_path, monkeypatch, error):
    folder = tmp_path / "frames"
    synthesize(trained, SynthesisOptions(speech, folder, pose="still"))
    before, calls, whole = frames_of(folder), iter(range(100)), module.write_synthesized_png

    def interrupted(*arguments):
        if next(calls) == 4:
            raise error
        return whole(*arguments)

    monkeypatch.setattr(module, "write_synthesized_png", interrupted)
    with pytest.raises(type(error)):
        synthesize(trained, SynthesisOptions(speech, folder, background="#ff0000"))
    assert frames_of(folder) == before


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("speech.mp4/depth.mp4", "could not write to .*speech.mp4"),
        ("taken.mp4", "taken.mp4: expected a file to write, got a folder"),
        ("results/out.mp4", "expected different files for output, depth and attention"),
    ],
)
def test_outputs_that_cannot_be_written_fail_before_rendering(
    trained, speech, outputs, tmp_path, monkeypatch, name, message
):
    def rendered(*arguments, **named):
        raise AssertionError("a frame was rendered")
        yield

    monkeypatch.setattr(module, "render_frames", rendered)
    (tmp_path / "taken.mp4").mkdir()
    with pytest.raises((OSError, ValueError), match=message):
        synthesize(trained, SynthesisOptions(speech, outputs["out"], depth=tmp_path / name))


@pytest.mark.parametrize("kind", ["itself", "symbolic link", "hard link"])
def test_no_input_is_replaced(trained, speech, outputs, tmp_path, kind):
    before, depth = speech.read_bytes(), tmp_path / "depth.mp4"
    if kind == "hard link":
        os.link(speech, depth)
    elif kind == "symbolic link":
        depth.symlink_to(speech)
    options = SynthesisOptions(speech, outputs["out"], depth=speech if kind == "itself" else depth)
    with pytest.raises(ValueError, match="it would replace the audio file that is read; choose another name"):
        synthesize(trained, options)
    assert speech.read_bytes() == before


@pytest.mark.parametrize("name", ["onto", "onto through a link", "background", "background through a link"])
def test_no_picture_that_is_read_is_replaced(speech, tmp_path, name):
    folder, link = tmp_path / "pictures", tmp_path / "link"
    folder.mkdir()
    (folder / "00000.png").touch()
    link.symlink_to(folder if name.startswith("onto") else folder / "00000.png")
    if name.startswith("onto"):
        given = {"onto": link if "link" in name else folder}
    else:
        given = {"background": str(link if "link" in name else folder / "00000.png")}
    with pytest.raises(ValueError, match=r"pictures: it (would|could) replace the .* that is read; choose another"):
        check_formats(SynthesisOptions(speech, folder, **given))
    check_formats(SynthesisOptions(speech, tmp_path / "other", **given))
    check_formats(SynthesisOptions(speech, tmp_path))  # it holds the speech, but only pictures are written


def test_a_folder_may_be_called_as_a_word_of_an_option(speech, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "capture").mkdir()
    check_formats(SynthesisOptions(speech, Path("capture")))


def test_one_output_under_two_names(trained, speech, tmp_path):
    (tmp_path / "folder").symlink_to(tmp_path)
    options = SynthesisOptions(speech, tmp_path / "a.mp4", depth=tmp_path / "folder" / "a.mp4")
    with pytest.raises(ValueError, match="got one path twice"):
        synthesize(trained, options)
