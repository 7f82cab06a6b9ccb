"""Training with networks in half precision."""

import dataclasses

import pytest
import torch

from ernerf_ti.run.checkpoint import load_checkpoint
from ernerf_ti.run.trained_portrait import load_portrait
from ernerf_ti.train.head_stages import HeadStage
from ernerf_ti.train.trainer import Trainer, TrainingError
from tests.train.test_trainer import assert_same, state, stop_after

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def in_half(config, precision: str):
    return dataclasses.replace(config, precision=precision)


def test_float32_on_the_cpu_by_default(capture, config, tmp_path):
    trainer = Trainer(capture, config, tmp_path)
    assert trainer.portrait.precision == torch.float32 and not trainer.scaler.is_enabled()


@pytest.mark.parametrize("precision", DTYPES)
def test_learns_as_in_float32(capture, config, tmp_path, precision):
    longer = dataclasses.replace(config, head=dataclasses.replace(config.head, iterations=40, n_rays=512))
    errors = {}
    for name in ("float32", precision):
        trainer = Trainer(capture, in_half(longer, name), tmp_path / name)
        errors[name] = [float(trainer.train_step().statistics.mse) for _ in range(40)]
    assert trainer.portrait.precision == DTYPES[precision]
    assert all(p.dtype == torch.float32 for p in trainer.portrait.parameters())
    ends = {name: sum(values[-10:]) for name, values in errors.items()}
    assert ends["float32"] < sum(errors["float32"][:10]) / 4
    assert ends[precision] == pytest.approx(ends["float32"], rel=0.1)


@pytest.mark.parametrize("precision", DTYPES)
def test_interrupted_run_gives_the_same_bits(capture, config, tmp_path, precision):
    config = in_half(config, precision)
    assert Trainer(capture, config, tmp_path / "whole").run()
    assert not Trainer(capture, config, tmp_path / "parts").run(should_stop=stop_after(7))
    trainer = Trainer.resume(capture, tmp_path / "parts")
    assert trainer.portrait.precision == DTYPES[precision]
    assert trainer.run()
    assert_same(state(tmp_path / "parts"), state(tmp_path / "whole"))
    scalers = [load_checkpoint(tmp_path / name / "checkpoint.pt")["scaler"] for name in ("whole", "parts")]
    assert scalers[0] == scalers[1] and bool(scalers[0]) == (precision == "fp16")


def test_an_overflow_skips_the_step(capture, config, tmp_path):
    trainer = Trainer(capture, in_half(config, "fp16"), tmp_path)
    trainer.train_step()
    trainer.scaler.update(2.0**80)
    before = {name: p.detach().clone() for name, p in trainer.portrait.named_parameters()}
    trainer.train_step()
    assert_same(before, {name: p.detach() for name, p in trainer.portrait.named_parameters()})
    assert trainer.scaler.get_scale() == 2.0**79


def test_a_loss_that_overflows_is_logged_until_a_smaller_scale_does_not_help(capture, config, tmp_path, monkeypatch):
    def overflows(stage, *arguments):
        result = of_step(stage, *arguments)
        return dataclasses.replace(result, terms={"color": result.terms["color"] * torch.inf})

    of_step = HeadStage.loss
    monkeypatch.setattr(HeadStage, "loss", overflows)
    options = dataclasses.replace(in_half(config, "fp16"), head=dataclasses.replace(config.head, iterations=30))
    with pytest.raises(TrainingError, match=r"stage head, step 18: expected a finite loss, got (nan|inf)"):
        Trainer(capture, options, tmp_path).run(("head",))
    assert len((tmp_path / "log.jsonl").read_text().splitlines()) >= 8  # a line every two steps


def test_a_run_continues_in_fp16_from_a_checkpoint_without_a_scale(capture, config, tmp_path):
    Trainer(capture, in_half(config, "fp16"), tmp_path).save()
    content = load_checkpoint(tmp_path / "checkpoint.pt")
    assert content.pop("scaler")
    torch.save(content, tmp_path / "checkpoint.pt")
    trainer = Trainer.resume(capture, tmp_path)
    assert trainer.scaler.is_enabled() and torch.isfinite(trainer.train_step().loss)


def test_a_portrait_is_loaded_in_a_precision(capture, config, tmp_path):
    Trainer(capture, in_half(config, "bf16"), tmp_path).save()
    assert load_portrait(tmp_path).portrait.precision == torch.float32
    trained = load_portrait(tmp_path, precision=torch.bfloat16)
    assert trained.portrait.precision == torch.bfloat16
    assert all(p.dtype == torch.float32 for p in trained.portrait.parameters())
    with pytest.raises(ValueError, match=r"precision: expected one of torch.float32, .*, got torch.float64"):
        trained.portrait.set_precision(torch.float64)
