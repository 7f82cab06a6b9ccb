"""The ablation on a tiny capture: rows, resuming, and refusing another configuration."""

import dataclasses
import itertools
import json

import pytest

from ernerf_ti.cli.main import main
from ernerf_ti.data.synthetic.portrait_writers import write_portrait_capture
from ernerf_ti.data.synthetic.synthetic_portrait import SyntheticPortrait
from ernerf_ti.experiments.ablation import FIGURES, run_ablation, variants
from ernerf_ti.experiments.ablation_options import VARIANT_NAMES, AblationOptions
from ernerf_ti.experiments.ablation_report import ablation_table
from ernerf_ti.portrait.model.position_encoders import position_encoder
from ernerf_ti.train.config import PRESETS

TRIPLANE = PRESETS["small"].portrait.head.position_encoder


@pytest.fixture(scope="module")
def capture(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ablation") / "capture"
    write_portrait_capture(SyntheticPortrait(12, 32, seed=4), folder)
    return folder


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
    return lambda folder, *only: AblationOptions(capture, folder, config, variants=only, frames=1)


@pytest.mark.parametrize("preset", ["paper", "released", "small"])
def test_variants_are_those_of_the_paper_and_of_similar_size(preset):
    found = variants(PRESETS[preset].portrait.head.position_encoder)
    assert tuple(variant.name for variant in found) == VARIANT_NAMES
    assert len(set(VARIANT_NAMES)) == 8
    sizes = {
        variant.encoder: sum(p.numel() for p in position_encoder(variant.position_encoder, 1.0).parameters())
        for variant in found
        if not variant.encoder.startswith("frequency")
    }
    assert len(sizes) == 3
    assert max(sizes.values()) < 1.6 * min(sizes.values()), sizes


def test_selection_of_variants(tmp_path):
    selected = AblationOptions(tmp_path, tmp_path, PRESETS["small"], variants=("planes", "triplane_hash_f"))
    assert selected.variant_names == ("planes_concatenation", "planes_channel", "triplane_hash_feature")
    assert AblationOptions(tmp_path, tmp_path, PRESETS["small"]).variant_names == VARIANT_NAMES
    with pytest.raises(ValueError, match=r"variants: expected the start of frequency_concatenation, .*, got other"):
        AblationOptions(tmp_path, tmp_path, PRESETS["small"], variants=("other",))


def test_what_would_fail_after_training_is_refused_at_once(capture, tmp_path, capsys):
    arguments = ["ablate", str(capture), str(tmp_path / "out"), "--device", "cpu"]
    assert main([*arguments, "--frames", "0"]) == 1
    assert main([*arguments, "--stages"]) == 1
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("frames: expected at least 1, got 0")
    assert second.startswith("stages: expected head, or head and finetune, got none")
    assert not (tmp_path / "out").exists()


def test_rows_are_kept_and_an_interrupted_ablation_continues(tiny, tmp_path):
    names = "frequency_concatenation", "triplane_hash_channel"
    whole = run_ablation(tiny(tmp_path / "whole", *names))
    assert [row["encoder"][:3] for row in whole] == ["fre", "tri"]
    assert all(row["metrics"]["PSNR frame"]["value"] > 1 for row in whole)
    lines = ablation_table(whole).splitlines()
    assert len(lines) == 4 and "PSNR dB" in lines[0] and "channel attention" in lines[3]

    asked = itertools.count(1)
    folder = tmp_path / "interrupted"
    assert run_ablation(tiny(folder, *names), lambda: next(asked) == 2) is None  # in the first variant
    assert not (folder / names[0] / FIGURES).exists()
    rows = run_ablation(tiny(folder, *names))
    assert [row["metrics"] for row in rows] == [row["metrics"] for row in whole]
    checkpoint = folder / names[0] / "checkpoint.pt"
    before = checkpoint.stat().st_mtime_ns
    assert run_ablation(tiny(folder, *names)) == rows
    assert checkpoint.stat().st_mtime_ns == before
    assert not (folder / names[0] / "evaluation" / "frames").exists()


def test_rows_of_earlier_versions_are_read(tiny, tmp_path):
    name = "triplane_hash_feature"
    (row,) = run_ablation(tiny(tmp_path, name))
    path = tmp_path / name / FIGURES
    content = json.loads(path.read_text())
    config = content["asked"]["config"]
    config["fine"] = config.pop("finetune")
    content["row"]["metrics"]["mouth opening r"] = {"value": 0.5}
    path.write_text(json.dumps(content))
    expected = {**row, "metrics": {**row["metrics"], "mouth-opening correlation": {"value": 0.5}}}
    assert run_ablation(tiny(tmp_path, name)) == [expected]


def test_another_configuration_is_refused(tiny, tmp_path):
    options = tiny(tmp_path, "triplane_hash_feature")
    run_ablation(options)
    other = dataclasses.replace(options.config, seed=7)
    message = r"figures.json: expected the configuration of this ablation, got others"
    with pytest.raises(ValueError, match=message):
        run_ablation(dataclasses.replace(options, config=other))
    with pytest.raises(ValueError, match=r"expected the frames of this ablation"):
        run_ablation(dataclasses.replace(options, frames=2))


def test_the_command(capture, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    arguments = ["ablate", str(capture), str(tmp_path), "--preset", "small", "--device", "cpu"]
    arguments += ["--iterations", "1", "--frames", "1"]
    assert main([*arguments, "--variants", "hash3d_con"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[-2:] == [str(tmp_path / "ablation.json"), str(tmp_path / "ablation.png")]
    (row,) = json.loads((tmp_path / "ablation.json").read_text())
    assert row["conditioning"] == "concatenation" and row["ms_per_step"] > 0
    assert (tmp_path / "ablation.png").stat().st_size > 1000
    assert main([*arguments, "--only", "none"]) == 1
    assert "variants: expected the start of frequency_concatenation, " in capsys.readouterr().err
