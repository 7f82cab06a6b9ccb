"""Checkpoints of the public code as runs: rendered, trained further, and converted back."""

import dataclasses

import numpy as np
import pytest
import torch

from ernerf_ti.data.capture import open_capture
from ernerf_ti.interop.ngp_files import read_official_file
from ernerf_ti.interop.runs import extractor_of, write_official, write_run, write_still_run
from ernerf_ti.interop.tensors import is_parameter
from ernerf_ti.media.provenance.consent import Consent
from ernerf_ti.portrait.portrait import Portrait
from ernerf_ti.portrait.records import FrameInputs
from ernerf_ti.run.checkpoint import load_checkpoint
from ernerf_ti.run.trained_portrait import load_portrait
from ernerf_ti.synthesis.frames import render_frames
from ernerf_ti.train.config import PRESETS
from ernerf_ti.train.trainer import Trainer
from tests.interop.making import entries, random_tensors, save

STEPS = 100


@pytest.fixture(scope="module")
def capture(capture_folder):
    return open_capture(capture_folder, "deepspeech")


@pytest.fixture(scope="module")
def config():
    """Portraits of the public code's shape, and stages of 100 steps."""
    released = PRESETS["released"]
    stages = {
        name: dataclasses.replace(getattr(released, name), iterations=STEPS, n_rays=64) for name in ("head", "torso")
    }
    fine = dataclasses.replace(released.finetune, iterations=STEPS, n_rays=64, patch_size=8, perceptual="none")
    return dataclasses.replace(released, **stages, finetune=fine, validation_frames=1)


def file_of(path, tensors, **more):
    return read_official_file(save(path, tensors, **more))


def assert_round_trip(original, written):
    first, second = (torch.load(path, weights_only=True) for path in (original, written))
    expected = first["model"]
    expected.pop("density_grid", None)
    assert list(second["model"]) == list(expected)
    for name, tensor in expected.items():
        assert torch.equal(second["model"][name], tensor) and second["model"][name].dtype == tensor.dtype, name
    for name in entries():
        assert second[name] == first[name], name
    assert second.keys() == {*entries(), "model"}


@pytest.mark.parametrize("torso", [False, True])
def test_round_trip_with_a_capture(tensors, head_tensors, capture, config, tmp_path, torso):
    path, out = tmp_path / "ngp.pth", tmp_path / "out.pth"
    lines = write_run(file_of(path, tensors if torso else head_tensors), tmp_path / "run", capture, config)
    assert lines[0] == "appearance embeddings: the first 10 of 64"
    write_official(tmp_path / "run", out)
    assert_round_trip(path, out)


def test_the_consent_record_goes_both_ways(tensors, capture, config, tmp_path):
    consent = Consent("Jane Doe", "2026-11-01", "an audio guide")
    agreed = dataclasses.replace(capture, consent=consent)
    write_run(file_of(tmp_path / "ngp.pth", tensors), tmp_path / "run", agreed, config)
    assert load_portrait(tmp_path / "run").consent == consent
    write_official(tmp_path / "run", tmp_path / "out.pth")
    source = read_official_file(tmp_path / "out.pth")
    write_run(source, tmp_path / "run", capture, config)  # whose capture has no record
    write_still_run(source, tmp_path / "still", config)
    assert load_portrait(tmp_path / "run").consent == load_portrait(tmp_path / "still").consent == consent


@pytest.mark.parametrize(
    ("features", "extractor"), [(29, "deepspeech"), (44, "esperanto"), (1024, "hubert"), (32, "other")]
)
def test_round_trip_without_a_capture(config, tmp_path, features, extractor):
    path, out = tmp_path / "ngp.pth", tmp_path / "out.pth"
    lines = write_still_run(file_of(path, random_tensors(2, features, torso=False)), tmp_path / "run", config)
    assert "no capture was given" in lines[1]
    assert load_checkpoint(tmp_path / "run" / "checkpoint.pt")["capture"]["extractor"] == extractor
    assert extractor_of(features) == extractor
    write_official(tmp_path / "run", out)
    assert_round_trip(path, out)


def test_a_still_run_shows_the_face(tensors, config, tmp_path):
    write_still_run(file_of(tmp_path / "ngp.pth", tensors), tmp_path / "run", config)
    trained = load_portrait(tmp_path / "run")
    assert trained.size == (450, 450) and trained.extractor == "deepspeech"
    intrinsics = tuple(value * 32 / 450 for value in trained.intrinsics)
    small = dataclasses.replace(trained, size=(32, 32), intrinsics=intrinsics, background=torch.ones(32, 32, 3))
    windows = torch.zeros(1, 16, 29)
    output = next(render_frames(small, windows, small.poses, np.zeros(1), small.background, with_torso=False))
    assert output.eye_attention[16, 16] > 0  # the ball of occupied cells is in the middle of the image
    assert torch.equal(output.rgb[0, 0], torch.ones(3))


def test_a_run_renders_like_the_file(tensors, capture, config, tmp_path):
    source = file_of(tmp_path / "ngp.pth", tensors)
    write_run(source, tmp_path / "run", capture, config)
    trained, portrait = load_portrait(tmp_path / "run"), source.portrait()
    assert trained.size == (32, 32) and trained.poses.shape == (12, 4, 4) and trained.eye_closures.shape == (12,)
    conditioning = FrameInputs(torch.randn(8, 29, 16), torch.tensor([0.3]), 0, trained.poses[3])
    pictures = [
        part.render(conditioning, trained.intrinsics, trained.size, trained.background).rgb
        for part in (trained.portrait, portrait)
    ]
    assert torch.equal(*pictures)
    assert pictures[0].std() > 0.05


def test_a_converted_run_is_synthesized_like_in_the_public_code(tensors, capture, config, tmp_path):
    """In passes, with appearance embedding 0, and zeros for the four windows before the first."""
    source = file_of(tmp_path / "ngp.pth", tensors, global_step=5)
    write_run(source, tmp_path / "run", capture, config)
    trained, portrait = load_portrait(tmp_path / "run"), source.portrait()
    assert trained.as_published
    windows = torch.randn(8, 16, 29)
    rendered = next(render_frames(trained, windows, trained.poses, np.array([0.3]), trained.background))
    heard = torch.cat((torch.zeros(4, 29, 16), windows[:4].transpose(1, 2)))
    at = FrameInputs(heard, torch.tensor([0.3]), 0, trained.poses[0])
    expected = portrait.render(at, trained.intrinsics, trained.size, trained.background, in_passes=True)
    torch.testing.assert_close(rendered.rgb, expected.rgb, atol=1e-6, rtol=0)
    mean = portrait.render(
        dataclasses.replace(at, appearance_index=None), trained.intrinsics, trained.size, trained.background
    )
    assert (mean.rgb - rendered.rgb).abs().max() > 1e-3
    Trainer.resume(capture, tmp_path / "run").save()
    assert not load_portrait(tmp_path / "run").as_published  # trained here


@pytest.mark.parametrize(
    ("torso", "steps", "stage", "step", "ended"),
    [
        (False, 0, "head", 0, False),
        (False, 40, "head", 40, False),
        (False, STEPS, "finetune", 0, False),
        (False, STEPS + 1, "finetune", 1, False),
        (False, 5000, "finetune", STEPS, True),
        (True, 40, "torso", 40, False),
        (True, 5000, "torso", STEPS, True),
    ],
)
def test_training_continues_where_the_file_stopped(
    tensors, head_tensors, capture, config, tmp_path, torso, steps, stage, step, ended
):
    source = file_of(tmp_path / "ngp.pth", tensors if torso else head_tensors, global_step=steps)
    write_run(source, tmp_path / "run", capture, config)
    trainer = Trainer.resume(capture, tmp_path / "run")
    assert (trainer.stage, trainer.step, trainer.stage_finished) == (stage, step, ended)


def test_a_head_is_trained_further_and_converted_back(head_tensors, capture, config, tmp_path):
    source = file_of(tmp_path / "ngp.pth", head_tensors, global_step=STEPS - 2)
    write_run(source, tmp_path / "run", capture, config)
    trainer = Trainer.resume(capture, tmp_path / "run")
    for name, tensor in source.portrait().head.state_dict().items():
        if name not in ("appearance.embeddings", "audio_encoder.code_mean"):
            assert torch.equal(trainer.portrait.head.state_dict()[name], tensor), name
    assert trainer.run(("head",))
    load_portrait(tmp_path / "run")
    lines = write_official(tmp_path / "run", tmp_path / "out.pth")
    assert lines[1] == "trained here: appearance embedding 0 is the mean embedding"
    written = read_official_file(tmp_path / "out.pth")
    codes, trained = written.tensors["individual_codes"], trainer.portrait.head.appearance.embeddings.detach()
    assert codes.shape == (10_000, 4)
    torch.testing.assert_close(codes[0], trained.mean(0))
    assert torch.equal(codes[1:10], trained[1:])
    assert torch.equal(codes[10:], codes[:1].expand(9990, 4))
    assert not torch.equal(written.tensors["sigma_net.net.0.weight"], head_tensors["sigma_net.net.0.weight"])
    assert written.entries["global_step"] == STEPS and written.entries["epoch"] == 10
    assert torch.equal(written.tensors["density_bitfield"], trainer.portrait.head_grid.bitfield)


def test_a_torso_is_trained_further(tensors, capture, config, tmp_path):
    write_run(file_of(tmp_path / "ngp.pth", tensors, global_step=STEPS - 2), tmp_path / "run", capture, config)
    trainer = Trainer.resume(capture, tmp_path / "run")
    assert trainer.run(("torso",))
    write_official(tmp_path / "run", tmp_path / "out.pth")
    written = read_official_file(tmp_path / "out.pth")
    assert written.has_torso
    # This stage keeps the head fixed.
    assert torch.equal(written.tensors["encoder_xz.embeddings"], tensors["encoder_xz.embeddings"])
    assert not torch.equal(written.tensors["torso_net.net.0.weight"], tensors["torso_net.net.0.weight"])
    assert float(written.entries["mean_density_torso"]) == float(trainer.portrait.torso_grid.mean_alpha)


def test_requested_stage(tensors, capture, config, tmp_path):
    source = file_of(tmp_path / "ngp.pth", tensors, global_step=5000)
    lines = write_run(source, tmp_path / "run", capture, config, "finetune")
    assert lines[1] == "training continues with stage finetune, step 0"
    assert Trainer.resume(capture, tmp_path / "run").stage == "finetune"


# Epoch files


def optimizer_of(tensors, prefixes):
    """AdamW's state in the order of the public code's groups, with distinct moments per parameter."""
    names = [name for prefix in prefixes for name in tensors if name.startswith(prefix) and is_parameter(name)]
    state = {
        i: {"step": torch.tensor(77.0), "exp_avg": tensors[n] * 0.5, "exp_avg_sq": tensors[n].abs()}
        for i, n in enumerate(names)
    }
    return {"state": state, "param_groups": [{"lr": 0.01, "params": [i]} for i in range(len(names))]}


HEAD_GROUPS = ("audio_net.", "encoder_xy", "encoder_yz", "encoder_xz", "sigma_net", "color_net", "audio_att_net")
HEAD_GROUPS += ("individual_codes", "aud_ch_att_net", "unc_net", "eye_att_net")
TORSO_GROUPS = ("torso_encoder", "torso_net", "torso_deform_net", "anchor_points", "individual_codes_torso")


@pytest.mark.parametrize("torso", [False, True])
def test_optimizer_and_average_of_an_epoch_file(tensors, head_tensors, capture, config, tmp_path, torso):
    source = tensors if torso else head_tensors
    shadows = [t + 1 for name, t in source.items() if is_parameter(name)]
    more = {
        "optimizer": optimizer_of(source, TORSO_GROUPS if torso else HEAD_GROUPS),
        "ema": {"decay": 0.95, "num_updates": 7, "shadow_params": shadows, "collected_params": None},
        "global_step": 10,
        "lr_scheduler": {},
        "scaler": {},
    }
    source = source | {"density_grid": torch.rand(1, 128**3)}
    lines = write_run(file_of(tmp_path / "ngp_ep0001.pth", source, **more), tmp_path / "run", capture, config)
    n = 9 if torso else 39
    assert lines[2:] == [
        f"optimizer: converted ({n} of {n} parameters)",
        "moving average of the weights: converted (7 updates)",
    ]
    trainer = Trainer.resume(capture, tmp_path / "run")
    named = {name: p for name, p in trainer.portrait.named_parameters() if p.requires_grad}
    assert len(named) == (9 if torso else 37)
    average = trainer.average.state_dict()
    for name, parameter in named.items():
        state = trainer.optimizer.state[parameter]
        assert float(state["step"]) == 77
        assert torch.equal(state["exp_avg"], parameter * 0.5), name
        assert torch.equal(state["exp_avg_sq"], parameter.abs()), name
        torch.testing.assert_close(average[f"average.{name}"], parameter.detach() + 1)
    assert average["n"] == 7
    if not torso:
        assert torch.equal(trainer.portrait.head_grid.density_grid, source["density_grid"])
    trainer.train_step()
    write_official(tmp_path / "run", tmp_path / "out.pth")
    assert_round_trip(tmp_path / "ngp_ep0001.pth", tmp_path / "out.pth")


def test_optimizer_that_does_not_match_is_reset(head_tensors, capture, config, tmp_path):
    state = optimizer_of(head_tensors, HEAD_GROUPS[1:])
    source = file_of(tmp_path / "ngp_ep0001.pth", head_tensors, optimizer=state, global_step=1)
    assert "optimizer: reset (the file's has 27 parameters" in write_run(source, tmp_path / "a", capture, config)[2]
    assert "belongs to another stage than torso" in write_run(source, tmp_path / "b", capture, config, "torso")[2]


@pytest.mark.parametrize(
    "state",
    [
        {},
        {"param_groups": [{"params": 3}], "state": {}},
        {"param_groups": None, "state": []},
        {"param_groups": [{"params": list(range(38))}], "state": {k: {"exp_avg": "x"} for k in range(38)}},
    ],
    ids=["empty", "number", "none", "text"],
)
def test_optimizer_that_is_none_is_reset(head_tensors, capture, config, tmp_path, state):
    source = file_of(tmp_path / "ngp_ep0001.pth", head_tensors, optimizer=state, global_step=1)
    line = write_run(source, tmp_path / "a", capture, config)[2]
    assert line.startswith("optimizer: reset (the file's")


# Errors


def test_a_trained_run_is_not_overwritten(head_tensors, capture, config, tmp_path):
    source = file_of(tmp_path / "ngp.pth", head_tensors, global_step=1)
    run = tmp_path / "run"
    write_still_run(source, run, config)
    write_run(source, run, capture, config)  # nothing is lost: it was converted and not trained
    Trainer.resume(capture, run).save()
    for write in (lambda: write_run(source, run, capture, config), lambda: write_still_run(source, run, config)):
        with pytest.raises(ValueError, match=r"run: expected a folder without a run, or one whose run was converted"):
            write()


def test_features_of_another_dimension(capture_folder, config, tmp_path):
    source = file_of(tmp_path / "ngp.pth", random_tensors(1, 44, torso=False))
    with pytest.raises(ValueError, match=r"expected audio features of dimension 44 .*, got 29 \(deepspeech\)"):
        write_run(source, tmp_path / "run", open_capture(capture_folder, "deepspeech"), config)


def test_fewer_embeddings_than_frames(capture, config, tmp_path):
    source = file_of(tmp_path / "ngp.pth", random_tensors(1, torso=False, embeddings=9))
    with pytest.raises(ValueError, match="individual_codes: expected at least 10 rows, one per training frame, got 9"):
        write_run(source, tmp_path / "run", capture, config)


def test_a_run_of_another_shape_is_not_written(capture, tmp_path):
    Trainer(capture, PRESETS["small"], tmp_path / "run").save()
    with pytest.raises(ValueError, match=r"expected a portrait of the shape of ER-NeRF's .*, got another head; train"):
        write_official(tmp_path / "run", tmp_path / "out.pth")
    assert not (tmp_path / "out.pth").exists()


def test_features_are_not_scaled(head_tensors, capture, config, tmp_path):
    standardized = dataclasses.replace(config, standardize_audio=True)
    write_run(file_of(tmp_path / "ngp.pth", head_tensors, global_step=1), tmp_path / "run", capture, standardized)
    assert not Trainer.resume(capture, tmp_path / "run").portrait.head.audio_encoder.feature_mean.any()
    Trainer(capture, standardized, tmp_path / "other").save()
    with pytest.raises(ValueError, match="expected a portrait of unscaled audio features, got one of standardized"):
        write_official(tmp_path / "other", tmp_path / "out.pth")


def test_number_of_parameters_is_that_of_the_public_code():
    portrait = Portrait(PRESETS["released"].portrait, 29, 10_000)
    assert sum(p.numel() for p in portrait.parameters()) == 1_787_681
