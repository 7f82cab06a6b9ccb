"""The ablation on a tiny capture: rows, resuming, and refusing other settings."""

import dataclasses
import itertools
import json

import pytest

from ernerf_ti.data.capture import open_capture
from ernerf_ti.data.synthetic.portrait_writers import write_portrait_capture
from ernerf_ti.data.synthetic.synthetic_portrait import SyntheticPortrait
from ernerf_ti.experiments.ablation import FIGURES, Ablation, run_ablation, variants
from ernerf_ti.experiments.ablation_report import ablation_table
from ernerf_ti.portrait.model.position_encoders import position_encoder
from ernerf_ti.train.config import PRESETS

TRIPLANE = PRESETS["small"].portrait.head.position_encoder


@pytest.fixture(scope="module")
def capture(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ablation") / "capture"
    write_portrait_capture(SyntheticPortrait(12, 32, seed=4), folder)
    return open_capture(folder)


@pytest.fixture
def tiny(capture):
    small = PRESETS["small"]
    grid = dataclasses.replace(small.portrait.head_grid, resolution=32)
    config = dataclasses.replace(
        small,
        portrait=dataclasses.replace(small.portrait, head_grid=grid),
        head=dataclasses.replace(small.head, iterations=3, n_rays=128),
        log_every=1,
    )
    return lambda folder: Ablation(capture, folder, config, n_frames=1)


@pytest.mark.parametrize("preset", ["paper", "released", "small"])
def test_forms_are_those_of_the_paper_and_of_like_size(preset):
    forms = variants(PRESETS[preset].portrait.head.position_encoder)
    assert len({form.name for form in forms}) == len(forms) == 8
    tables = {
        form.encoder: sum(p.numel() for p in position_encoder(form.position_encoder, 1.0).parameters())
        for form in forms
        if not form.encoder.startswith("MLP")
    }
    assert len(tables) == 3
    assert max(tables.values()) < 1.6 * min(tables.values()), tables


def test_rows_are_kept_and_an_interrupted_ablation_goes_on(tiny, tmp_path):
    chosen = [form for form in variants(TRIPLANE) if form.name in ("frequency_concatenation", "triplane_hash_channel")]
    whole = run_ablation(tiny(tmp_path / "whole"), chosen)
    assert [row["encoder"][:3] for row in whole] == ["MLP", "tri"]
    assert all(row["metrics"]["PSNR frame"]["value"] > 1 for row in whole)
    lines = ablation_table(whole).splitlines()
    assert len(lines) == 4 and "PSNR dB" in lines[0] and "attention by channel" in lines[3]

    asked = itertools.count(1)
    folder = tmp_path / "parts"
    assert run_ablation(tiny(folder), chosen, lambda: next(asked) == 2) is None  # in the first form
    assert not (folder / chosen[0].name / FIGURES).exists()
    rows = run_ablation(tiny(folder), chosen)
    assert [row["metrics"] for row in rows] == [row["metrics"] for row in whole]
    checkpoint = folder / chosen[0].name / "checkpoint.pt"
    before = checkpoint.stat().st_mtime_ns
    assert run_ablation(tiny(folder), chosen) == rows
    assert checkpoint.stat().st_mtime_ns == before
    assert not (folder / chosen[0].name / "evaluation" / "frames").exists()


def test_other_settings_are_refused(tiny, tmp_path):
    chosen = variants(TRIPLANE)[-1:]
    ablation = tiny(tmp_path)
    run_ablation(ablation, chosen)
    other = dataclasses.replace(ablation.config, seed=7)
    with pytest.raises(ValueError, match=r"figures.json: expected the settings of this ablation, got another config"):
        run_ablation(dataclasses.replace(ablation, config=other), chosen)


def test_the_command(load_tool, capture, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    main = load_tool("ablate").main
    arguments = [str(capture.folder), str(tmp_path), "--preset", "small", "--iterations", "1", "--frames", "1"]
    assert main([*arguments, "--only", "hash3d_con"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[-2:] == [str(tmp_path / "ablation.json"), str(tmp_path / "ablation.png")]
    (row,) = json.loads((tmp_path / "ablation.json").read_text())
    assert row["conditioning"] == "concatenation" and row["ms_per_step"] > 0
    assert (tmp_path / "ablation.png").stat().st_size > 1000
    with pytest.raises(SystemExit):
        main([*arguments, "--only", "none"])
    assert "--only: expected beginnings of frequency_concatenation, " in capsys.readouterr().err
