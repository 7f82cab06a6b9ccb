"""Pictures of a baked portrait from poses that were rendered before."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from ernerf_ti.bake.baked_renderer import BakedRenderer
from ernerf_ti.bake.baking import BakeOptions, bake_head
from ernerf_ti.bake.prepared_pose import EightBits, PreparedPose
from ernerf_ti.bake.variation import VariationOptions
from ernerf_ti.live.features import StreamingFeatures
from ernerf_ti.live.motion import CapturePath
from ernerf_ti.live.portrait import LivePortrait
from ernerf_ti.live.renderer import LiveInputs, PortraitPictures
from ernerf_ti.portrait.config import PlainTriplaneConfig
from ernerf_ti.portrait.model.position_encoders import position_encoder
from ernerf_ti.run.trained_portrait import TrainedPortrait
from taichi_kernels.baked_grid import BakedSamples, composite_baked
from tests.bake.conftest import INTRINSICS, SIZE, N


@pytest.fixture(scope="module")
def trained(portrait, trained_on) -> TrainedPortrait:
    """With a torso in half of the picture's pixels."""
    portrait.torso_grid.alpha_grid.fill_(1.0)
    options = BakeOptions(VariationOptions(variation=0.05, region=0.3))
    baked = bake_head(portrait, INTRINSICS, SIZE, trained_on, None, options)
    background = torch.linspace(0, 1, 32 * 32 * 3).view(32, 32, 3)
    closures = torch.linspace(0, 1, N)
    return TrainedPortrait(portrait, "ppg", 42, INTRINSICS, SIZE, trained_on.poses, closures, background, baked=baked)


@pytest.fixture
def live_inputs(trained) -> LiveInputs:
    windows = np.random.default_rng(2).standard_normal((8, 42, 16)).astype(np.float32)
    return LiveInputs(windows, 0.2, trained.poses[2], 2.0)


def torso_of(trained, inputs):
    return replace(inputs, torso_appearance=trained.torso_appearances(inputs.head_pose[None], np.array([2.0]))[0])


@pytest.mark.parametrize("over_background", [True, False])
def test_a_prepared_pose_gives_the_picture(trained, inputs, over_background):
    renderer, inputs = trained.baked_renderer, torso_of(trained, inputs)
    background = trained.background if over_background else None
    whole = renderer.render(inputs, background)
    prepared = renderer.prepare(inputs)
    assert 0 < len(prepared.pixels) < (whole.opacity > 0).sum() and len(prepared.deltas) == whole.n_samples.sum()
    rgb, opacity = renderer.render_prepared(prepared, inputs, background)
    torch.testing.assert_close(rgb, whole.rgb, atol=1.5 / 255, rtol=0)
    torch.testing.assert_close(opacity, whole.opacity, atol=1.5 / 255, rtol=0)


def test_a_prepared_pose_speaks_and_blinks(trained, inputs):
    renderer, inputs = trained.baked_renderer, torso_of(trained, inputs)
    prepared = renderer.prepare(inputs)
    other = replace(inputs, audio_window=-30 * inputs.audio_window, eye_closure=torch.tensor([0.9]))
    rgb, _ = renderer.render_prepared(prepared, other, trained.background)
    torch.testing.assert_close(rgb, renderer.render(other, trained.background).rgb, atol=1.5 / 255, rtol=0)
    assert (rgb - renderer.render(inputs, trained.background).rgb).abs().max() > 0.03


@pytest.mark.parametrize("with_tiles", [True, False])
@pytest.mark.parametrize("variation", [-1.0, 1e9])  # everything is dynamic, nothing is
def test_all_or_nothing_moves(portrait, trained_on, trained, inputs, variation, with_tiles):
    options = BakeOptions(VariationOptions(variation=variation, region=0.0))
    baked = bake_head(portrait, INTRINSICS, SIZE, trained_on, None, options)
    renderer, inputs = BakedRenderer(portrait, baked, INTRINSICS, SIZE), torso_of(trained, inputs)
    if not with_tiles:
        renderer.__dict__["_encode_in_cells"] = None
    prepared = renderer.prepare(inputs)
    assert (len(prepared.deltas) == 0) == (variation > 0)
    rgb, opacity = renderer.render_prepared(prepared, inputs, trained.background)
    whole = renderer.render(inputs, trained.background)
    torch.testing.assert_close(rgb, whole.rgb, atol=1.5 / 255, rtol=0)
    torch.testing.assert_close(opacity, whole.opacity, atol=1.5 / 255, rtol=0)


@pytest.mark.parametrize("known", [True, False])
def test_looking_up_all_levels_at_once_changes_little(trained, inputs, known):
    inputs = torso_of(trained, inputs)
    exact = BakedRenderer(trained.portrait, trained.baked, INTRINSICS, SIZE)
    exact.__dict__["_encode_in_cells"] = None
    colors = []
    for renderer in (trained.baked_renderer, exact):
        if known:
            prepared = renderer.prepare(inputs)
            colors.append(renderer.render_prepared(prepared, inputs, trained.background)[0])
        else:
            colors.append(renderer.render(inputs, trained.background).rgb)
    difference = (colors[0] - colors[1]).square().mean()
    assert 0 < difference < 1e-5


def test_other_encoders_have_no_tiles(trained):
    encoder = position_encoder(PlainTriplaneConfig(resolution=8, n_features=8), 1.0)
    assert encoder.for_cells(trained.baked.dynamic, 1.0) is None


@pytest.mark.parametrize("scale", [1, 0.7, 0.5])
@pytest.mark.parametrize("over_background", [True, False])
def test_a_known_pose_is_not_marched_again(trained, live_inputs, scale, over_background, monkeypatch):
    background = trained.background if over_background else None
    expected = PortraitPictures(trained, pose_memory=0).picture(live_inputs, background, 1)
    pictures = PortraitPictures(trained)
    for wrong_pose in (trained.poses[4], live_inputs.pose):
        pictures.picture(replace(live_inputs, pose=wrong_pose), background, scale)
    monkeypatch.setattr(BakedRenderer, "_march", None)
    monkeypatch.setattr(BakedRenderer, "_render_torso", None)
    monkeypatch.setattr(TrainedPortrait, "torso_appearances", None)
    picture = pictures.picture(live_inputs, background, scale)
    assert picture.shape == expected.shape and picture.dtype == np.uint8
    alpha = 255 if over_background else expected[..., 3:].astype(int)  # straight color of little alpha is uncertain
    differs = (np.abs(picture.astype(int) - expected)[..., :3] * alpha).max(-1) > 3 * 255
    prepared = pictures._prepared[2.0, live_inputs.pose.numpy().tobytes()]
    evaluated = prepared.n_pixels[pictures.scales.index(scale)]
    sharp = np.ones(32 * 32, bool)
    sharp[prepared.pixels[evaluated:]] = False
    assert not differs.reshape(-1)[sharp].any()
    other = (picture != pictures.picture(live_inputs, background, 1)).any(-1).reshape(-1)
    assert other.any() == (scale < 1) and not other[sharp].any()


def seen_from(shown):
    """Levels of detail of [H, W] pixels, of which some are shown, with black nowhere."""
    n = shown.size
    packed = torch.stack((torch.arange(n), torch.from_numpy(shown.reshape(-1)).long()), 1).int()
    packed[:, 0] = packed[:, 1].cumsum(0) - packed[:, 1]
    m = int(packed[:, 1].sum())
    samples = BakedSamples(
        *(torch.rand(m, 3), torch.rand(m, 3), torch.rand(m), torch.rand(m), packed),
        *(torch.rand(n, 5), torch.rand(m, 5)),
    )
    return PreparedPose.of(samples, None, shown.shape[1], lambda positions, directions: positions.t()), samples


def around(shown, y, x, steps):
    places = [(y + dy, x + dx) for dy, dx in steps]
    return [at for at in places if 0 <= at[0] < shown.shape[0] and 0 <= at[1] < shown.shape[1] and shown[at]]


@pytest.mark.parametrize(("shape", "share"), [((9, 12), 0.5), ((8, 7), 1.0), ((1, 9), 0.7), ((5, 1), 1.0), ((6, 6), 0)])
def test_levels_of_detail(shape, share):
    generator = np.random.default_rng(5)
    shown = generator.random(shape) < share
    prepared, samples = seen_from(shown)
    assert sorted(prepared.pixels.tolist()) == np.flatnonzero(shown).tolist()
    places = [(pixel // shape[1], pixel % shape[1]) for pixel in prepared.pixels.tolist()]
    sides, corners = [(0, 1), (0, -1), (1, 0), (-1, 0)], [(1, 1), (1, -1), (-1, 1), (-1, -1)]
    n_2, n_1 = prepared.n_pixels[2], prepared.n_pixels[1]
    for i, (y, x) in enumerate(places):
        level = 2 if i < n_2 else 1 if i < n_1 else 0
        regular = 2 if y % 2 == x % 2 == 0 else 1 if y % 2 == x % 2 == 1 else 0
        lonely = regular < 2 and not around(shown, y, x, corners if regular else sides)
        assert level == (2 if lonely else regular)
    colors = torch.rand(len(places) + 1, 4)
    for level, n in enumerate(prepared.n_pixels):
        expected = {at: colors[i].clone() for i, at in enumerate(places[:n])}
        for i in range(n, len(places)):  # at level 2 those diagonally between others come first
            steps = corners if level == 2 and i < n_1 else sides
            known = around(shown, *places[i], steps)
            expected[places[i]] = torch.stack([expected[at] for at in known]).mean(0)
        given = colors.clone()
        prepared.interpolate(given, level)
        if places:
            torch.testing.assert_close(given[:-1], torch.stack([expected[at] for at in places]))
        rays = [y * shape[1] + x for y, x in places[:n]]
        order = samples.packed_info[rays, 0].long()
        values = torch.rand(4, prepared.n_samples[level])
        rgb, opacity, _ = composite_baked(
            *(values, samples.deltas[order], torch.tensor([[i, 1] for i in range(n)]).view(n, 2).int()),
            *(samples.before[rays, :4].contiguous(), samples.after[order, :4].contiguous()),
        )
        torch.testing.assert_close(prepared.composite(values, level, 1e-4), (rgb, opacity), atol=2e-3, rtol=0)


@pytest.mark.parametrize("n", [0, 1, 300])
def test_rows_are_rounded_between_their_extremes(n):
    matrix = torch.randn(3, n) * torch.tensor([[1e-3], [1.0], [50.0]]) + torch.tensor([[7.0], [0.0], [-3.0]])
    matrix = torch.cat((matrix, torch.full((1, n), 2.5)))
    rounded = EightBits.of(matrix)
    values = rounded.lowest + rounded.steps * rounded.columns(slice(0, n), torch.empty(4 * n + 5))
    assert values.shape == matrix.shape and values.isfinite().all()
    if n:
        extent = matrix.amax(1, keepdim=True) - matrix.amin(1, keepdim=True)
        assert ((values - matrix).abs() <= extent / 509 + 1e-6).all()
        assert (rounded.values[-1] == 1).all() and (rounded.steps > 0).all()
        torch.testing.assert_close(rounded.columns(slice(n - 1, n), torch.empty(4)), rounded.values[:, -1:].float())
    assert rounded.nbytes == 4 * n + 2 * 4 * 4


def test_poses_are_kept_while_there_is_room(trained, live_inputs, monkeypatch):
    n_bytes = trained.baked_renderer.prepare(
        torso_of(trained, PortraitPictures(trained)._of_frame(torch.zeros(0), 0.0, trained.poses[2]))
    ).n_bytes
    assert n_bytes > 32 * 32 * 4
    pictures = PortraitPictures(trained, pose_memory=int(1.5 * n_bytes))
    assert pictures.keeps_poses and pictures.prepare(trained.poses[2], 2.0)
    assert not pictures.prepare(trained.poses[3], 3.0)
    late = replace(live_inputs, pose=trained.poses[3], place=3.0)
    expected = PortraitPictures(trained, pose_memory=0).picture(late, trained.background, 1)
    np.testing.assert_array_equal(pictures.picture(late, trained.background, 1), expected)
    monkeypatch.setattr(BakedRenderer, "_march", None)
    pictures.picture(live_inputs, trained.background, 1)


@pytest.mark.parametrize("n", [30, 100])
def test_the_path_is_no_longer_than_what_finds_room(trained, live_inputs, n, monkeypatch):
    deaf = SimpleNamespace(push=lambda samples: np.zeros((0, 42), np.float32))
    monkeypatch.setattr(
        "ernerf_ti.live.portrait.StreamingFeatures.of",
        lambda trained: StreamingFeatures(lambda voice: deaf, lambda: None, 0.0, np.zeros(42, np.float32)),
    )
    trained = replace(trained, poses=moving(40), eye_closures=torch.linspace(0, 1, 40))
    pictures = PortraitPictures(trained, 10**9)
    n_bytes = 0.9 * 10**9 / pictures.capacity(*CapturePath(trained).at(0))
    portrait = LivePortrait(trained, PortraitPictures(trained, int((n + 0.5) * n_bytes / 0.9)))
    portrait.warm_up()
    poses = portrait.path.all_poses()
    assert len(poses) <= n and len(portrait.path) == {30: 13, 100: 40}[n]
    assert portrait.pictures._room >= 0
    chosen = LivePortrait(trained, PortraitPictures(trained, int(2.5 * n_bytes)), motion_seconds=1.0)
    chosen.warm_up()
    assert len(chosen.path) == 25


def test_several_threads_show_one_pose(trained, live_inputs):
    calls = [(replace(live_inputs, eye_closure=k / 8), scale) for k in range(8) for scale in (1, 0.7, 0.5)]
    alone, pictures = PortraitPictures(trained), PortraitPictures(trained)
    with ThreadPoolExecutor(4) as threads:
        shown = list(threads.map(lambda call: pictures.picture(call[0], trained.background, call[1]), calls))
    for (inputs, scale), picture in zip(calls, shown, strict=True):
        np.testing.assert_array_equal(picture, alone.picture(inputs, trained.background, scale))
    assert len(pictures._prepared) == 1 and pictures._room == alone._room  # it was prepared once


def test_preparing_and_showing_a_pose_share_a_renderer(trained, live_inputs, monkeypatch):
    pictures = PortraitPictures(trained)
    pictures.prepare(live_inputs.pose, live_inputs.place)
    made = []
    monkeypatch.setattr("ernerf_ti.bake.baked_renderer.FoldedTorso", lambda *_: made.append(None))
    monkeypatch.setattr(BakedRenderer, "_march", None)
    monkeypatch.setattr(BakedRenderer, "prepare", None)
    assert pictures.scales == (1, 0.7, 0.5)
    for scale in pictures.scales:
        pictures.picture(live_inputs, trained.background, scale)
    assert pictures._camera(1).baked_renderer is trained.baked_renderer and made == []


def test_networks_alone_keep_nothing(trained):
    pictures = PortraitPictures(replace(trained, baked=None))
    assert not pictures.keeps_poses and not pictures.prepare(trained.poses[0], 0.0)
    assert pictures.scales == (1, 0.75, 0.5)


def moving(n, cuts=()):
    """[n, 4, 4] poses that move by a little each frame, and by much after the frames of cuts."""
    poses = torch.eye(4).repeat(n, 1, 1)
    steps = torch.full((n,), 0.002)
    steps[[cut + 1 for cut in cuts]] = 0.3
    poses[:, 0, 3] = steps.cumsum(0)
    return poses


@pytest.mark.parametrize(
    ("cuts", "seconds", "first", "last"),
    [
        ((), None, 0, 119),
        ((), 2.0, 0, 49),
        ((), 100.0, 0, 119),
        ((20,), 2.0, 21, 70),  # the first piece is too short
        ((20, 60), 2.0, 61, 110),
        ((60,), 4.0, 0, 60),  # no piece is as long: the longest one, without a cut
        ((20, 40, 60, 80, 100), 4.0, 0, 99),  # all are far too short
    ],
)
def test_the_path_stays_in_a_stretch_of_the_capture(trained, cuts, seconds, first, last):
    path = CapturePath(replace(trained, poses=moving(120, cuts)), seconds)
    places = np.array([path.at(time)[1] for time in range(700)])
    assert places.min() == first and places.max() == last


def test_all_poses_of_the_path_are_those_of_all_times(trained):
    path = CapturePath(replace(trained, poses=moving(60, (30,))), 1.0)
    known = {(place, pose.numpy().tobytes()) for pose, place in path.all_poses()}
    assert len(known) == len(path.all_poses())
    visited = [path.at(time) for time in range(500)]
    assert {(place, pose.numpy().tobytes()) for pose, place in visited} == known
