"""Training with expression dials, on a capture that has a face mesh."""

import dataclasses
import shutil

import numpy as np
import pytest
import torch

from ernerf_ti.data.capture import open_capture
from ernerf_ti.data.capture_files import CaptureError
from ernerf_ti.data.dials import read_dials
from ernerf_ti.evaluation.held_out import select_frames
from ernerf_ti.run.trained_portrait import load_portrait
from ernerf_ti.train.trainer import Trainer
from tests.data import moving_face
from tests.data.test_dials import write_mesh

NAMES = ("brows", "gaze-x", "gaze-y")


@pytest.fixture(scope="module")
def with_mesh(capture, tmp_path_factory):
    """The tiny capture with the mesh of another face that moves at random."""
    folder = tmp_path_factory.mktemp("mesh") / "capture"
    shutil.copytree(capture.folder, folder)
    rng, n = np.random.default_rng(0), len(capture.eye_closures)
    brows, smile, opening = rng.normal(0, 0.002, (3, n))
    points = moving_face.moved(brows, smile, rng.normal(0, 0.001, (n, 2)), abs(opening))
    write_mesh(folder, moving_face.seen(points, rng).astype(np.float32), moving_face.mean_shape())
    return open_capture(folder)


@pytest.fixture
def with_dials(config):
    head = dataclasses.replace(config.portrait.head, dials=("brows", "gaze"))
    return dataclasses.replace(config, portrait=dataclasses.replace(config.portrait, head=head))


def test_frames_are_trained_with_their_own_values(with_mesh, with_dials, tmp_path):
    trainer = Trainer(with_mesh, with_dials, tmp_path / "run")
    expected = read_dials(with_mesh.folder, NAMES, with_mesh.eye_closures)
    i = 3
    for index in (i, torch.tensor([i])):
        own = trainer.frames.inputs(index, context=torch.tensor([0]))
        assert own.dials.tolist() == expected.values[with_mesh.train.frame_ids[i]].tolist()
    held_out = trainer.held_out.inputs(0, trained=False)
    assert held_out.dials.tolist() == expected.values[with_mesh.val.frame_ids[0]].tolist()
    assert torch.equal(trainer.portrait.head.dials.boxes, torch.from_numpy(expected.boxes))
    before = {name: p.detach().clone() for name, p in trainer.portrait.head.dials.named_parameters()}
    columns = trainer.portrait.head.density_net.first_weight.detach()[:, -3:].clone()
    # As if it had the whole scene: the face of the mesh is not where the synthetic person's one is.
    trainer.portrait.head.dials.boxes.copy_(torch.tensor([[-1.0, -1.0], [1.0, 1.0]]).expand(3, 2, 2, 2))
    for _ in range(3):
        trainer.train_step()
    for name, parameter in trainer.portrait.head.dials.named_parameters():
        assert not torch.equal(parameter, before[name]), name
    changed = (trainer.portrait.head.density_net.first_weight[:, -3:] - columns).abs()
    assert (changed.amax(0) > 0).all()


def test_a_run_keeps_its_dials(with_mesh, with_dials, tmp_path):
    folder = tmp_path / "run"
    Trainer(with_mesh, with_dials, folder).run(("head",))
    trained = load_portrait(folder)
    assert trained.dial_names == NAMES
    assert torch.equal(Trainer.resume(with_mesh, folder).portrait.head.dials.boxes, trained.portrait.head.dials.boxes)
    held_out = select_frames(with_mesh, 1, None, "cpu", trained.dial_names)
    assert held_out.frames.inputs(0, trained=False).dials.shape == (3,)
    assert select_frames(with_mesh, 1, None, "cpu").frames.inputs(0, trained=False).dials is None
    assert trained.dials({"gaze-y": 1.5}).tolist() == [0, 0, 1.5] and trained.dials({}) is None
    with pytest.raises(ValueError, match=r"a dial of this portrait \(brows, gaze-x, gaze-y\), got smile"):
        trained.dials({"smile": 1.0})


def test_a_capture_without_mesh_trains_without_dials_alone(capture, config, with_dials, tmp_path):
    assert Trainer(capture, config, tmp_path / "run").frames.inputs(0).dials is None
    with pytest.raises(CaptureError, match=r"mesh.npz: expected the face mesh .*train without --portrait.head.dials"):
        Trainer(capture, with_dials, tmp_path / "run")
