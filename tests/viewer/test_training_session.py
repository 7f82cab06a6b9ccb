"""Training in time slices, and the viewer that shows it."""

import numpy as np
import pytest
import torch

from ernerf_ti.run.checkpoint import load_checkpoint
from ernerf_ti.train.trainer import Trainer
from ernerf_ti.viewer import app
from ernerf_ti.viewer.clip import capture_clip
from ernerf_ti.viewer.sound import SilentOutput
from ernerf_ti.viewer.training_session import TrainingSession
from ernerf_ti.viewer.viewer import RuntimeOptions, Viewer
from tests.train.conftest import capture, config  # noqa: F401, the tiny capture of the trainer's own tests
from tests.viewer.conftest import Layout


@pytest.fixture
def session(capture, config, tmp_path):  # noqa: F811
    session = TrainingSession(Trainer(capture, config, tmp_path / "sliced"), ("head", "torso"))
    yield session
    session.close()


def test_sliced_training_equals_plain_training(capture, config, tmp_path, session):  # noqa: F811
    n_slices = 0
    while not session.finished:
        session.advance(0.0)
        n_slices += 1
    assert n_slices >= config.head.iterations + config.torso.iterations
    plain = Trainer(capture, config, tmp_path / "plain")
    plain.run(("head", "torso"))
    expected = load_checkpoint(tmp_path / "plain" / "checkpoint.pt")["portrait"]
    got = load_checkpoint(tmp_path / "sliced" / "checkpoint.pt")["portrait"]
    assert all(torch.equal(got[name], expected[name]) for name in expected)
    curve = session.curve
    assert [p.step for p in curve if p.stage == "head"] == list(range(1, config.head.iterations + 1))
    assert all(np.isfinite([p.loss, p.psnr]).all() for p in curve)
    assert session.text.endswith("trained to the end")
    session.advance(1.0)
    assert len(curve) == config.head.iterations + config.torso.iterations


def test_one_step_at_a_time(session):
    for n in (1, 2, 3):
        session.advance(0.0)
        assert session.trainer.step == n == session.weights_version
    session.save()
    assert load_checkpoint(session.trainer.folder / "checkpoint.pt")["step"] == 3


def test_stopping_saves(session):
    session.advance(0.0)
    session.close()
    assert session.finished
    assert load_checkpoint(session.trainer.folder / "checkpoint.pt")["step"] >= 1


def test_errors_arrive(session, monkeypatch):
    def broken():
        raise ValueError("no")

    monkeypatch.setattr(session.trainer, "train_step", broken)
    with pytest.raises(ValueError, match="no"):
        session.advance(0.0)
    assert session.finished


def test_viewer_of_a_training(session, time, tmp_path):
    trained = session.portrait()
    clip = capture_clip(trained, session.trainer.capture)
    options = RuntimeOptions(tmp_path, Layout(320, 240), refine_seconds=float("inf"), train_seconds=0.0)
    viewer = Viewer(trained, clip, SilentOutput(time=time), options, time, training=session, own_clip=clip)
    viewer.act({"set": {"auto_scale": False, "numbers": False}})

    def tick():
        time.frame += 30
        return viewer.tick()

    before = tick()
    assert np.array_equal(tick(), before)
    viewer.act({"key": "u"})
    assert session.trainer.step == 1
    after = tick()
    assert not np.array_equal(after[8:118, 52:312], before[8:118, 52:312])  # the curves
    viewer.act({"key": "y"})
    tick()
    tick()
    assert session.trainer.step == 3 and viewer.view.request.weights_version == 3
    viewer.act({"set": {"mode": "occupancy"}})
    tick()
    viewer.act({"key": "y"})
    tick()
    assert session.trainer.step == 4
    viewer.act({"key": "k"})
    assert load_checkpoint(viewer.written[0])["step"] == 4
    viewer.act({"key": "y"})
    for _ in range(40):
        if not viewer.state.training:
            break
        tick()
    assert session.finished and viewer.message == "training finished"
    viewer.close()


def test_training_opens_with_its_window(capture, config, tmp_path, monkeypatch):  # noqa: F811
    """What `train --view` does; the window is replaced by ticks."""
    seen = []

    def ticks(viewer):
        while viewer.state.training:
            seen.append(viewer.tick().shape)
            viewer.shown()
        viewer.close()

    monkeypatch.setattr(app, "check_display", lambda: None)
    monkeypatch.setattr(app, "run_window", ticks)
    trainer = Trainer(capture, config, tmp_path / "run")
    assert app.watch_training(trainer, ("head",))
    assert trainer.step == config.head.iterations and len(seen) > 1
    assert load_checkpoint(tmp_path / "run" / "checkpoint.pt")["stage_finished"]
