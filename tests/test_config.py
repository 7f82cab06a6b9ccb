"""Settings as JSON and back."""

import dataclasses
import json

import pytest

from ernerf_ti.config import PRESETS, TrainConfig, config_from_dict, config_to_dict
from ernerf_ti.model.position_encoders import FrequencyConfig, HashGridConfig, PlainTriplaneConfig, TriplaneHashConfig


@pytest.mark.parametrize("preset", PRESETS)
def test_round_trip(preset):
    written = json.loads(json.dumps(config_to_dict(PRESETS[preset])))
    assert config_from_dict(TrainConfig, written) == PRESETS[preset]


@pytest.mark.parametrize("encoder", [TriplaneHashConfig, HashGridConfig, PlainTriplaneConfig, FrequencyConfig])
def test_encoders_keep_their_kind(encoder):
    small = PRESETS["small"]
    head = dataclasses.replace(small.portrait.head, position_encoder=encoder())
    config = dataclasses.replace(small, portrait=dataclasses.replace(small.portrait, head=head))
    assert config_from_dict(TrainConfig, json.loads(json.dumps(config_to_dict(config)))) == config


def test_published_schedule():
    paper = PRESETS["paper"]
    assert (paper.head.iterations, paper.fine.iterations, paper.torso.iterations) == (100_000, 25_000, 100_000)
    assert paper.portrait.head.position_encoder.n_levels == 14
    assert PRESETS["released"].portrait.head.position_encoder.n_levels == 12
    assert paper.head.n_rays == 256**2


def change(path: str, value):
    written = config_to_dict(PRESETS["small"])
    *names, last = path.split(".")
    place = written
    for name in names:
        place = place[name]
    place[last] = value
    return written


@pytest.mark.parametrize(
    ("path", "value", "text"),
    [
        ("hed", 1, "config: expected the fields .*, got the unknown hed"),
        ("head.n_ray", 5, r"config.head: expected the fields .*, got the unknown n_ray"),
        ("head.n_rays", "many", r"config.head.n_rays: expected .*int.*, got 'many'"),
        ("head.n_rays", True, r"config.head.n_rays: expected .*int.*, got True"),
        ("fine.perceptual", "vgg", r"config.fine.perceptual: expected .*lpips.*, got 'vgg'"),
        ("portrait.head.position_encoder.kind", "Cube", r"position_encoder: expected kind one of TriplaneHashConfig, "),
        ("portrait.march", 3, r"config.portrait.march: expected the fields of MarchConfig, got 3"),
        ("log_every", 0, "log_every: expected at least 1, got 0"),
        ("torso.iterations", -1, "torso: expected iterations >= 0 and n_rays >= 1, got -1"),
    ],
)
def test_what_does_not_fit_stops(path, value, text):
    with pytest.raises(ValueError, match=text):
        config_from_dict(TrainConfig, change(path, value))


def test_missing_field():
    written = config_to_dict(PRESETS["small"])
    del written["head"]["n_rays"]
    with pytest.raises(ValueError, match=r"config.head: expected the fields .*, got no n_rays"):
        config_from_dict(TrainConfig, written)
