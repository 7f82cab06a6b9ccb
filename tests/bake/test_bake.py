"""Baked portraits: the picture, the cells, the file and what becomes of damaged ones."""

import dataclasses
import re
import types

import numpy as np
import pytest
import torch

import ernerf_ti.synthesis.baking as baking_of_runs
from ernerf_ti.bake.baked_head import BakedHead
from ernerf_ti.bake.baked_renderer import BakedRenderer
from ernerf_ti.bake.baking import BakeOptions, bake_head
from ernerf_ti.bake.conditions import various_closures, various_speech
from ernerf_ti.bake.variation import VariationOptions, dynamic_cells
from ernerf_ti.cli.main import main
from ernerf_ti.portrait.portrait import Portrait
from ernerf_ti.run.checkpoint import load_checkpoint, save_checkpoint
from ernerf_ti.run.facts import checkpoint_facts
from ernerf_ti.run.trained_portrait import load_portrait
from taichi_kernels.baked_grid import EMPTY, FIRST_ROW
from tests.bake.conftest import INTRINSICS, SIZE


def bake(portrait, trained_on, **options) -> BakedHead:
    dynamic = VariationOptions(**{name: options.pop(name) for name in ("variation", "region") if name in options})
    return bake_head(portrait, INTRINSICS, SIZE, trained_on, None, BakeOptions(dynamic, **options))


@pytest.fixture(scope="session")
def baked(portrait, trained_on) -> BakedHead:
    return bake(portrait, trained_on, variation=0.05, region=0.3)


def render_baked(portrait, baked, inputs, background, *args, **options):
    return BakedRenderer(portrait, baked, INTRINSICS, SIZE).render(inputs, background, *args, **options)


def psnr(a, b) -> float:
    return float(-10 * torch.log10((a - b).square().mean()))


def test_all_dynamic_is_the_exact_picture(portrait, trained_on, inputs):
    everything = bake(portrait, trained_on, variation=-1.0, region=0.0)
    assert not ((everything.cells >= FIRST_ROW) & ((everything.cells - FIRST_ROW) % 2 == 0)).any()
    background = torch.full((32, 32, 3), 0.4)
    exact = portrait.render(inputs, INTRINSICS, SIZE, background, with_torso=False)
    picture = render_baked(portrait, everything, inputs, background, with_torso=False)
    assert exact.opacity.max() > 0.3
    assert psnr(picture.rgb, exact.rgb) > 45  # rays end earlier
    torch.testing.assert_close(picture.opacity, exact.opacity, atol=0.02, rtol=0)


def test_part_is_stored(portrait, trained_on, baked, inputs):
    codes = baked.cells[baked.cells >= FIRST_ROW]
    is_dynamic = (codes - FIRST_ROW) % 2 == 1
    assert 0 < is_dynamic.sum() < len(codes)
    assert len(baked.colors) == (~is_dynamic).sum() and len(baked.log_densities) == len(codes)
    everything = bake(portrait, trained_on, variation=-1.0, region=0.0)
    all_samples, samples, exact = (
        render_baked(portrait, baked_head, inputs, None, with_torso=False)
        if baked_head
        else portrait.render(inputs, INTRINSICS, SIZE, None, with_torso=False)
        for baked_head in (everything, baked, None)
    )
    assert samples.n_samples.sum() < all_samples.n_samples.sum()
    assert psnr(samples.rgb, exact.rgb) > 25  # noise has no smooth colors between corners


def test_the_torso_lies_behind(portrait, baked, inputs):
    background = torch.full((32, 32, 3), 0.4)
    portrait.torso_grid.alpha_grid.fill_(1.0)
    with_torso = render_baked(portrait, baked, inputs, background, with_attention=False)
    exact = portrait.render(inputs, INTRINSICS, SIZE, background)
    assert with_torso.audio_attention is None and exact.head_opacity is not None
    outside = exact.head_opacity < 1e-3
    torch.testing.assert_close(with_torso.rgb[outside], exact.rgb[outside], atol=1e-3, rtol=0)
    torch.testing.assert_close(with_torso.opacity[outside], exact.opacity[outside], atol=1e-3, rtol=0)
    premultiplied = render_baked(portrait, baked, inputs, None, with_attention=False)
    over = premultiplied.rgb + (1 - premultiplied.opacity)[..., None] * background
    torch.testing.assert_close(over, with_torso.rgb, atol=2e-3, rtol=0)
    with pytest.raises(ValueError, match=r"background: expected shape \[32, 32, 3\]"):
        render_baked(portrait, baked, inputs, torch.zeros(3, 3, 3))


def test_cells_that_move_are_dynamic():
    cells = torch.cartesian_prod(*3 * (torch.arange(12),))
    mouth = (cells - torch.tensor([3, 3, 3])).abs().amax(1) <= 2
    eyes = (cells - torch.tensor([9, 9, 9])).abs().amax(1) <= 1
    speech, closing = 0.5 * mouth.float(), 0.4 * eyes.float()
    speech[cells.eq(torch.tensor([10, 2, 2])).all(1)] = 0.9  # a single cell far from the mouth
    found = dynamic_cells([speech, closing], cells, 12, VariationOptions(0.1, 0.35))
    assert (found <= (mouth | eyes)).all() and found[eyes].all() and found[mouth].float().mean() > 0.6
    assert dynamic_cells([speech, closing], cells, 12, VariationOptions(0.1, 0.0)).sum() == mouth.sum() + eyes.sum() + 1


def test_conditions(trained_on):
    codes, closures = trained_on.audio_codes, trained_on.eye_closures
    chosen = various_speech(codes, closures, 100)
    assert len(chosen) == len(codes) and len(chosen.audio_codes.unique(dim=0)) == len(codes)
    assert various_closures(codes, closures, 3).eye_closures.flatten().tolist() == [0.0, 0.5, 1.0]


def test_empty_cells_know_how_far_matter_is(baked):
    cells = baked.cells
    assert cells.min() < -1
    x, y, z = (cells == cells.min()).nonzero()[0].tolist()
    n = -int(cells.min())
    ranges = [slice(max(0, i - n), i + n + 1) for i in (x, y, z)]
    assert (cells[tuple(ranges)] <= EMPTY).all()


@pytest.fixture
def file(run, trained_on, tmp_path, monkeypatch, capsys):
    """The baked portrait of the run, made by the command."""
    capture = types.SimpleNamespace(
        audio_windows=np.random.default_rng(0).normal(size=(6, 16, 42)).astype(np.float32),
        train=types.SimpleNamespace(audio_ids=np.arange(6), __len__=lambda self: 6),
        folder="capture",
    )
    monkeypatch.setattr(baking_of_runs, "open_capture", lambda *args: capture)
    monkeypatch.setattr(baking_of_runs, "training_conditions", lambda *args: trained_on)
    monkeypatch.setattr("ernerf_ti.cli.bake.capture_folder", lambda path: path)
    path = tmp_path / "portrait.eti"
    assert main(["bake", str(run), "-o", str(path), "--capture", "capture", "--variation", "0.05"]) == 0
    out, err = capsys.readouterr()
    assert out.strip() == str(path) and "dynamic" in err
    return path


def test_a_file_is_used_like_a_run(file, inputs, tmp_path, capsys):
    trained = load_portrait(file)
    assert trained.baked is not None and trained.consent is not None and trained.consent.by == "Jane Doe"
    assert file.stat().st_size < 30e6 and "optimizer" not in load_checkpoint(file)
    facts = checkpoint_facts(file)
    assert facts["kind"] == "baked portrait" and facts["baked from"]["run"] == "run"
    output = trained.render(inputs, trained.background, with_torso=False)
    expected = render_baked(trained.portrait, trained.baked, inputs, trained.background, with_torso=False)
    assert torch.equal(output.rgb, expected.rgb) and output.n_samples.sum() > 0
    exact = dataclasses.replace(trained, baked=None).render(inputs, trained.background, with_torso=False)
    assert not torch.equal(output.rgb, exact.rgb)
    assert main(["bake", str(file), "-o", str(tmp_path / "again.eti")]) == 1
    assert "expected a run, got a baked portrait" in capsys.readouterr().err


def test_files_of_version_1(file, tmp_path):
    content, earlier = load_checkpoint(file), tmp_path / "earlier.eti"
    baked = {**content["baked"], "format_version": 1, "box": torch.ones(6)}
    save_checkpoint(earlier, {**content, "baked": baked})
    trained = load_portrait(earlier)
    assert trained.baked is not None and torch.equal(trained.baked.cells, content["baked"]["cells"])
    assert load_checkpoint(file)["baked"]["format_version"] == 2


def test_damaged_files(file, tmp_path):
    content, data = load_checkpoint(file), file.read_bytes()
    for name, value, text in (
        ("format_version", 9, "expected a baked head of format_version 1 to 2, got 9"),
        ("cells", torch.zeros(4, 4, 4, dtype=torch.int32), "expected cells of the baked head to fit"),
        ("cells", content["baked"]["cells"] + 10**6, "expected cells of the baked head with rows that it has"),
        ("colors", content["baked"]["colors"].float(), "expected colors of the baked head as torch.uint8"),
        ("color_lows", torch.full_like(content["baked"]["color_lows"], torch.nan), "finite numbers in color_lows"),
        ("camera_mean", None, "expected camera_mean of the baked head as torch.float32, got NoneType"),
    ):
        damaged = tmp_path / "damaged.eti"
        save_checkpoint(damaged, {**content, "baked": {**content["baked"], name: value}})
        with pytest.raises(ValueError, match=f"damaged.eti: .*{re.escape(text)}") as error:
            load_portrait(damaged)
        assert "\n" not in str(error.value)
    damaged.write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match=r"damaged\.eti"):
        load_portrait(damaged)
    middle = len(data) // 2
    damaged.write_bytes(data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :])
    with pytest.raises(ValueError, match=r"damaged.eti: .*checksum"):
        load_portrait(damaged)


def test_command_refuses(run, tmp_path, capsys):
    for arguments, text in (
        (["-o", str(tmp_path / "a.pt")], "expected a file name with the suffix .eti"),
        (["-o", str(tmp_path / "a.eti"), "--region", "2"], "--region from 0 to 1"),
    ):
        assert main(["bake", str(run), *arguments]) == 1
        assert text in capsys.readouterr().err


def test_dials_are_neutral(portrait, trained_on, inputs, run, tmp_path):
    """The same head with a dial, that nothing was stored of."""
    config = dataclasses.replace(portrait.config, head=dataclasses.replace(portrait.config.head, dials=("brows",)))
    with_dials, old = Portrait(config, 42, len(trained_on.poses)).requires_grad_(False), portrait.state_dict()
    first, state = "head.density_net.layers.0.weight", with_dials.state_dict()
    state |= {**old, first: torch.cat((old[first], state[first][:, -1:]), 1)}
    state["head.dials.boxes"] = torch.tensor([[-1.0, -1.0], [1.0, 1.0]]).expand(1, 2, 2, 2)
    with_dials.load_state_dict(state)
    with_dials.head_grid.set_bitfield(portrait.head_grid.bitfield.clone())
    baked = bake(with_dials, trained_on, variation=0.05, region=0.3)
    expected = bake(portrait, trained_on, variation=0.05, region=0.3)
    assert torch.equal(baked.cells, expected.cells) and torch.equal(baked.colors, expected.colors)
    background = torch.full((32, 32, 3), 0.4)
    for with_attention in (True, False):
        of_baked = (background, False, with_attention)
        picture = render_baked(with_dials, baked, inputs, *of_baked)
        assert torch.equal(picture.rgb, render_baked(portrait, expected, inputs, *of_baked).rgb)

    trained = dataclasses.replace(load_portrait(run), portrait=with_dials, baked=baked)
    exact = dataclasses.replace(trained, baked=None)
    assert trained.dial_names == () and exact.dial_names == ("brows",)
    with pytest.raises(ValueError, match=r"\(none, as it is baked with a neutral face\), got brows; render the run"):
        trained.dials({"brows": 1.0})
    turned = dataclasses.replace(inputs, dials=torch.ones(1))
    with pytest.raises(ValueError, match=r"expected None, as the portrait is baked with a neutral face, got \[1\.0\]"):
        trained.render(turned, background, with_torso=False)
    neutral, moved = (exact.render(i, background, with_torso=False).rgb for i in (inputs, turned))
    assert not torch.equal(neutral, moved)


def test_two_cascades_are_refused(portrait, trained_on):
    wide = dataclasses.replace(portrait.config, head_grid=dataclasses.replace(portrait.config.head_grid, bound=2.0))
    other = types.SimpleNamespace(head_grid=portrait.head_grid, config=wide, head=portrait.head)
    with pytest.raises(ValueError, match=re.escape("head_grid.bound: expected at most 1 to bake a portrait, got 2.0")):
        bake_head(other, INTRINSICS, SIZE, trained_on, None, BakeOptions())
