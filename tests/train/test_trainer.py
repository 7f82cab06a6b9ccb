"""Training: what it learns, and that a resumed run is the run that never stopped."""

import dataclasses
import itertools
import json

import pytest
import torch

from ernerf_ti.portrait.camera import all_pixels, pixel_coords
from ernerf_ti.run.checkpoint import load_checkpoint
from ernerf_ti.run.serialization import config_from_dict
from ernerf_ti.run.trained_portrait import load_portrait
from ernerf_ti.train.config import STAGES, TrainConfig
from ernerf_ti.train.trainer import Trainer, TrainingError


def state(folder) -> dict:
    content = load_checkpoint(folder / "checkpoint.pt")
    parts = {f"portrait.{key}": value for key, value in content["portrait"].items()}
    for group, values in content["optimizer"]["state"].items():
        parts |= {f"optimizer.{group}.{key}": value for key, value in values.items()}
    return parts | {f"average.{key}": value for key, value in content["average"].items()}


def assert_same(a: dict, b: dict) -> None:
    assert a.keys() == b.keys()
    for key, value in a.items():
        assert torch.equal(torch.as_tensor(value), torch.as_tensor(b[key])), key


@pytest.fixture(scope="module")
def uninterrupted(capture, tmp_path_factory):
    """Made once, by a config like that of the fixture."""
    return tmp_path_factory.mktemp("runs") / "whole"


def stop_after(n: int):
    asked = itertools.count(1)
    return lambda: next(asked) >= n


@pytest.mark.parametrize("stops", [[3], [10, 1], [1, 9, 4, 2]])
def test_interrupted_run_gives_the_same_bits(capture, config, uninterrupted, tmp_path, stops):
    if not (uninterrupted / "checkpoint.pt").exists():
        assert Trainer(capture, config, uninterrupted).run()
    trainer = Trainer(capture, config, tmp_path)
    for n in stops:
        assert not trainer.run(should_stop=stop_after(n))
        trainer = Trainer.resume(capture, tmp_path)
    assert trainer.run()
    assert_same(state(tmp_path), state(uninterrupted))


def test_run_folder_tells_its_story(capture, config, tmp_path):
    assert Trainer(capture, config, tmp_path).run()
    assert config_from_dict(TrainConfig, json.loads((tmp_path / "config.json").read_text())) == config
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert {line["stage"] for line in lines} == set(STAGES)
    assert {"loss", "psnr", "rays_per_s", "samples_per_ray"} <= set(lines[0])
    assert sum("validation_psnr" in line for line in lines) >= 3
    assert {"head_000005.png", "head_000010.png", "finetune_000004.png", "torso_000006.png"} <= {
        path.name for path in (tmp_path / "validation").iterdir()
    }
    assert any((tmp_path / "tensorboard").iterdir())


def test_overfits_a_few_frames(capture, config, tmp_path):
    longer = dataclasses.replace(
        config, head=dataclasses.replace(config.head, iterations=120, n_rays=1024), log_every=1000, validate_every=1000
    )
    trainer = Trainer(capture, longer, tmp_path)
    errors = [float(trainer.train_step()["measured_mse"]) for _ in range(120)]
    first, last = sum(errors[:10]), sum(errors[-10:])
    assert last < first / 8


def test_noise_behind_the_torso_tells_where_it_is_opaque(capture, config, tmp_path):
    coords = pixel_coords(all_pixels(capture.height, capture.width), capture.height, capture.width)
    true = torch.from_numpy(capture.torso(int(capture.train.frame_ids[0]))[..., 3]).flatten() / 255

    def error(share: float) -> float:
        longer = dataclasses.replace(
            config,
            torso=dataclasses.replace(config.torso, iterations=150, n_rays=2048),
            random_background_fraction=share,
        )
        trainer = Trainer(capture, longer, tmp_path / str(share))
        trainer.start_stage("torso")
        for _ in range(150):
            trainer.train_step()
        with torch.no_grad():
            alpha = trainer.portrait.torso(coords, trainer.frames.poses[0], 0).alpha
        return float((alpha - true).square().mean())

    assert error(0.125) < 0.3 * error(0.0)


def test_stages_train_their_own_part_only(capture, config, tmp_path):
    trainer = Trainer(capture, config, tmp_path)
    for stage, part in (("head", "head."), ("torso", "torso.")):
        trainer.start_stage(stage)
        before = {name: p.detach().clone() for name, p in trainer.portrait.named_parameters()}
        trainer.train_step()
        changed = {name for name, p in trainer.portrait.named_parameters() if not torch.equal(p, before[name])}
        assert changed and all(name.startswith(part) for name in changed)


def test_cameras_are_refined_if_asked(capture, config, tmp_path):
    trainer = Trainer(capture, dataclasses.replace(config, refine_cameras=True), tmp_path / "a")
    trainer.train_step()
    moved = trainer.cameras.translations.detach().abs().sum(1) > 0
    assert moved.sum() == 1  # the frame of the step
    still = Trainer(capture, config, tmp_path / "b")
    still.train_step()
    assert not still.cameras.translations.any()


def test_one_stage_alone(capture, config, tmp_path):
    trainer = Trainer(capture, config, tmp_path)
    assert trainer.run(("torso",))
    assert load_checkpoint(tmp_path / "checkpoint.pt")["stage"] == "torso"


def test_checkpoint_is_a_portrait(capture, config, tmp_path):
    trainer = Trainer(capture, config, tmp_path)
    assert trainer.run()
    trained = load_portrait(tmp_path)
    assert (trained.extractor, trained.feature_dimension, trained.size) == ("ppg", 42, (48, 48))
    assert_same(trained.portrait.state_dict(), trainer.portrait.state_dict())
    assert len(trained.poses) == 22


def test_divergence_stops_with_the_step(capture, config, tmp_path):
    trainer = Trainer(capture, config, tmp_path)
    trainer.train_step()
    trainer.save()
    with torch.no_grad():
        trainer.portrait.head.density_net.layers[0].weight.fill_(torch.nan)
    with pytest.raises(TrainingError, match="stage head, step 2: expected a finite loss, got nan; the last good state"):
        trainer.run()


def test_another_capture_is_refused(capture, config, tmp_path):
    Trainer(capture, config, tmp_path).save()
    other = dataclasses.replace(
        capture, train=dataclasses.replace(capture.train, frame_ids=capture.train.frame_ids[:5])
    )
    with pytest.raises(ValueError, match="expected a run of this capture"):
        Trainer.resume(other, tmp_path)


def test_missing_weights_are_said_before_the_first_step(capture, config, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    lpips = dataclasses.replace(config, finetune=dataclasses.replace(config.finetune, perceptual="lpips"))
    trainer = Trainer(capture, lpips, tmp_path / "run")
    with pytest.raises(FileNotFoundError, match=r"alexnet-owt-7be5be79.pth: expected AlexNet's weights") as error:
        trainer.run()
    assert "--finetune.perceptual dssim or none" in str(error.value)
    assert trainer.step == 0
