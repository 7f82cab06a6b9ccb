"""All that a training run is told, with presets, as typed records that go into the run folder and its files."""

import dataclasses
import types
import typing
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import tyro

from ernerf_ti.model.head_field import HeadFieldConfig
from ernerf_ti.model.position_encoders import TriplaneHashConfig
from ernerf_ti.model.torso_field import TorsoFieldConfig
from ernerf_ti.render.head_renderer import MarchConfig
from ernerf_ti.render.occupancy_grid import OccupancyGridConfig
from ernerf_ti.render.torso_grid import TorsoGridConfig
from ernerf_ti.train.losses import LossWeights


@dataclass(frozen=True)
class PortraitConfig:
    """The portrait: what is learned, and how it is sampled."""

    head: HeadFieldConfig = field(default_factory=HeadFieldConfig)
    torso: TorsoFieldConfig = field(default_factory=TorsoFieldConfig)
    head_grid: OccupancyGridConfig = field(default_factory=OccupancyGridConfig)
    torso_grid: TorsoGridConfig = field(default_factory=TorsoGridConfig)
    march: MarchConfig = field(default_factory=MarchConfig)


@dataclass(frozen=True)
class OptimiserConfig:
    """AdamW [Loshchilov and Hutter 2019]; the defaults are ER-NeRF's."""

    grid_rate: float = 1e-2
    """Learning rate of the tables."""
    net_rate: float = 1e-3
    """Learning rate of the networks and identity codes."""
    audio_factor: float = 1.0
    """Of the audio encoder, times the networks' rate."""
    attention_factor: float = 5.0
    """Of the audio encoder's temporal attention, times the networks' rate."""
    camera_rate: float = 2e-5
    """Learning rate of the camera corrections, radians and scene units. A frame is met seldom, and moves by some ten
    times this each time."""
    grid_decay: float = 0.01
    """Weight decay of the tables."""
    attention_decay: float = 1e-4
    """Weight decay of the temporal attention."""
    beta1: float = 0.0
    beta2: float = 0.99
    eps: float = 1e-8
    average_decay: float = 0.95
    """Of the running average of the weights, which is what is rendered; 0 renders the last weights."""


@dataclass(frozen=True)
class StageConfig:
    """One stage of training."""

    iterations: int
    """Steps; 0 leaves the stage out."""
    n_rays: int = 65536
    """Pixels of a step, all of one frame."""
    final_rate: float = 0.5
    """Learning rates fall exponentially to this part of themselves."""
    lips_share: float = 0.0
    """Of the pixels, drawn around the lips rather than from the whole frame; 0 in ER-NeRF."""
    eyes_share: float = 0.0
    """Of the pixels, drawn around the eyes: blinks are rare, and few pixels."""


@dataclass(frozen=True)
class FineStageConfig(StageConfig):
    """The head once more, on patches and on the lips in turn, with a perceptual loss."""

    iterations: int = 25_000
    final_rate: float = 0.05
    start_rate: float = 0.1
    """Learning rates begin at this part of themselves."""
    patch_size: int = 32
    """Side of a patch in pixels."""
    perceptual: Annotated[Literal["lpips", "dssim", "none"], tyro.conf.arg(aliases=["--perceptual"])] = "lpips"
    """"lpips" needs AlexNet's weights on this machine; "dssim" is structural similarity; "none" the squared error."""


@dataclass(frozen=True)
class TrainConfig:
    """A training run. The defaults are the paper's."""

    portrait: PortraitConfig = field(default_factory=PortraitConfig)
    head: StageConfig = field(default_factory=lambda: StageConfig(100_000))
    fine: FineStageConfig = field(default_factory=FineStageConfig)
    torso: StageConfig = field(default_factory=lambda: StageConfig(100_000))
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    losses: LossWeights = field(default_factory=LossWeights)
    refine_cameras: bool = False
    """Learn a small correction of each training frame's camera along with the head. It gains next to nothing on
    captures of ours, whose poses are refined on the pictures; see docs/results.md."""
    over_noise: float = 0.125
    """Part of the pixels of the stages head and torso that are trained before random colours, which teach where these
    are opaque. Before the capture's background alone, as in the public code, they let through what their colours can be
    mixed from, and leave clouds of its colour. The head's needs the capture's labels."""
    standardise_audio: bool = True
    """Audio features as deviations from the capture's mean; the public code takes them as they are."""
    grid_update_every: int = 16
    """Steps between looks at the occupancy grids, and between smoothness terms."""
    seed: int = 0
    save_every: int = 1000
    """Steps between checkpoints."""
    validate_every: int = 5000
    """Steps between validation pictures."""
    validation_frames: int = 4
    log_every: int = 20
    """Steps between lines of the log; reading the loss waits for the device."""

    def __post_init__(self):
        for name in ("grid_update_every", "save_every", "validate_every", "validation_frames", "log_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected at least 1, got {getattr(self, name)}; pass a larger number")
        if not 0 <= self.over_noise <= 1:
            raise ValueError(f"over_noise: expected 0 to 1, got {self.over_noise}; pass the part of the pixels")
        for name in ("head", "fine", "torso"):
            stage = getattr(self, name)
            if stage.iterations < 0 or stage.n_rays < 1:
                raise ValueError(
                    f"{name}: expected iterations >= 0 and n_rays >= 1, got {stage.iterations} and {stage.n_rays}; "
                    "pass 0 iterations to leave the stage out"
                )
            if not (stage.lips_share >= 0 and stage.eyes_share >= 0 and stage.lips_share + stage.eyes_share <= 1):
                raise ValueError(
                    f"{name}: expected lips_share and eyes_share >= 0 with a sum of at most 1, got {stage.lips_share} "
                    f"and {stage.eyes_share}; pass smaller ones"
                )


def _small_portrait() -> PortraitConfig:
    return PortraitConfig(
        head=HeadFieldConfig(
            position_encoder=TriplaneHashConfig(n_levels=8, base_resolution=32, finest_resolution=256, n_features=2),
            audio_attention_width=32,
            density_width=32,
            density_layers=2,
            geometry_features=15,
            colour_width=32,
            direction_degree=2,
        ),
        torso=TorsoFieldConfig(n_levels=10, finest_resolution=512, log2_table_size=15, identity_smoothing=15),
        head_grid=OccupancyGridConfig(resolution=64, fraction=0.25),
    )


PRESETS: dict[str, TrainConfig] = {
    "paper": TrainConfig(),
    "released": TrainConfig(
        portrait=PortraitConfig(head=HeadFieldConfig(position_encoder=TriplaneHashConfig(n_levels=12))),
        torso=StageConfig(200_000),
        over_noise=0.0,
        standardise_audio=False,
    ),
    "small": TrainConfig(
        portrait=_small_portrait(),
        # Few rays of many frames: the mouth learns from frames.
        head=StageConfig(14_000, 2048, 0.05, lips_share=0.35, eyes_share=0.12),
        fine=FineStageConfig(800, 4096, perceptual="dssim"),
        torso=StageConfig(8000, 4096, 0.03),
        optimiser=OptimiserConfig(net_rate=5e-3, audio_factor=0.3, attention_factor=1.0, beta1=0.9),
        save_every=500,
        validate_every=1000,
    ),
}
"""`paper`: as published. `released`: the shape of the public code's checkpoints. `small`: for a CPU."""


def config_to_dict(config: Any) -> Any:
    """A record as JSON values. A record of a union carries its class's name as `kind`."""
    if not dataclasses.is_dataclass(config):
        return [config_to_dict(value) for value in config] if isinstance(config, (list, tuple)) else config
    result = {}
    for name, hint in typing.get_type_hints(type(config)).items():
        value = getattr(config, name)
        result[name] = config_to_dict(value)
        if _choices(hint):
            result[name] = {"kind": type(value).__name__, **result[name]}
    return result


def config_from_dict(kind: type, values: dict, place: str = "config") -> Any:
    """The record again.

    Raises:
        ValueError: a field that is unknown, missing or of another type; the message says where.
    """
    hints = typing.get_type_hints(kind)
    if not isinstance(values, dict):
        raise ValueError(f"{place}: expected the fields of {kind.__name__}, got {values!r}; see its documentation")
    unknown, missing = sorted(set(values) - set(hints)), sorted(set(hints) - set(values))
    if unknown or missing:
        raise ValueError(
            f"{place}: expected the fields {', '.join(sorted(hints))}, got "
            + "; ".join(
                [f"the unknown {', '.join(unknown)}"] * bool(unknown) + [f"no {', '.join(missing)}"] * bool(missing)
            )
            + "; use the version of ernerf-ti that wrote it"
        )
    return kind(**{name: _value(hints[name], values[name], f"{place}.{name}") for name in hints})


def _value(hint: Any, value: Any, place: str) -> Any:
    choices = _choices(hint)
    if choices:
        chosen = value.get("kind") if isinstance(value, dict) else None
        if chosen not in choices:
            raise ValueError(f"{place}: expected kind one of {', '.join(choices)}, got {chosen!r}; choose one of these")
        return config_from_dict(choices[chosen], {key: v for key, v in value.items() if key != "kind"}, place)
    if dataclasses.is_dataclass(hint):
        return config_from_dict(hint, value, place)
    return _plain(hint, value, place)


def _plain(hint: Any, value: Any, place: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        fits = value in arguments
    elif origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise ValueError(f"{place}: expected a list, got {value!r}; see the documentation of the field")
        kinds = [arguments[0]] * len(value) if arguments[-1] is Ellipsis else arguments
        return tuple(_plain(kind, item, place) for kind, item in zip(kinds, value, strict=True))
    elif origin in (typing.Union, types.UnionType):
        fits = any(_is_a(value, kind) for kind in arguments)
    else:
        fits = _is_a(value, hint)
    if not fits:
        raise ValueError(f"{place}: expected {hint}, got {value!r}; see the documentation of the field")
    return float(value) if hint is float else value


def _is_a(value: Any, kind: type) -> bool:
    if kind in (int, float) and isinstance(value, bool):
        return False
    return isinstance(value, (int, float) if kind is float else kind)


def _choices(hint: Any) -> dict[str, type]:
    """The records of a union by name; none if it is not a union of records."""
    kinds = typing.get_args(hint)
    is_union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    return {kind.__name__: kind for kind in kinds} if is_union and all(map(dataclasses.is_dataclass, kinds)) else {}
