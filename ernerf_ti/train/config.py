"""Training configuration: optimizer, stages, loss weights and presets, as plain records without torch.

`_renamed`: see :mod:`ernerf_ti.portrait.config`.
"""

import math
from dataclasses import dataclass, field, fields, replace
from typing import ClassVar, Literal

from ernerf_ti.portrait.config import (
    HeadFieldConfig,
    OccupancyGridConfig,
    PortraitConfig,
    TorsoFieldConfig,
    TriplaneHashConfig,
)
from ernerf_ti.process.precision import Precision

STAGES = ("head", "finetune", "torso")
"""Stages of training, in their order."""


def _require_not_negative(path: str, record: object, *names: str) -> None:
    """Raise ValueError for a negative or infinite field, or one that is not a number, of the record at `path`."""
    for name in names:
        value = getattr(record, name)
        if not 0 <= value < math.inf:
            raise ValueError(f"{path}.{name}: expected 0 or more, and finite, got {value}; pass e.g. 0.001")


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW [Loshchilov and Hutter 2019]; the defaults are ER-NeRF's."""

    grid_lr: float = 1e-2
    """Learning rate of the hash tables."""
    net_lr: float = 1e-3
    """Learning rate of the networks and appearance embeddings."""
    audio_lr_scale: float = 1.0
    """Learning rate of the audio encoder, relative to net_lr."""
    attention_lr_scale: float = 5.0
    """Learning rate of the audio encoder's temporal attention, relative to net_lr."""
    camera_lr: float = 2e-5
    """Learning rate of the camera corrections, radians and scene units. Each frame is visited rarely and moves about
    ten times this far per visit."""
    grid_weight_decay: float = 0.01
    """Weight decay of the hash tables."""
    attention_weight_decay: float = 1e-4
    """Weight decay of the temporal attention."""
    beta1: float = 0.0
    """Decay of AdamW's first moment."""
    beta2: float = 0.99
    """Decay of AdamW's second moment."""
    eps: float = 1e-8
    """AdamW's denominator offset."""
    ema_decay: float = 0.95
    """Decay of the moving average of the weights, which is what gets rendered; 0 renders the last weights."""

    def __post_init__(self) -> None:
        rates = ("grid_lr", "net_lr", "audio_lr_scale", "attention_lr_scale", "camera_lr")
        _require_not_negative("optimizer", self, *rates, "grid_weight_decay", "attention_weight_decay")
        if not 0 < self.eps < math.inf:
            raise ValueError(f"optimizer.eps: expected more than 0, got {self.eps}; pass e.g. 1e-8")
        for name in ("beta1", "beta2", "ema_decay"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"optimizer.{name}: expected 0 to below 1, got {getattr(self, name)}; pass e.g. 0.9")

    _renamed: ClassVar[dict[str, str]] = {
        "grid_rate": "grid_lr",
        "net_rate": "net_lr",
        "audio_factor": "audio_lr_scale",
        "attention_factor": "attention_lr_scale",
        "camera_rate": "camera_lr",
        "grid_decay": "grid_weight_decay",
        "attention_decay": "attention_weight_decay",
        "average_decay": "ema_decay",
    }


_MOST_RAYS = 1 << 22  # of a step; as many pixels as a picture of 2048 x 2048 has


@dataclass(frozen=True)
class StageConfig:
    """One stage of training."""

    iterations: int
    """Training steps; 0 skips the stage."""
    n_rays: int = 65536
    """Rays per step, all of one frame."""
    lr_decay: float = 0.5
    """Learning rates decay exponentially to this fraction of their initial values."""
    lips_fraction: float = 0.0
    """Fraction of the rays drawn around the lips rather than from the whole frame; 0 in ER-NeRF."""
    eyes_fraction: float = 0.0
    """Fraction of the rays drawn around the eyes: blinks are rare and cover few pixels."""
    head_fraction: float = 0.0
    """Fraction of the rays drawn around the head with its hair, for heads that are small in the frame."""
    most_visits: int = 0
    """Fewer steps where there would be more than this many per training frame; 0 for no limit. Steps enough for minutes
    of video learn seconds by heart, and the mouth then follows other sounds less."""

    _renamed: ClassVar[dict[str, str]] = {
        "final_rate": "lr_decay",
        "lips_share": "lips_fraction",
        "eyes_share": "eyes_fraction",
    }


@dataclass(frozen=True)
class FinetuneStageConfig(StageConfig):
    """Fine-tuning of the head on random patches and on the lips in turn, with a perceptual loss."""

    iterations: int = 25_000
    """Training steps; 0 skips the stage."""
    lr_decay: float = 0.05
    """Learning rates decay exponentially to this fraction of their initial values."""
    lr_scale: float = 0.1
    """Initial learning rates, relative to those of the optimizer."""
    patch_size: int = 32
    """Side length of a patch in pixels."""
    perceptual: Literal["auto", "st-lpips", "lpips", "dssim", "none"] = "auto"
    """Perceptual loss. "auto" takes the best one that is installed; "st-lpips" tolerates small shifts and needs the
    extra `perceptual`; "lpips" needs the extra `lpips` and AlexNet's weights; "dssim" is structural dissimilarity;
    "none" trains without one; `lips_dssim` of the loss weights is a term of its own, to be set to 0 for the squared
    error alone."""
    parts_density: Literal[1, 2] = 1
    """Rays per pixel along rows and columns of the squares around lips and eyes. At 2 the target between pixels is the
    mean of its neighbors; where that takes more rays than n_rays, a random part of the square is taken."""
    eyes_every: int = 0
    """Every how many steps on random patches one is taken on squares around the eyes instead; 0 for none, 1 for
    no patches."""

    _renamed: ClassVar[dict[str, str]] = {**StageConfig._renamed, "start_rate": "lr_scale"}


@dataclass(frozen=True)
class LossWeights:
    """Weights of the head's loss terms; the defaults are ER-NeRF's. 0 drops a term."""

    opacity_entropy: float = 1e-4
    """Entropy of the opacity: rays should hit or miss."""
    audio_attention: float = 1e-4
    """Audio attention outside the face, where audio should have no effect."""
    eye_attention: float = 1e-4
    """Eye attention inside the face where audio attention is high."""
    attention_outside: float = 0.0
    """Audio and eye attention outside the face, from the last tenth of the head stage on. It stills hair and ears,
    which otherwise move a little with speech and blinks. ER-NeRF has no such term."""
    uncertainty: float = 1.0
    """Learned uncertainty of the error, and the ray weights that follow from it."""
    smoothness: float = 1e-5
    """Spatial variation of attention and uncertainty."""
    patch_perceptual: float = 0.1
    """Perceptual loss on patches, while fine-tuning."""
    lips_perceptual: float = 0.01
    """Perceptual loss on the lips, and on the eyes where they are trained on, while fine-tuning."""
    lips_dssim: float = 0.0
    """Structural dissimilarity on the lips, and on the eyes where they are trained on, beside the perceptual loss while
    fine-tuning. ER-NeRF has no such term."""

    def __post_init__(self) -> None:
        _require_not_negative("losses", self, *(weight.name for weight in fields(self)))

    _renamed: ClassVar[dict[str, str]] = {"ambient_audio": "audio_attention", "ambient_eye": "eye_attention"}


@dataclass(frozen=True)
class TrainConfig:
    """Training configuration; the defaults are the paper's."""

    portrait: PortraitConfig = field(default_factory=PortraitConfig)
    head: StageConfig = field(default_factory=lambda: StageConfig(100_000))
    finetune: FinetuneStageConfig = field(default_factory=FinetuneStageConfig)
    torso: StageConfig = field(default_factory=lambda: StageConfig(100_000))
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    losses: LossWeights = field(default_factory=LossWeights)
    refine_cameras: bool = False
    """Learn a small correction of each training camera along with the head. Captures made by `ernerf-ti preprocess`
    gain next to nothing, because their poses are already refined photometrically."""
    random_background_fraction: float = 0.125
    """Fraction of rays composited over random colors in the stages head and torso, so that opacity is identifiable.
    Over the captured background alone, as in the public code, anything that the background's colors can be mixed from
    may stay transparent. The head stage needs the capture's segmentation masks for it."""
    rare_frames_fraction: float = 0.0
    """Fraction of the head's steps whose frame is drawn by how rare its eye closure, its mouth opening and its head
    pose are, so that closed eyes, wide mouths and turned heads are seen often enough to be learned. The other steps
    visit all frames equally often, as all do in the public code."""
    silence_fraction: float = 0.0
    """Fraction of the head's steps that train on silence: a frame whose mouth is closed, with features of noise at
    -60 dB in place of its own. Without them the mouth is half open in silence that the capture has none of."""
    audio_noise: float = 0.0
    """Noise that is added to the audio features of the head's steps, relative to their deviation."""
    audio_cut_fraction: float = 0.0
    """Fraction of the head's steps that know the features of the next 80 to 220 ms only, instead of 240 ms."""
    standardize_audio: bool = True
    """Standardize audio features by the capture's mean and deviation; the public code uses them as they are."""
    grid_update_every: int = 16
    """Steps between updates of the occupancy grids, and between smoothness terms."""
    precision: Precision = "auto"
    """Format of the networks' values; weights, encodings, compositing and losses are float32. auto is float32 on the
    CPU, and on CUDA bf16, or fp16 on a GPU without bf16."""
    seed: int = 0
    """Seed of all random numbers."""
    save_every: int = 1000
    """Steps between checkpoints."""
    validate_every: int = 5000
    """Steps between validation images."""
    validation_frames: int = 4
    """Held-out frames rendered for validation."""
    log_every: int = 20
    """Steps between log lines; reading the loss waits for the device."""

    _renamed: ClassVar[dict[str, str]] = {
        "fine": "finetune",
        "optimiser": "optimizer",
        "balanced_closure_fraction": "rare_frames_fraction",
        "over_noise": "random_background_fraction",
        "standardise_audio": "standardize_audio",
    }

    def __post_init__(self) -> None:
        for name in ("grid_update_every", "save_every", "validate_every", "validation_frames", "log_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected at least 1, got {getattr(self, name)}; pass a larger number")
        if not 0 <= self.seed < 1 << 62:
            raise ValueError(f"seed: expected 0 or more, below 2^62, got {self.seed}; pass e.g. 0")
        if not 0 <= self.random_background_fraction <= 1:
            raise ValueError(
                f"random_background_fraction: expected 0 to 1, got {self.random_background_fraction}; "
                "pass a fraction of the rays"
            )
        if not 0 <= self.rare_frames_fraction <= 1:
            raise ValueError(
                f"rare_frames_fraction: expected 0 to 1, got {self.rare_frames_fraction}; pass a fraction of the steps"
            )
        if not 0 <= self.silence_fraction <= 1:
            raise ValueError(
                f"silence_fraction: expected 0 to 1, got {self.silence_fraction}; pass a fraction of the steps"
            )
        if not 0 <= self.audio_noise <= 10 or not 0 <= self.audio_cut_fraction <= 1:
            raise ValueError(
                f"audio_noise, audio_cut_fraction: expected 0 to 10 and 0 to 1, got {self.audio_noise} and "
                f"{self.audio_cut_fraction}; pass e.g. 0.2 and 0.5"
            )
        _require_not_negative("finetune", self.finetune, "lr_scale")
        for name in STAGES:
            stage = getattr(self, name)
            _require_not_negative(name, stage, "lr_decay")
            if stage.iterations < 0 or stage.n_rays < 1:
                raise ValueError(
                    f"{name}: expected iterations >= 0 and n_rays >= 1, got {stage.iterations} and {stage.n_rays}; "
                    "pass 0 iterations to skip the stage"
                )
            if stage.most_visits < 0:
                raise ValueError(f"{name}: expected most_visits >= 0, got {stage.most_visits}; pass 0 for no limit")
            if stage.n_rays > _MOST_RAYS:
                raise ValueError(f"{name}: expected at most {_MOST_RAYS} n_rays, got {stage.n_rays}; pass e.g. 65536")
            if not (
                min(stage.lips_fraction, stage.eyes_fraction, stage.head_fraction) >= 0
                and stage.lips_fraction + stage.eyes_fraction + stage.head_fraction <= 1
            ):
                raise ValueError(
                    f"{name}: expected lips_fraction, eyes_fraction and head_fraction >= 0 with a sum of at most 1, "
                    f"got {stage.lips_fraction}, {stage.eyes_fraction} and {stage.head_fraction}; "
                    "pass smaller fractions"
                )
        if self.finetune.patch_size < 1 or self.finetune.eyes_every < 0:
            raise ValueError(
                f"finetune: expected patch_size >= 1 and eyes_every >= 0, got {self.finetune.patch_size} and "
                f"{self.finetune.eyes_every}; pass a side length in pixels and a number of steps"
            )


def _small_portrait() -> PortraitConfig:
    return PortraitConfig(
        head=HeadFieldConfig(
            position_encoder=TriplaneHashConfig(n_levels=8, base_resolution=32, finest_resolution=256, n_features=2),
            audio_attention_width=32,
            eye_closure_scale=4.0,
            density_width=32,
            density_layers=2,
            geometry_features=15,
            color_width=32,
            direction_degree=2,
            mouth_gain=1.15,
            nearest_codes=16,
        ),
        torso=TorsoFieldConfig(n_levels=10, finest_resolution=512, log2_table_size=15, appearance_smoothing=15),
        head_grid=OccupancyGridConfig(resolution=64, fraction=0.25),
    )


_RARE_FRAMES_FRACTION, _SILENCE_FRACTION, _ATTENTION_OUTSIDE = 0.5, 0.05, 4e-3

PRESETS: dict[str, TrainConfig] = {
    "paper": TrainConfig(
        losses=LossWeights(attention_outside=_ATTENTION_OUTSIDE),
        rare_frames_fraction=_RARE_FRAMES_FRACTION,
        silence_fraction=_SILENCE_FRACTION,
    ),
    "released": TrainConfig(
        portrait=PortraitConfig(head=HeadFieldConfig(position_encoder=TriplaneHashConfig(n_levels=12))),
        torso=StageConfig(200_000),
        random_background_fraction=0.0,
        standardize_audio=False,
    ),
    "small": TrainConfig(
        portrait=_small_portrait(),
        # Few rays of many frames: the mouth learns from frames.
        head=StageConfig(14_000, 2048, 0.05, lips_fraction=0.35, eyes_fraction=0.12, most_visits=24),
        finetune=FinetuneStageConfig(1600, 4096, eyes_every=3),
        # On patches a third of the published weight: ST-LPIPS makes them as sharp as LPIPS, and costs less PSNR.
        losses=LossWeights(attention_outside=_ATTENTION_OUTSIDE, patch_perceptual=0.03, lips_dssim=0.15),
        # Few pixels of many frames: the shoulders of a frame are learned in its own steps.
        torso=StageConfig(16_000, 2048, 0.03),
        optimizer=OptimizerConfig(net_lr=5e-3, audio_lr_scale=0.3, attention_lr_scale=1.0, beta1=0.9),
        rare_frames_fraction=_RARE_FRAMES_FRACTION,
        silence_fraction=_SILENCE_FRACTION,
        save_every=500,
        validate_every=1000,
    ),
}
"""`paper`: as published, for a GPU. `released`: the shape of the public code's checkpoints. `small`: for a CPU."""


def limit_visits(config: TrainConfig, n_frames: int) -> tuple[TrainConfig, list[str]]:
    """Lower the steps of each stage to its `most_visits` of every training frame.

    Args:
        config: of a run, when it starts or later.
        n_frames: training frames.

    Returns:
        The configuration, and a line for each stage that gets fewer steps.
    """
    limited, notes = {}, []
    for name in STAGES:
        stage = getattr(config, name)
        most = stage.most_visits * n_frames
        if 0 < most < stage.iterations:
            limited[name] = replace(stage, iterations=most)
            notes.append(
                f"{name}: {most} steps instead of {stage.iterations}, {stage.most_visits} for each of {n_frames} "
                f"training frames; more would learn them by heart (--{name}.most-visits 0 takes all steps)"
            )
    return replace(config, **limited), notes


def default_preset(device_type: str) -> str:
    """Preset for a device type, "cpu" or "cuda"."""
    return "paper" if device_type == "cuda" else "small"
