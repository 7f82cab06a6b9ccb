"""Training: what it learns, that a resumed run equals an uninterrupted one, and what it writes."""

import dataclasses
import itertools
import json
import threading
from time import perf_counter, sleep

import pytest
import torch

from ernerf_ti.portrait.camera import all_pixels, pixel_coords
from ernerf_ti.run.checkpoint import load_checkpoint
from ernerf_ti.run.serialization import config_from_dict
from ernerf_ti.run.trained_portrait import load_portrait
from ernerf_ti.train import training_frames
from ernerf_ti.train.config import PRESETS, STAGES, TrainConfig
from ernerf_ti.train.trainer import Trainer, TrainingError
from ernerf_ti.train.training_log import training_seconds


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


@pytest.fixture
def config(config):
    """With all kinds of random draws."""
    finetune = dataclasses.replace(config.finetune, parts_density=2, eyes_every=2)
    return dataclasses.replace(config, rare_frames_fraction=0.5, finetune=finetune)


@pytest.fixture(scope="module")
def uninterrupted(capture, tmp_path_factory):
    """Made once, by a config like that of the fixture."""
    return tmp_path_factory.mktemp("runs") / "whole"


def stop_after(n: int):
    calls = itertools.count(1)
    return lambda: next(calls) >= n


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


def test_frames_read_ahead_by_threads_give_the_same_bits(capture, config, uninterrupted, tmp_path, monkeypatch):
    if not (uninterrupted / "checkpoint.pt").exists():
        assert Trainer(capture, config, uninterrupted).run()
    monkeypatch.setattr(training_frames, "decoding_threads", lambda device: 3)
    for name, memory in (("none", 0), ("some", 5 * 48 * 48 * 8)):
        trainer = Trainer(capture, config, tmp_path / name, frame_memory=memory)
        assert trainer.run()
        assert not any(thread.name.startswith("decode") for thread in threading.enumerate())
        assert_same(state(tmp_path / name), state(uninterrupted))


@pytest.mark.parametrize("n_head", [0, 4])
def test_a_stage_that_was_left_out_is_not_passed_over_in_silence(capture, config, tmp_path, n_head):
    trainer = Trainer(capture, config, tmp_path / "run")
    if n_head:
        assert not trainer.run(should_stop=stop_after(n_head))
    assert trainer.run(("torso",))
    before = (tmp_path / "run" / "checkpoint.pt").read_bytes()
    for trained in (trainer, Trainer.resume(capture, tmp_path / "run")):
        with pytest.raises(ValueError, match=r"expected stages from torso on, .* got also head, finetune, not trained"):
            trained.run()
        with pytest.raises(ValueError, match=r"got also finetune, .* choose from torso with --stages"):
            trained.run(("finetune", "torso"))
        assert trained.run(("torso",))  # nothing is left to do
    assert (tmp_path / "run" / "checkpoint.pt").read_bytes() == before


def test_stages_one_after_the_other_leave_none_out(capture, config, tmp_path):
    config = dataclasses.replace(config, finetune=dataclasses.replace(config.finetune, iterations=0))
    for stage in ("head", "torso"):
        folder = tmp_path / "run"
        is_new = not folder.exists()
        trainer = Trainer(capture, config, folder) if is_new else Trainer.resume(capture, folder)
        assert trainer.run((stage,))
    assert Trainer.resume(capture, tmp_path / "run").run()


def log_of(folder) -> list[dict]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def test_files_of_a_run(capture, config, tmp_path):
    auto = dataclasses.replace(config, finetune=dataclasses.replace(config.finetune, perceptual="auto"))
    trainer = Trainer(capture, auto, tmp_path)
    assert trainer.run()
    assert trainer.config.finetune.perceptual != "auto" and len(trainer.notes) == 1
    assert config_from_dict(TrainConfig, json.loads((tmp_path / "config.json").read_text())) == trainer.config
    lines = log_of(tmp_path)
    assert {line["stage"] for line in lines} == set(STAGES)
    assert set(lines[0]) == {"stage", "step", "loss", "loss_terms", "statistics", "seconds"}
    assert set(lines[0]["statistics"]) == {"psnr", "rays_per_second", "samples_per_ray"}
    attention = {"audio_attention", "eye_attention", "attention_outside"}
    assert set(lines[0]["loss_terms"]) == {"color", "opacity_entropy", *attention}
    for line in lines:
        if "loss" in line:
            assert line["loss"] == pytest.approx(sum(line["loss_terms"].values()))
    assert sum("validation_psnr" in line["statistics"] for line in lines) >= 3
    assert {"head_000005.png", "head_000010.png", "finetune_000004.png", "torso_000006.png"} <= {
        path.name for path in (tmp_path / "validation").iterdir()
    }
    assert any((tmp_path / "tensorboard").iterdir())


def test_overfits_a_few_frames(capture, config, tmp_path):
    longer = dataclasses.replace(
        config, head=dataclasses.replace(config.head, iterations=120, n_rays=1024), log_every=1000, validate_every=1000
    )
    trainer = Trainer(capture, longer, tmp_path)
    errors = [float(trainer.train_step().statistics.mse) for _ in range(120)]
    first, last = sum(errors[:10]), sum(errors[-10:])
    assert last < first / 8


def test_random_backgrounds_identify_the_opacity_of_the_torso(capture, config, tmp_path):
    coords = pixel_coords(all_pixels(capture.height, capture.width), capture.height, capture.width)
    true = torch.from_numpy(capture.torso(int(capture.train.frame_ids[0]))[..., 3]).flatten() / 255

    def error(fraction: float) -> float:
        longer = dataclasses.replace(
            config,
            torso=dataclasses.replace(config.torso, iterations=150, n_rays=2048),
            random_background_fraction=fraction,
        )
        trainer = Trainer(capture, longer, tmp_path / str(fraction))
        trainer.start_stage("torso")
        for _ in range(150):
            trainer.train_step()
        with torch.no_grad():
            alpha = trainer.portrait.torso(coords, trainer.frames.poses[0], 0).alpha
        return float((alpha - true).square().mean())

    assert error(0.125) < 0.3 * error(0.0)


def test_stages_train_only_their_own_parameters(capture, config, tmp_path):
    trainer = Trainer(capture, config, tmp_path)
    for stage, prefix in (("head", "head."), ("finetune", "head."), ("torso", "torso.")):
        trainer.start_stage(stage)
        before = {name: p.detach().clone() for name, p in trainer.portrait.named_parameters()}
        trainer.train_step()
        changed = {name for name, p in trainer.portrait.named_parameters() if not torch.equal(p, before[name])}
        assert changed and all(name.startswith(prefix) for name in changed)


def test_cameras_are_refined_if_asked(capture, config, tmp_path):
    trainer = Trainer(capture, dataclasses.replace(config, refine_cameras=True), tmp_path / "a")
    trainer.train_step()
    moved = trainer.cameras.translations.detach().abs().sum(1) > 0
    assert moved.sum() == 1  # the frame of the step
    fixed = Trainer(capture, config, tmp_path / "b")
    fixed.train_step()
    assert not fixed.cameras.translations.any()


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
    with pytest.raises(
        TrainingError,
        match=r"stage head, step 2: expected a finite loss, got nan; .* holds stage head, step 1; train with lower",
    ):
        trainer.run()


def test_another_capture_is_refused(capture, config, tmp_path):
    Trainer(capture, config, tmp_path).save()
    other = dataclasses.replace(
        capture, train=dataclasses.replace(capture.train, frame_ids=capture.train.frame_ids[:5])
    )
    with pytest.raises(ValueError, match="expected a run of this capture"):
        Trainer.resume(other, tmp_path)


def test_missing_weights_are_reported_before_the_first_step(capture, config, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    lpips = dataclasses.replace(config, finetune=dataclasses.replace(config.finetune, perceptual="lpips"))
    trainer = Trainer(capture, lpips, tmp_path / "run")
    with pytest.raises(
        FileNotFoundError, match="perceptual: it needs AlexNet's weights: download alexnet-owt"
    ) as error:
        trainer.run()
    assert "--finetune.perceptual dssim or none" in str(error.value)
    assert trainer.step == 0


def test_bad_weights_are_never_saved(capture, config, tmp_path):
    rarely = dataclasses.replace(config, log_every=1000, save_every=1000)
    trainer = Trainer(capture, rarely, tmp_path)
    trainer.train_step()
    trainer.save()
    good = (tmp_path / "checkpoint.pt").read_bytes()
    with torch.no_grad():
        trainer.portrait.head.color_net.layers[0].weight[0, 0] = torch.inf
    expected = (
        r"stage head, step 2: expected finite weights, got NaN or infinity in portrait.head.*, not saved; .*holds"
    )
    with pytest.raises(TrainingError, match=expected):
        trainer.run(should_stop=lambda: True)
    assert (tmp_path / "checkpoint.pt").read_bytes() == good
    fresh = Trainer(capture, config, tmp_path / "other")
    with torch.no_grad():
        fresh.average.state_dict()["average.head.density_net.layers.0.weight"].fill_(torch.nan)
    with pytest.raises(TrainingError, match=r"in average.head.density_net.*; nothing was saved before"):
        fresh.save()
    assert not (tmp_path / "other").exists()


def test_no_step_is_logged_twice(capture, config, tmp_path):
    trainer = Trainer(capture, config, tmp_path)
    assert not trainer.run(should_stop=stop_after(8))
    checkpoint = (tmp_path / "checkpoint.pt").read_bytes()
    before = log_of(tmp_path)
    assert [line["step"] for line in before if "loss" in line] == [2, 4, 6, 8]
    trainer = Trainer.resume(capture, tmp_path)
    assert trainer.stage_seconds["head"] >= before[-1]["seconds"]
    assert not trainer.run(("head",), should_stop=stop_after(2))
    (tmp_path / "checkpoint.pt").write_bytes(checkpoint)  # as if it had been killed before it saved
    trainer = Trainer.resume(capture, tmp_path)
    assert log_of(tmp_path) == before
    assert trainer.run(("head",))
    lines = [line for line in log_of(tmp_path) if "loss" in line]
    assert [line["step"] for line in lines] == [2, 4, 6, 8, 10]
    seconds = [line["seconds"] for line in lines]
    assert seconds == sorted(seconds)
    assert training_seconds(tmp_path / "log.jsonl") == {"head": seconds[-1]}
    assert trainer.stage_seconds["head"] == pytest.approx(seconds[-1], rel=1)  # and the last validation
    assert scalar_steps(tmp_path, "head/loss") == [2, 4, 6, 8, 10]


def scalar_steps(folder, tag: str) -> list[int]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    return [event.step for event in events.Scalars(tag)]


def test_a_new_run_has_a_new_log(capture, config, tmp_path):
    Trainer(capture, config, tmp_path).run(("head",))
    (tmp_path / "checkpoint.pt").unlink()
    Trainer(capture, config, tmp_path).run(("torso",))
    assert {line["stage"] for line in log_of(tmp_path)} == {"torso"}
    assert scalar_steps(tmp_path, "torso/loss") == [2, 4, 6]
    with pytest.raises(KeyError):
        scalar_steps(tmp_path, "head/loss")


def test_steps_are_reported(capture, config, tmp_path):
    reports = []
    trainer = Trainer(capture, config, tmp_path)
    assert trainer.run(on_step=reports.append)
    assert [(report.stage, report.step) for report in reports] == [
        (stage, step + 1) for stage in STAGES for step in range(getattr(config, stage).iterations)
    ]
    for report in reports:
        torch.testing.assert_close(report.loss, sum(report.terms.values()))
        assert not report.loss.requires_grad and report.statistics.n_rays > 0
    assert "perceptual" in reports[config.head.iterations].terms


def test_paused_time_does_not_count(capture, config, tmp_path):
    def pause() -> bool:
        sleep(0.5)
        return False

    trainer = Trainer(capture, config, tmp_path)
    begin = perf_counter()
    assert trainer.run(("torso",), pause)
    assert trainer.stage_seconds["torso"] < perf_counter() - begin - 0.5 * (config.torso.iterations - 1)


def test_every_preset_takes_a_step(capture, tmp_path):
    """The shapes of the presets, with few rays and a coarse grid."""
    for name, preset in PRESETS.items():
        portrait = dataclasses.replace(
            preset.portrait, head_grid=dataclasses.replace(preset.portrait.head_grid, resolution=16)
        )
        stages = {stage: dataclasses.replace(getattr(preset, stage), n_rays=64) for stage in STAGES}
        stages["finetune"] = dataclasses.replace(stages["finetune"], patch_size=8)
        trainer = Trainer(capture, dataclasses.replace(preset, portrait=portrait, **stages), tmp_path / name)
        for stage in STAGES:
            trainer.start_stage(stage)
            before = [parameter.clone() for parameter in trainer.stages[stage].parameters().values()]
            assert torch.isfinite(trainer.train_step().loss)
            after = trainer.stages[stage].parameters().values()
            assert any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))
