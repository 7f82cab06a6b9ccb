"""Training configuration as JSON and back."""

import dataclasses
import json
import math

import pytest

from ernerf_ti.portrait.config import FrequencyConfig, HashGridConfig, PlainTriplaneConfig, TriplaneHashConfig
from ernerf_ti.run.serialization import config_from_dict, config_to_dict
from ernerf_ti.train.config import PRESETS, STAGES, LossWeights, OptimizerConfig, TrainConfig, limit_visits


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
    assert (paper.head.iterations, paper.finetune.iterations, paper.torso.iterations) == (100_000, 25_000, 100_000)
    assert paper.portrait.head.position_encoder.n_levels == 14
    assert PRESETS["released"].portrait.head.position_encoder.n_levels == 12
    assert paper.head.n_rays == 256**2
    for name in ("rare_frames_fraction", "silence_fraction"):
        assert getattr(PRESETS["released"], name) == getattr(TrainConfig(), name) == 0 < getattr(paper, name)


def test_few_frames_take_fewer_steps():
    config = dataclasses.replace(
        PRESETS["small"],
        head=dataclasses.replace(PRESETS["small"].head, iterations=100, most_visits=3),
        torso=dataclasses.replace(PRESETS["small"].torso, iterations=100, most_visits=0),
    )
    assert limit_visits(config, 34) == (config, [])
    limited, (note,) = limit_visits(config, 33)
    assert limited == dataclasses.replace(config, head=dataclasses.replace(config.head, iterations=99))
    assert note.startswith("head: 99 steps instead of 100, 3 for each of 33 training frames; ")
    assert "--head.most-visits 0" in note
    assert limit_visits(limited, 33) == (limited, [])  # a run that goes on


def change(path: str, value):
    written = config_to_dict(PRESETS["small"])
    *names, last = path.split(".")
    record = written
    for name in names:
        record = record[name]
    record[last] = value
    return written


@pytest.mark.parametrize(
    ("path", "value", "text"),
    [
        ("hed", 1, "config: expected only the fields .*, got also hed"),
        ("head.n_ray", 5, r"config.head: expected only the fields .*, got also n_ray;"),
        ("head.n_rays", "many", r"config.head.n_rays: expected .*int.*, got 'many'"),
        ("head.n_rays", True, r"config.head.n_rays: expected .*int.*, got True"),
        ("finetune.perceptual", "vgg", r"config.finetune.perceptual: expected .*lpips.*, got 'vgg'"),
        ("portrait.head.position_encoder.kind", "Cube", r"position_encoder: expected kind one of TriplaneHashConfig, "),
        ("portrait.march", 3, r"config.portrait.march: expected the fields of MarchConfig, got 3"),
        ("head.most_visits", -1, "head: expected most_visits >= 0, got -1; pass 0 for no limit"),
        ("log_every", 0, "log_every: expected at least 1, got 0"),
        ("rare_frames_fraction", 1.5, "rare_frames_fraction: expected 0 to 1, got 1.5"),
        ("silence_fraction", -0.1, "silence_fraction: expected 0 to 1, got -0.1; pass a fraction of the steps"),
        ("head.head_fraction", 0.6, "head: expected .* with a sum of at most 1, got 0.35, 0.12 and 0.6"),
        ("torso.iterations", -1, "torso: expected iterations >= 0 and n_rays >= 1, got -1"),
    ],
)
def test_invalid_values_are_named(path, value, text):
    with pytest.raises(ValueError, match=text):
        config_from_dict(TrainConfig, change(path, value))


NUMBERS = [
    *(f"losses.{field.name}" for field in dataclasses.fields(LossWeights)),
    *(f"optimizer.{field.name}" for field in dataclasses.fields(OptimizerConfig)),
    *(f"{stage}.{name}" for stage in STAGES for name in ("lr_decay", "lips_fraction", "eyes_fraction")),
    *(f"{stage}.head_fraction" for stage in STAGES),
    *("finetune.lr_scale", "random_background_fraction", "rare_frames_fraction"),
    *("silence_fraction", "audio_noise", "audio_cut_fraction"),
]


@pytest.mark.parametrize("path", NUMBERS)
@pytest.mark.parametrize("value", [math.nan, math.inf, -1.0])
def test_numbers_that_training_can_not_use_are_refused(path, value):
    record, _, name = path.rpartition(".")

    def changed():
        values, small = {name: value}, PRESETS["small"]
        if record:
            values = {record: dataclasses.replace(getattr(small, record), **values)}
        return dataclasses.replace(small, **values)

    with pytest.raises(ValueError, match=f"expected .*, got .*{value}") as caught:
        changed()
    assert name in str(caught.value) and str(caught.value).startswith(record)


def test_every_number_of_the_configuration_is_checked():
    def numbers(record, prefix):
        for field in dataclasses.fields(record):
            value = getattr(record, field.name)
            if dataclasses.is_dataclass(value) and field.name != "portrait":
                yield from numbers(value, f"{field.name}.")
            elif isinstance(value, float):
                yield prefix + field.name

    assert set(numbers(PRESETS["small"], "")) == set(NUMBERS)


def test_missing_fields_take_their_defaults():
    written = config_to_dict(PRESETS["small"])
    del written["head"]["n_rays"], written["seed"], written["portrait"]["march"]["dt_gamma"]
    read = config_from_dict(TrainConfig, written)
    assert (read.head.n_rays, read.seed, read.portrait.march.dt_gamma) == (65536, 0, 1 / 256)
    assert read.head.iterations == PRESETS["small"].head.iterations


def test_a_missing_field_without_a_default():
    written = config_to_dict(PRESETS["small"])
    del written["head"]["iterations"]
    with pytest.raises(ValueError, match=r"config.head: expected the field iterations, got none; add it"):
        config_from_dict(TrainConfig, written)


def test_names_of_earlier_versions():
    written = config_to_dict(PRESETS["small"])
    written["optimiser"] = written.pop("optimizer")
    written["optimiser"]["net_rate"] = written["optimiser"].pop("net_lr")
    written["fine"] = written.pop("finetune")
    written["portrait"]["head"]["identity_size"] = written["portrait"]["head"].pop("appearance_size")
    assert config_from_dict(TrainConfig, written) == PRESETS["small"]
