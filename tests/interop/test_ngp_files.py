"""Files of the public code, generated from its key names and shapes."""

import pickle
from pathlib import Path

import pytest
import torch

from ernerf_ti.interop.ngp_files import OfficialFile, read_official_file, write_official_file
from ernerf_ti.interop.tensors import is_parameter, official_state
from tests.interop.making import entries, random_tensors, save, shapes

HEAD_PARAMETERS = {29: 587_989, 44: 589_429, 1024: 683_509, 32: 588_277}
"""Number of parameters with 10,000 appearance embeddings, by dimension of the audio features."""


def test_every_tensor_is_loaded(tensors, tmp_path):
    portrait = read_official_file(save(tmp_path / "ngp.pth", tensors, mean_density_torso=0.004)).portrait()
    head, torso = portrait.head.state_dict(), portrait.torso.state_dict()
    values = [*head.values(), *torso.values(), portrait.torso_grid.alpha_grid.flatten()]
    for name, tensor in tensors.items():
        if name.startswith("aabb_") or name.endswith("offsets") or name in ("density_bitfield", "step_counter"):
            continue
        if name.startswith("encoder_"):
            plane = ("xy", "yz", "xz").index(name[8:10])
            found = [torch.equal(head["position_encoder.encoding.tables"][plane], tensor)]
        else:
            found = [v.shape == tensor.shape and torch.equal(v, tensor) for v in values]
        assert sum(found) == 1, name
    assert torch.equal(portrait.head_grid.bitfield, tensors["density_bitfield"])
    box = portrait.head_grid.occupied_box
    assert torch.all(box[3:] - box[:3] > 0.85)  # of the ball of occupied cells, not of the scene
    assert torch.all(box[3:] - box[:3] < 0.95)
    assert portrait.torso_grid.mean_alpha.item() == pytest.approx(0.004)
    assert portrait.head_grid.mean_density.item() == pytest.approx(0.75)
    assert portrait.head.audio_encoder.feature_dimension == 29 and len(portrait.head.appearance.embeddings) == 64


def test_portrait_is_on_its_device_before_kernels_start(head_tensors, tmp_path, monkeypatch):
    """Filling it launches kernels, which must not start on the CPU in a process that computes on CUDA."""
    filled = []
    monkeypatch.setattr(OfficialFile, "fill", lambda self, portrait: filled.append(portrait))
    portrait = read_official_file(save(tmp_path / "ngp.pth", head_tensors)).portrait("meta")
    assert filled == [portrait]
    assert {tensor.device.type for tensor in portrait.state_dict().values()} == {"meta"}


@pytest.mark.parametrize("torso", [False, True])
def test_names_order_and_dtypes(tensors, head_tensors, tmp_path, torso):
    source = tensors if torso else head_tensors
    state = official_state(read_official_file(save(tmp_path / "ngp.pth", source)).portrait(), torso)
    assert list(state) == list(shapes(torso=torso))
    assert {name: t.dtype for name, t in state.items()} == {name: t.dtype for name, t in source.items()}
    assert sum(map(is_parameter, state)) == (48 if torso else 39)


@pytest.mark.parametrize("features", HEAD_PARAMETERS)
def test_all_kinds_of_audio(tmp_path, features):
    path = save(tmp_path / "ngp.pth", random_tensors(1, features, False, 10_000))
    source = read_official_file(path)
    assert source.feature_dimension == features and not source.has_torso and source.n_embeddings == 10_000
    head = source.portrait().head
    assert sum(p.numel() for p in head.parameters()) == HEAD_PARAMETERS[features]


def test_number_of_parameters_with_torso(tmp_path):
    portrait = read_official_file(save(tmp_path / "ngp.pth", random_tensors(1, embeddings=10_000))).portrait()
    assert sum(p.numel() for p in portrait.parameters()) == 1_787_681


def test_a_bare_state_dict(head_tensors, tensors, tmp_path):
    source = read_official_file(save(tmp_path / "bare.pth", head_tensors, bare=True))
    assert not source.has_torso and source.entries == {}
    assert torch.equal(source.portrait().head.appearance.embeddings, head_tensors["individual_codes"])
    portrait = read_official_file(save(tmp_path / "bare.pth", tensors, bare=True)).portrait()
    assert portrait.torso_grid.mean_alpha == tensors["density_grid_torso"].mean()


def test_the_densities_of_an_epoch_file(head_tensors, tmp_path):
    densities = torch.rand(1, 128**3)
    portrait = read_official_file(save(tmp_path / "ngp.pth", head_tensors | {"density_grid": densities})).portrait()
    assert torch.equal(portrait.head_grid.density_grid, densities)


def test_missing_unexpected_and_other_shapes_are_all_listed(tensors, tmp_path):
    wrong = {name: t for name, t in tensors.items() if name not in ("sigma_net.net.1.weight", "encoder_yz.embeddings")}
    wrong |= {"color_net.net.0.weight": torch.zeros(64, 80), "embedding.weight": torch.zeros(29, 29)}
    wrong |= {"density_bitfield": torch.zeros(262144), "aabb_infer": torch.tensor([-2.0, -1, -2, 2, 1, 2])}
    path = save(tmp_path / "part.pth", wrong)
    with pytest.raises(ValueError) as error:
        read_official_file(path)
    lines = str(error.value).splitlines()
    assert lines[0] == (
        f"{path}: expected the tensors of head and torso with 29 audio features, as made with ER-NeRF's default "
        "options (-O), got 6 differences; pass such a checkpoint"
    )
    assert sorted(lines[1:]) == [
        "- aabb_infer: expected [-1.0, -0.5, -1.0, 1.0, 0.5, 1.0], got [-2.0, -1.0, -2.0, 2.0, 1.0, 2.0]",
        "- color_net.net.0.weight: expected [64, 84] torch.float32, got [64, 80] torch.float32",
        "- density_bitfield: expected [262144] torch.uint8, got [262144] torch.float32",
        "- embedding.weight: unexpected, [29, 29]",
        "- encoder_yz.embeddings: missing",
        "- sigma_net.net.1.weight: missing",
    ]


@pytest.mark.parametrize("name", ["individual_codes", "anchor_points", "torso_encoder.offsets", "step_counter"])
def test_each_tensor_is_needed(tensors, tmp_path, name):
    path = save(tmp_path / "ngp.pth", {key: t for key, t in tensors.items() if key != name})
    with pytest.raises(ValueError, match=rf"- {name}: missing"):
        read_official_file(path)


def test_other_levels_are_named(tensors, tmp_path):
    fourteen = {f"encoder_{plane}.embeddings": torch.zeros(196352, 1) for plane in ("xy", "yz", "xz")}
    with pytest.raises(ValueError, match=r"encoder_xy.embeddings: expected \[163584, 1\] .*, got \[196352, 1\]"):
        read_official_file(save(tmp_path / "ngp.pth", tensors | fourteen))


def test_other_files_are_rejected(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.pth: expected a checkpoint, got no such file"):
        read_official_file(tmp_path / "none.pth")
    (tmp_path / "text.pth").write_text("hello")
    with pytest.raises(ValueError, match=r"text.pth: expected a file written by torch.save with tensors only"):
        read_official_file(tmp_path / "text.pth")
    for content in ({"layer.weight": torch.zeros(3)}, {"model": 3}, [1]):
        torch.save(content, tmp_path / "other.pth")
        with pytest.raises(ValueError, match=r"other.pth: expected a state dict of ER-NeRF"):
            read_official_file(tmp_path / "other.pth")


@pytest.mark.parametrize("name", ["global_step", "mean_count", "mean_density", "mean_density_torso"])
@pytest.mark.parametrize("value", ["many", [1.0, 2.0], None, -1, float("nan"), float("inf"), torch.zeros(2)], ids=str)
def test_numbers_that_are_none(head_tensors, tmp_path, name, value):
    path = save(tmp_path / "ngp.pth", head_tensors, **{name: value})
    with pytest.raises(ValueError, match=rf"ngp\.pth: {name}: expected a number from 0 on, got .*; pass a file as"):
        read_official_file(path)


def test_numbers_may_be_tensors(head_tensors, tmp_path):
    path = save(tmp_path / "ngp.pth", head_tensors, mean_density=torch.tensor(0.5))
    assert read_official_file(path).portrait().head_grid.mean_density.item() == 0.5


def test_nothing_in_a_file_is_executed(tmp_path):
    torch.save({"model": {}, "hook": _Touch(tmp_path / "touched")}, tmp_path / "ngp.pth")
    with pytest.raises(ValueError, match=r"expected a file written by torch.save with tensors only"):
        read_official_file(tmp_path / "ngp.pth")
    assert not (tmp_path / "touched").exists()


def test_a_pickle_of_another_kind_is_one_error(tmp_path, recwarn):
    (tmp_path / "ngp.pth").write_bytes(pickle.dumps({"model": {}, "hook": Path("a")}, protocol=4))
    with pytest.raises(ValueError, match=r"expected a file written by torch.save with tensors only"):
        read_official_file(tmp_path / "ngp.pth")
    assert not recwarn.list


class _Touch:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (type(self.path).touch, (self.path,))


# The moving average


def epoch_file(path, tensors, **changed):
    """A file whose average differs from every parameter by 1."""
    shadows = [t + 1 for name, t in tensors.items() if is_parameter(name)]
    ema = {"decay": 0.95, "num_updates": 7, "shadow_params": shadows, "collected_params": None} | changed
    return save(path, tensors, ema=ema)


def test_average_replaces_the_weights(tensors, tmp_path):
    path = epoch_file(tmp_path / "ngp_ep0003.pth", tensors)
    raw, averaged = read_official_file(path), read_official_file(path).averaged()
    for name, tensor in tensors.items():
        assert torch.equal(raw.tensors[name], tensor)
        assert torch.equal(averaged.tensors[name], tensor + 1 if is_parameter(name) else tensor), name
    assert list(averaged.tensors) == list(tensors)


def test_average_of_other_parameters(head_tensors, tmp_path):
    path = tmp_path / "ngp_ep0003.pth"
    with pytest.raises(ValueError, match=r"expected an entry ema with shadow_params, got none; pass an epoch file"):
        read_official_file(save(path, head_tensors)).averaged()
    shadows = [t for name, t in head_tensors.items() if is_parameter(name)]
    with pytest.raises(ValueError, match="ema: expected 39 tensors, one per parameter, got 38"):
        read_official_file(epoch_file(path, head_tensors, shadow_params=shadows[:-1])).averaged()
    swapped = [shadows[1], shadows[0], *shadows[2:]]
    with pytest.raises(ValueError, match=r"ema: expected the shapes .*\n- individual_codes: expected \[64, 4\]"):
        read_official_file(epoch_file(path, head_tensors, shadow_params=swapped)).averaged()


def test_write_and_read(tensors, tmp_path):
    write_official_file(tmp_path / "out.pth", tensors, entries())
    content = torch.load(tmp_path / "out.pth", weights_only=True)
    assert content.pop("model").keys() == tensors.keys() and content == entries()
    assert [path.name for path in tmp_path.iterdir()] == ["out.pth"]
