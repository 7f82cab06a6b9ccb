"""Reading files of the public code, made here from its key names and shapes."""

import pytest
import torch

from ernerf_ti.official_checkpoint import read_official_checkpoint

FEATURES = 29
CONVOLUTIONS = [(32, FEATURES), (32, 32), (64, 32), (64, 64)]
ATTENTION = [(16, 32), (8, 16), (4, 8), (2, 4), (1, 2)]


def shapes(features=FEATURES, torso=True) -> dict[str, tuple[int, ...]]:
    named = {"individual_codes": (7, 4)}
    for i, (n_out, n_in) in enumerate(CONVOLUTIONS):
        named[f"audio_net.encoder_conv.{2 * i}.weight"] = (n_out, features if i == 0 else n_in, 3)
        named[f"audio_net.encoder_conv.{2 * i}.bias"] = (n_out,)
    for i, n_out in ((0, 64), (2, 32)):
        named[f"audio_net.encoder_fc1.{i}.weight"] = (n_out, 64)
        named[f"audio_net.encoder_fc1.{i}.bias"] = (n_out,)
    for i, (n_out, n_in) in enumerate(ATTENTION):
        named[f"audio_att_net.attentionConvNet.{2 * i}.weight"] = (n_out, n_in, 3)
        named[f"audio_att_net.attentionConvNet.{2 * i}.bias"] = (n_out,)
    named |= {"audio_att_net.attentionNet.0.weight": (8, 8), "audio_att_net.attentionNet.0.bias": (8,)}
    named |= {f"encoder_{plane}.embeddings": (163584, 1) for plane in ("xy", "yz", "xz")}
    networks = {
        "eye_att_net": [(16, 36), (1, 16)],
        "sigma_net": [(64, 69), (64, 64), (65, 64)],
        "color_net": [(64, 84), (3, 64)],
        "unc_net": [(32, 36), (1, 32)],
        "aud_ch_att_net": [(64, 36), (32, 64)],
    }
    if torso:
        networks |= {
            "torso_deform_net": [(32, 84), (32, 32), (2, 32)],
            "torso_net": [(32, 116), (32, 32), (4, 32)],
        }
        named |= {"individual_codes_torso": (7, 8), "anchor_points": (3, 4), "density_grid_torso": (16384,)}
        named |= {"torso_encoder.embeddings": (555520, 2)}
    for network, layers in networks.items():
        named |= {f"{network}.net.{i}.weight": shape for i, shape in enumerate(layers)}
    return named


@pytest.fixture(scope="module")
def tensors():
    generator = torch.Generator().manual_seed(1)
    made = {name: torch.rand(shape, generator=generator) for name, shape in shapes().items()}
    made["density_bitfield"] = torch.randint(0, 256, (262144,), dtype=torch.uint8, generator=generator)
    # What the public code stores besides, and we do not need.
    made["aabb_train"], made["step_counter"] = torch.zeros(6), torch.zeros(16, 2, dtype=torch.int32)
    return made


def save(path, tensors, bare=False, **more):
    torch.save(tensors if bare else {"model": tensors, "epoch": 3, "stats": {"loss": []}, **more}, path)
    return path


def test_every_tensor_arrives(tensors, tmp_path):
    model = read_official_checkpoint(save(tmp_path / "ngp.pth", tensors, mean_density_torso=0.004))
    head, torso = model.head.state_dict(), model.torso.state_dict()
    values = [*head.values(), *torso.values(), model.torso_grid.alpha_grid.flatten()]
    total = sum(t.numel() for name, t in tensors.items() if name in shapes())
    assert sum(v.numel() for v in values) == total
    # Each named tensor is found, once, with its values.
    for name in shapes():
        tensor = tensors[name]
        if name.startswith("encoder_"):
            found = [
                torch.equal(head["position_encoder.encoding.tables"][("xy", "yz", "xz").index(name[8:10])], tensor)
            ]
        else:
            found = [v.shape == tensor.shape and torch.equal(v, tensor) for v in values]
        assert sum(found) == 1, name
    assert torch.equal(model.head_grid.bitfield, tensors["density_bitfield"])
    assert model.torso_grid.mean_alpha.item() == pytest.approx(0.004)
    assert model.head.audio_encoder.feature_dimension == FEATURES and len(model.head.identity_codes.codes) == 7


def test_a_head_alone_and_a_bare_state_dict(tensors, tmp_path):
    head_only = {name: tensors[name] for name in (*shapes(torso=False), "density_bitfield")}
    model = read_official_checkpoint(save(tmp_path / "bare.pth", head_only, bare=True))
    assert model.torso is None and model.torso_grid is None
    torch.testing.assert_close(model.head.identity_codes.codes.detach(), tensors["individual_codes"])


def test_the_feature_dimension_comes_from_the_file(tensors, tmp_path):
    other = {name: tensors[name] for name in (*shapes(torso=False), "density_bitfield")}
    other["audio_net.encoder_conv.0.weight"] = torch.zeros(32, 1024, 3)
    model = read_official_checkpoint(save(tmp_path / "hubert.pth", other))
    assert model.head.audio_encoder.feature_dimension == 1024


def test_a_missing_tensor_is_named(tensors, tmp_path):
    for name in ("sigma_net.net.1.weight", "density_bitfield", "torso_encoder.embeddings", "encoder_yz.embeddings"):
        path = save(tmp_path / "part.pth", {k: v for k, v in tensors.items() if k != name})
        with pytest.raises(ValueError, match=rf"part.pth: expected a tensor {name}, got none; pass a checkpoint"):
            read_official_checkpoint(path)


def test_another_shape_is_named_with_both(tensors, tmp_path):
    path = save(tmp_path / "ngp.pth", tensors | {"color_net.net.0.weight": torch.zeros(64, 80)})
    with pytest.raises(ValueError, match=r"color_net.net.0.weight: expected shape \[64, 84\], got \[64, 80\]"):
        read_official_checkpoint(path)
    other_levels = {f"encoder_{plane}.embeddings": torch.zeros(196352, 1) for plane in ("xy", "yz", "xz")}
    path = save(tmp_path / "ngp.pth", tensors | other_levels)
    with pytest.raises(ValueError, match=r"encoder_xy.embeddings: expected shape \[163584, 1\], got \[196352, 1\]"):
        read_official_checkpoint(path)


def test_other_files_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.pth: expected a checkpoint, got no such file"):
        read_official_checkpoint(tmp_path / "none.pth")
    (tmp_path / "text.pth").write_text("hello")
    with pytest.raises(ValueError, match=r"text.pth: expected a file of torch.save with tensors only"):
        read_official_checkpoint(tmp_path / "text.pth")
    path = save(tmp_path / "other.pth", {"layer.weight": torch.zeros(3)})
    with pytest.raises(ValueError, match=r"other.pth: expected a state dict of ER-NeRF"):
        read_official_checkpoint(path)
