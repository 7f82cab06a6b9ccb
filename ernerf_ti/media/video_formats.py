"""Kinds of video files that are written: which codec a container takes, with which options. Without PyAV."""

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

_X26_PRESETS = (
    *("ultrafast", "superfast", "veryfast", "faster", "fast"),
    *("medium", "slow", "slower", "veryslow", "placebo"),
)
RATES = 1, 120
"""Lowest and highest number of frames per second."""


@dataclass(frozen=True)
class Encoding:
    """How the pictures of a video are encoded."""

    codec: str | None = None
    """One of CODECS; None for the container's own: VP9 in .webm, ProRes in .mov, else H.264."""
    crf: int | None = None
    """Constant rate factor; None for the codec's default, at which losses are hard to see."""
    preset: str | None = None
    """Speed of the encoder; None for the codec's default."""


DEFAULT_ENCODING = Encoding()


@dataclass(frozen=True)
class Codec:
    """A video codec and its encoder."""

    name: str
    """As people call it."""
    encoder: str
    """Its name in ffmpeg."""
    pixel_format: str
    crf: tuple[int, int, int] | None
    """Lowest, default and highest constant rate factor; None if there is none."""
    presets: tuple[str, ...]
    """Accepted presets."""
    preset: str
    """The default one."""
    options: dict[str, str]
    """Of the encoder; {crf} and {preset} are filled in."""
    has_alpha: bool = False


CODECS = {
    "h264": Codec(
        *("H.264", "libx264", "yuv420p", (0, 18, 51), _X26_PRESETS, "medium"), {"crf": "{crf}", "preset": "{preset}"}
    ),
    "hevc": Codec(
        *("HEVC", "libx265", "yuv420p", (0, 20, 51), _X26_PRESETS, "medium"),
        {"crf": "{crf}", "preset": "{preset}", "x265-params": "log-level=none"},
    ),
    # Browsers and OBS show the alpha of VP9, for web pages and live production.
    "vp9": Codec(
        *("VP9", "libvpx-vp9", "yuva420p", (0, 18, 63), tuple(map(str, range(9))), "6"),
        {"crf": "{crf}", "deadline": "realtime", "cpu-used": "{preset}", "row-mt": "1", "auto-alt-ref": "0"},
        has_alpha=True,
    ),
    "av1": Codec(
        *("AV1", "libsvtav1", "yuv420p", (1, 24, 63), tuple(map(str, range(14))), "8"),
        {"crf": "{crf}", "preset": "{preset}"},
    ),
    # ProRes 4444, for video editors.
    "prores": Codec("ProRes", "prores_ks", "yuva444p10le", None, (), "", {"profile": "4444"}, has_alpha=True),
}
# NVENC. Its constant quality is on the scale of the CRF; a bit rate of 0 lets it alone decide.
HARDWARE = Codec(
    *("H.264", "h264_nvenc", "yuv420p", (0, 18, 51), _X26_PRESETS, "medium"),
    {"preset": "p5", "tune": "hq", "rc": "vbr", "cq": "{crf}", "b": "0", "profile": "high"},
)


@dataclass(frozen=True)
class Container:
    """A kind of file."""

    format: str
    """Name in ffmpeg."""
    codecs: tuple[str, ...]
    """Of CODECS, the default first."""
    sound_codec: str
    """Encoder of sound that is not copied; beside ProRes it is PCM."""
    copied: frozenset[str]
    """Codecs of sound whose packets are copied, by their names in ffmpeg; beside ProRes only PCM."""
    options: dict[str, str]
    """Of the muxer."""


_WAIT = {"max_interleave_delta": "0"}  # the muxer waits for late pictures however long the encoder's look-ahead is
_FAST_START = _WAIT | {"movflags": "+faststart"}  # the index first, so that playing begins before the file is loaded
_INDEX_FIRST = _WAIT | {"cues_to_front": "1"}
_PCM = frozenset({"pcm_s16le", "pcm_s24le", "pcm_s32le", "pcm_f32le", "pcm_f64le"})
CONTAINERS = {
    # Browsers play these kinds of sound in an .mp4, and don't play others that it may have, such as AC-3.
    ".mp4": Container("mp4", ("h264", "hevc", "av1"), "aac", frozenset({"aac", "mp3", "opus", "flac"}), _FAST_START),
    ".webm": Container("webm", ("vp9", "av1"), "libopus", frozenset({"opus"}), _INDEX_FIRST),
    ".mov": Container("mov", ("prores", "h264", "hevc"), "aac", _PCM | {"aac", "mp3", "alac"}, _FAST_START),
    ".mkv": Container(
        *("matroska", ("h264", "hevc", "vp9", "av1", "prores"), "aac"),
        _PCM | {"aac", "mp3", "opus", "flac", "alac", "ac3", "eac3"},
        _INDEX_FIRST,
    ),
}
VIDEO_SUFFIXES = tuple(CONTAINERS)


def codec_of(path: Path, encoding: Encoding) -> Codec:
    """The codec of a video file.

    Raises ValueError, naming the option, for a suffix, codec, constant rate factor or preset that is none, or does not
    go with the others.
    """
    container = CONTAINERS.get(path.suffix.lower())
    if container is None:
        raise ValueError(
            f"{path}: expected a name that ends in {', '.join(CONTAINERS)}, got {path.suffix or 'no suffix'}; "
            "choose one of these"
        )
    name = encoding.codec or container.codecs[0]
    if name not in CODECS:
        raise ValueError(f"codec: expected one of {', '.join(CODECS)}, got {name}; choose one of these")
    if name not in container.codecs:
        fitting = [suffix for suffix, kind in CONTAINERS.items() if name in kind.codecs]
        raise ValueError(
            f"codec: expected one of {', '.join(container.codecs)} for {path.name}, got {name}; "
            f"choose one of these, or a name that ends in {' or '.join(fitting)}"
        )
    codec = CODECS[name]
    if encoding.crf is not None:
        if codec.crf is None:
            raise ValueError(f"crf: expected none for {codec.name}, got {encoding.crf}; leave it out")
        low, _, high = codec.crf
        if not low <= encoding.crf <= high:
            raise ValueError(
                f"crf: expected {low} (best) to {high} (smallest) for {codec.name}, got {encoding.crf}; "
                f"the default is {codec.crf[1]}"
            )
    if encoding.preset is not None and encoding.preset not in codec.presets:
        expected = f"one of {', '.join(codec.presets)}" if codec.presets else "none"
        raise ValueError(
            f"preset: expected {expected} for {codec.name}, got {encoding.preset}; "
            + (f"the default is {codec.preset}" if codec.presets else "leave it out")
        )
    return codec


def encoder_options(codec: Codec, encoding: Encoding) -> dict[str, str]:
    """Options of the encoder, as ffmpeg takes them."""
    crf = codec.crf[1] if codec.crf is not None and encoding.crf is None else encoding.crf
    return {key: value.format(crf=crf, preset=encoding.preset or codec.preset) for key, value in codec.options.items()}


def has_alpha(path: Path, encoding: Encoding) -> bool:
    """Whether a file of this name has an alpha channel. Raises ValueError as :func:`codec_of`."""
    return codec_of(path, encoding).has_alpha


def sound_codecs(path: Path, codec: Codec) -> tuple[str, frozenset[str]]:
    """The encoder of sound beside pictures of a codec, and the kinds of sound that are copied."""
    container = CONTAINERS[path.suffix.lower()]
    if codec is CODECS["prores"]:  # for video editors, which are at their best with PCM
        return "pcm_s24le", _PCM
    return container.sound_codec, container.copied


def exact_rate(rate: float | Fraction) -> Fraction:
    """The frame rate that a number stands for: 29.97 is 30000/1001, as are 23.98, 59.94 and their like.

    Raises ValueError outside of RATES.
    """
    if not RATES[0] <= float(rate) <= RATES[1]:  # NaN fails too
        raise ValueError(f"fps: expected {RATES[0]} to {RATES[1]} frames per second, got {rate}; choose one of these")
    for nominal in (24, 30, 48, 60, 120):
        if abs(float(rate) - nominal * 1000 / 1001) < 0.005:
            return Fraction(nominal * 1000, 1001)
    return Fraction(rate).limit_denominator(1001)
