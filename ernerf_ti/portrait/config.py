"""Configuration of a portrait: the shape of its fields and how they are sampled.

Plain records without torch, so that a command line can show them without loading it. `_renamed` maps the names that
fields had in earlier versions to those they have now, for checkpoints and command lines that still use the old ones.
"""

from dataclasses import dataclass, field
from typing import ClassVar, Literal


@dataclass(frozen=True)
class TriplaneHashConfig:
    """Three 2-D hash grids, on the planes xy, yz and xz [ER-NeRF, Li et al. 2023, section 3.2]."""

    n_levels: int = 14
    """Resolution levels per plane; the published checkpoints have 12."""
    base_resolution: int = 64
    """Resolution of the coarsest level."""
    finest_resolution: int = 512
    """Resolution of the finest level at bound 1; multiplied by the bound."""
    log2_table_size: int = 14
    """Largest number of table entries per level, as a power of two."""
    n_features: int = 1
    """Features per level."""


@dataclass(frozen=True)
class HashGridConfig:
    """One 3-D hash grid [Instant-NGP, Mueller et al. 2022]."""

    n_levels: int = 16
    """Resolution levels."""
    base_resolution: int = 16
    """Resolution of the coarsest level."""
    finest_resolution: int = 2048
    """Resolution of the finest level at bound 1; multiplied by the bound."""
    log2_table_size: int = 16
    """Largest number of table entries per level, as a power of two."""
    n_features: int = 2
    """Features per level."""


@dataclass(frozen=True)
class PlainTriplaneConfig:
    """Three dense feature planes, interpolated and summed [EG3D, Chan et al. 2022, section 4.1]."""

    resolution: int = 256
    """Texels along each side of a plane."""
    n_features: int = 32
    """Features per texel, a multiple of 8."""


@dataclass(frozen=True)
class FrequencyConfig:
    """Frequency encoding of the position followed by an MLP, as in AD-NeRF [Guo et al. 2021]."""

    n_octaves: int = 10
    """Octaves of sines and cosines."""
    width: int = 128
    """Hidden units per layer."""
    n_layers: int = 5
    """Layers of the MLP."""
    n_features: int = 36
    """Outputs."""


DIAL_GROUPS = {"brows": ("brows",), "smile": ("smile",), "gaze": ("gaze-x", "gaze-y")}
"""Expression dials that a portrait can be trained with -> names of the single ones."""

LARGEST_DIAL = 3.0
"""Standard deviations that a dial can be turned by; training clips values at 2.5."""
LARGEST_MOUTH_GAIN = 3.0
LARGEST_NEAREST_CODES = 256
_FRAMES_PER_NEAREST_CODE = 40
_LARGEST_N_CODES = 4096


def check_mouth_gain(gain: float | None) -> None:
    """Raise ValueError for a gain that is neither None nor from 0 to 3."""
    if gain is not None and not 0 <= gain <= LARGEST_MOUTH_GAIN:
        raise ValueError(f"mouth-gain: expected 0 to {LARGEST_MOUTH_GAIN:g}, got {gain:g}; pass e.g. 1.25")


PositionEncoderConfig = TriplaneHashConfig | HashGridConfig | PlainTriplaneConfig | FrequencyConfig


@dataclass(frozen=True)
class HeadFieldConfig:
    """Shape of the head field; the defaults are the paper's."""

    bound: float = 1.0
    """Half the side length of the scene cube, scene units."""
    position_encoder: PositionEncoderConfig = field(default_factory=TriplaneHashConfig)
    """Encoder of sample positions."""
    attention: str = "channel"
    """Region attention: "channel" (the paper's), "feature" (one weight for the whole audio code) or "none"."""
    audio_code_size: int = 32
    """Length of the audio code."""
    audio_attention_width: int = 64
    """Hidden units of the audio attention MLP."""
    eye_attention_width: int = 16
    """Hidden units of the eye attention MLP."""
    eye_closure_scale: float = 1.0
    """Multiplies the eye closure where the density network takes it. With 1, as published, some trainings did not learn
    to close the eyes, and irises showed through the lids."""
    density_width: int = 64
    """Hidden units per layer of the density network."""
    density_layers: int = 3
    """Layers of the density network."""
    geometry_features: int = 64
    """Outputs of the density network that feed the color network."""
    color_width: int = 64
    """Hidden units per layer of the color network."""
    color_layers: int = 2
    """Layers of the color network."""
    direction_degree: int = 4
    """Degree of the spherical harmonics of the view direction."""
    appearance_size: int = 4
    """Length of the per-frame appearance embedding."""
    uncertainty_width: int = 32
    """Hidden units of the uncertainty MLP."""
    mouth_gain: float = 1.0
    """How far audio codes are moved from their mean when the portrait is rendered, not in training: 1 leaves them as
    they are. What is learned from squared errors moves less than what it predicts; more than 1 makes up for that."""
    nearest_codes: int = 0
    """Audio codes are replaced by the weighted mean of this many codes of training frames, the nearest ones, when the
    portrait is rendered, not in training. 0, as published, takes them as they are; sounds that are like none of
    training then mix mouths. Nothing is replaced with fewer than 40 times as many training frames: their codes lie too
    far apart."""
    dials: tuple[Literal["brows", "smile", "gaze"], ...] = ()
    """Expression dials, which synthesis can then turn: "brows" (how far they are raised), "smile" (how wide and high
    the corners of the mouth are) and "gaze" (two dials: gaze-x to the right of the picture, gaze-y up). The capture
    needs the face mesh that `ernerf-ti preprocess` keeps in it."""

    def __post_init__(self) -> None:
        check_mouth_gain(self.mouth_gain)
        if not 0 <= self.nearest_codes <= LARGEST_NEAREST_CODES:
            raise ValueError(f"nearest_codes: expected 0 to {LARGEST_NEAREST_CODES}, got {self.nearest_codes}; pass 16")
        if not 0 < self.eye_closure_scale <= 100:
            raise ValueError(
                f"eye_closure_scale: expected more than 0, at most 100, got {self.eye_closure_scale}; pass 4"
            )

    def n_codes(self, n_frames: int) -> int:
        """How many codes of n training frames a portrait keeps, evenly spaced: at most 4096."""
        enough = 0 < self.nearest_codes * _FRAMES_PER_NEAREST_CODE <= n_frames
        return min(n_frames, _LARGEST_N_CODES) if enough else 0

    @property
    def dial_names(self) -> tuple[str, ...]:
        """Of the single dials, gaze-x and gaze-y in place of gaze, in a fixed order."""
        return tuple(name for group, names in DIAL_GROUPS.items() if group in self.dials for name in names)

    _renamed: ClassVar[dict[str, str]] = {
        "colour_width": "color_width",
        "colour_layers": "color_layers",
        "identity_size": "appearance_size",
    }


@dataclass(frozen=True)
class TorsoFieldConfig:
    """Shape of the torso field; the defaults are the paper's."""

    shrink: float = 0.8
    """Pixel coordinates are multiplied by this, so that deformed coordinates stay on the grid."""
    anchors: tuple[tuple[float, float, float], ...] = ((0.01, 0.01, 0.1), (-0.1, -0.1, 0.1), (0.1, -0.1, 0.1))
    """Initial positions of the learned key points of the adaptive pose encoding, scene units."""
    anchor_octaves: int = 3
    """Octaves of the frequency encoding of the projected key points."""
    pixel_octaves: int = 8
    """Octaves of the frequency encoding of pixel coordinates."""
    n_levels: int = 16
    """Resolution levels of the 2-D hash grid."""
    base_resolution: int = 16
    """Resolution of the coarsest level."""
    finest_resolution: int = 2048
    """Resolution of the finest level."""
    log2_table_size: int = 16
    """Largest number of table entries per level, as a power of two."""
    n_features: int = 2
    """Features per level."""
    deformation_width: int = 32
    """Hidden units per layer of the deformation network."""
    deformation_layers: int = 3
    """Layers of the deformation network."""
    color_width: int = 32
    """Hidden units per layer of the color network."""
    color_layers: int = 3
    """Layers of the color network."""
    appearance_size: int = 8
    """Length of the per-frame appearance embedding."""
    appearance_smoothing: int = 1
    """Frames averaged into each frame's embedding, odd. With 1, as published, an embedding is trained by its own frame
    alone, which a short training visits once or twice: too seldom to learn where the shoulders are."""

    _renamed: ClassVar[dict[str, str]] = {
        "colour_width": "color_width",
        "colour_layers": "color_layers",
        "identity_size": "appearance_size",
        "identity_smoothing": "appearance_smoothing",
    }


@dataclass(frozen=True)
class OccupancyGridConfig:
    """Resolution and update schedule of the head's occupancy grid."""

    bound: float = 1.0
    """Half the side length of the scene cube, scene units; the scene is half as deep (y)."""
    resolution: int = 128
    """Cells along each axis, a power of two. The longest ray step is the diagonal of a cell."""
    decay: float = 0.95
    """Decay of the running maximum density at each update."""
    density_threshold: float = 10.0
    """Cells denser than this, or than the mean of the grid if that is lower, are occupied."""
    fraction: float = 1.0
    """Fraction of the cells evaluated at each update after the first 16: half of them drawn evenly from all cells, half
    from the occupied ones. 1 evaluates all cells, as in ER-NeRF."""


@dataclass(frozen=True)
class TorsoGridConfig:
    """Resolution and update schedule of the torso's occupancy grid."""

    resolution: int = 128
    """Cells along each side of the image."""
    decay: float = 0.95
    """Decay of the running maximum alpha at each update."""
    alpha_threshold: float = 0.01
    """Cells more opaque than this, or than the mean of the grid if that is lower, are occupied."""


@dataclass(frozen=True)
class MarchConfig:
    """Ray sampling; the defaults are ER-NeRF's."""

    max_steps: int = 16
    """Most samples per ray, all in occupied cells; values above 2 sqrt(3) / cell diagonal also shorten the steps."""
    dt_gamma: float = 1 / 256
    """Growth of the step length with distance; no effect while max_steps is at most the grid's resolution."""
    min_near: float = 0.05
    """Nothing closer to the camera is sampled, scene units."""
    T_threshold: float = 1e-4
    """A ray ends once its transmittance falls below this."""
    samples_per_pass: int = 4
    """On the CPU: samples of a ray evaluated before its transmittance is checked again; max_steps evaluates all at
    once, as on CUDA."""
    samples_per_chunk: int | None = None
    """Samples evaluated at once, all rays together; None picks 16384 for training and 8192 for images on the CPU, all
    of them for training on CUDA, and a million for images there."""
    recompute: bool = False
    """Recompute activations in the backward pass: a third slower, but holds the activations of one chunk instead of
    2.2 KB per sample."""
    rays_per_chunk: int | None = None
    """On the CPU: rays rendered at once with uncertainty, or by another field than the head's own; None picks 8192.
    Images have all rays rendered at once, as on CUDA."""

    _renamed: ClassVar[dict[str, str]] = {"samples_per_wave": "samples_per_pass"}


@dataclass(frozen=True)
class PortraitConfig:
    """The portrait: shape of its fields, occupancy grids and ray sampling."""

    head: HeadFieldConfig = field(default_factory=HeadFieldConfig)
    torso: TorsoFieldConfig = field(default_factory=TorsoFieldConfig)
    head_grid: OccupancyGridConfig = field(default_factory=OccupancyGridConfig)
    torso_grid: TorsoGridConfig = field(default_factory=TorsoGridConfig)
    march: MarchConfig = field(default_factory=MarchConfig)
