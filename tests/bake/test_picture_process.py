"""A process that renders a baked portrait."""

import gc
import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch

from ernerf_ti.bake.baking import BakeOptions, bake_head
from ernerf_ti.bake.variation import VariationOptions
from ernerf_ti.live.picture_process import PictureProcess
from ernerf_ti.live.renderer import LiveInputs, PortraitPictures
from ernerf_ti.process.threads import usable_cores
from ernerf_ti.run.checkpoint import load_checkpoint, save_checkpoint
from ernerf_ti.run.trained_portrait import TrainedPortrait, load_portrait
from tests.bake.conftest import INTRINSICS, SIZE


@pytest.fixture
def trained(portrait, trained_on, run, tmp_path) -> TrainedPortrait:
    options = BakeOptions(VariationOptions(variation=0.05, region=0.3))
    baked = bake_head(portrait, INTRINSICS, SIZE, trained_on, None, options)
    content = load_checkpoint(load_portrait(run).checkpoint)
    save_checkpoint(tmp_path / "portrait.eti", content | {"baked": baked.state(), "baked_from": "run"})
    return load_portrait(tmp_path / "portrait.eti")


@pytest.fixture
def live_inputs(trained) -> LiveInputs:
    windows = np.random.default_rng(2).standard_normal((8, 42, 16)).astype(np.float32)
    return LiveInputs(windows, 0.2, trained.poses[2], 2.0)


def has_ended(process: PictureProcess) -> bool:
    try:
        return process._process.wait(20) is not None
    except TimeoutError:
        return False


def test_its_pictures_are_those_of_this_process(trained, live_inputs):
    here, process = PortraitPictures(trained), PictureProcess(trained)
    assert (process.size, process.scales, process.keeps_poses) == (here.size, here.scales, True)
    assert process.capacity(live_inputs.pose, 2.0) == here.capacity(live_inputs.pose, 2.0) > 1
    assert process.prepare(trained.poses[3], 3.0)
    other = torch.rand(32, 32, 3)
    with ThreadPoolExecutor(4) as callers:
        for background in (trained.background, other, None, trained.background):
            calls = [(replace(live_inputs, eye_closure=k / 8), background, here.scales[k % 3]) for k in range(8)]
            pictures = list(callers.map(lambda call: process.picture(*call), calls))
            for call, picture in zip(calls, pictures, strict=True):
                np.testing.assert_array_equal(picture, here.picture(*call))
    process.close()
    assert has_ended(process)
    with pytest.raises(RuntimeError, match="has ended with exit status 0; open the portrait again"):
        process.picture(live_inputs, None, 1)


def test_it_forgets_old_backgrounds(trained, live_inputs, monkeypatch):
    here, process = PortraitPictures(trained), PictureProcess(trained)
    backgrounds = [torch.full((32, 32, 3), k / 40) for k in range(40)]
    for background in (*backgrounds, backgrounds[0], backgrounds[39], backgrounds[20]):
        picture = process.picture(live_inputs, background, 1)
        np.testing.assert_array_equal(picture, here.picture(live_inputs, background, 1))
    assert len(process._link._sent) == 32


def test_errors_come_back_and_it_goes_on(trained, live_inputs):
    process = PictureProcess(trained)
    with pytest.raises(ValueError, match=r"tuple\.index"):
        process.picture(live_inputs, None, 0.123)
    assert process.picture(live_inputs, None, 1).shape == (32, 32, 4)


def test_whoever_waits_learns_that_it_was_killed(trained, live_inputs):
    process = PictureProcess(trained)
    os.kill(process._process.pid, signal.SIGSTOP)
    errors = []

    def wait() -> None:
        with pytest.raises(RuntimeError, match="has ended with exit status -9"):
            process.picture(live_inputs, None, 1)
        errors.append(True)

    waiting = threading.Thread(target=wait)
    waiting.start()
    os.kill(process._process.pid, signal.SIGKILL)
    waiting.join(20)
    assert errors == [True]


def test_it_survives_ctrl_c_and_ends_with_its_object(trained, live_inputs):
    process = PictureProcess(trained)
    os.kill(process._process.pid, signal.SIGINT)
    assert process.picture(live_inputs, None, 1) is not None
    own = process._process
    del process
    gc.collect()
    assert own.wait(20) == 0


def test_a_damaged_file_is_an_error(trained):
    trained.checkpoint.write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"portrait\.eti"):
        PictureProcess(trained)


def test_it_needs_a_file_and_helps_baked_portraits(trained):
    with pytest.raises(ValueError, match="expected a portrait that was loaded from a file, got one in memory"):
        PictureProcess(replace(trained, checkpoint=None))
    assert PictureProcess.helps(trained) == (usable_cores() > 1)
    assert not PictureProcess.helps(replace(trained, checkpoint=None))
    assert not PictureProcess.helps(replace(trained, baked=None))
