"""Colors of HDR and wide-gamut video as BT.709 code values.

Numbers of transfer functions and primaries are those of ITU-T H.273, which ffmpeg uses too. Sources: transfer functions
and the system gamma of HLG from ITU-R BT.2100, the reference white of 203 cd/m2 from BT.2408, highlights by equation 4
of Reinhard et al., "Photographic tone reproduction for digital images" (2002).
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

PQ, HLG = 16, 18
_LINEAR = 8
_REFERENCE_WHITE = 203.0  # cd/m2
_HLG_PEAK = 1000.0  # cd/m2 of the nominal display, for which the system gamma is 1.2
_KNEE = 0.84  # code value above which highlights are compressed
_D65 = (0.3127, 0.3290)
_CHROMATICITIES = {
    1: ((0.640, 0.330), (0.300, 0.600), (0.150, 0.060)),
    9: ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046)),
    # Digital cinema differs from Display P3 in the white alone, which is shown as the display's white.
    11: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),
    12: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),
}
_NAMES = {9: "BT.2020", 11: "DCI-P3", 12: "Display P3"}


@dataclass(frozen=True)
class Encoding:
    """How code values stand for light, where it is not as in BT.709."""

    transfer: int
    primaries: int
    peak: float = 1000.0
    """cd/m2 of the brightest pixel; for PQ only."""

    def __str__(self) -> str:
        gamut = _NAMES.get(self.primaries, "BT.709")
        if self.transfer in (PQ, HLG):
            return f"HDR ({'PQ' if self.transfer == PQ else 'HLG'}, {gamut})"
        return f"{'linear light' if self.transfer == _LINEAR else 'wide-gamut color'} ({gamut})"


def encoding(transfer: int, primaries: int, peak: float | None = None) -> Encoding | None:
    """The encoding of a picture with these tags, or None if it is shown as BT.709.

    BT.601, BT.709 and untagged colors are shown without a conversion, as players do. HDR without primaries has those of
    BT.2020.

    Args:
        transfer: transfer characteristics.
        primaries: color primaries.
        peak: cd/m2 of the brightest pixel, if known.
    """
    hdr = transfer in (PQ, HLG)
    if hdr and primaries not in _CHROMATICITIES:
        primaries = 9
    if not hdr and transfer != _LINEAR and primaries not in _NAMES:
        return None
    peak = 1000.0 if peak is None else min(max(peak, 1.5 * _REFERENCE_WHITE), 10_000.0)
    return Encoding(transfer, primaries if primaries in _CHROMATICITIES else 1, peak)


def to_bt709(signal: np.ndarray, source: Encoding) -> np.ndarray:
    """Convert code values to BT.709.

    Light is scaled so that HDR's reference white is white, up to the compression of highlights, which begins at a code
    value of 0.84 and keeps the hue and the saturation. Colors outside of the gamut lose saturation until they fit.
    Light and BT.709 code values are related by BT.709's own opto-electronic transfer function.

    Args:
        signal: [..., 3] R'G'B' in [0, 1].
        source: the encoding.

    Returns:
        [..., 3] in [0, 1].
    """
    signal = np.asarray(signal, np.float64)
    light, brightest = _TO_LIGHT.get(source.transfer, _sdr_light)(signal, source)
    light = light @ _to_bt709_primaries(source.primaries).T
    luminance = (light @ _luminance_weights(1))[..., None]
    lowest = light.min(-1, keepdims=True)
    kept = np.where(lowest < 0, luminance / np.maximum(luminance - lowest, 1e-12), 1)
    light = luminance + kept * (light - luminance)
    largest = np.maximum(light.max(-1, keepdims=True), 1e-12)
    if brightest > 1:
        light = light * (_inverse_oetf(_compress(_oetf(largest), _oetf(np.array(brightest)))) / largest)
    else:
        kept = np.where(largest > 1, (1 - luminance) / np.maximum(largest - luminance, 1e-12), 1)
        light = luminance + kept * (light - luminance)
    return np.clip(_oetf(np.clip(light, 0, 1)), 0, 1)


@functools.lru_cache(maxsize=8)
def cube_text(source: Encoding, white: float = 1.0) -> str:
    """The conversion as a table of colors in the format .cube, which ffmpeg's filter lut3d reads and interpolates.

    Args:
        source: the encoding.
        white: the input, relative to its largest value, that stands for a code value of 1.
    """
    n = 65 if source.transfer == PQ else 49  # PQ spends a quarter of its range on light above 1000 cd/m2
    blue, green, red = np.meshgrid(*[np.minimum(np.linspace(0, 1 / white, n), 1)] * 3, indexing="ij")
    values = to_bt709(np.stack((red, green, blue), -1), source).reshape(-1, 3)
    return f"LUT_3D_SIZE {n}\n" + "".join(map("%.5f %.5f %.5f\n".__mod__, map(tuple, values.tolist())))


def _pq_light(signal: np.ndarray, source: Encoding) -> tuple[np.ndarray, float]:
    m1, m2, c1, c2, c3 = 2610 / 16384, 2523 / 32, 3424 / 4096, 2413 / 128, 2392 / 128
    power = signal ** (1 / m2)
    nits = 10_000 * (np.maximum(power - c1, 0) / (c2 - c3 * power)) ** (1 / m1)
    return nits / _REFERENCE_WHITE, source.peak / _REFERENCE_WHITE


def _hlg_light(signal: np.ndarray, source: Encoding) -> tuple[np.ndarray, float]:
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    scene = np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12)
    luminance = scene @ _luminance_weights(source.primaries)
    peak = _HLG_PEAK / _REFERENCE_WHITE
    return peak * scene * luminance[..., None] ** 0.2, peak


def _sdr_light(signal: np.ndarray, source: Encoding) -> tuple[np.ndarray, float]:
    return _inverse_oetf(signal), 1.0


def _linear_light(signal: np.ndarray, source: Encoding) -> tuple[np.ndarray, float]:
    return signal, 1.0


_TO_LIGHT: dict[int, Callable[[np.ndarray, Encoding], tuple[np.ndarray, float]]] = {
    PQ: _pq_light,
    HLG: _hlg_light,
    _LINEAR: _linear_light,
}
"""Transfer -> light, in which white is 1, and the largest value that a channel is expected to have."""


def _compress(code: np.ndarray, brightest: np.ndarray) -> np.ndarray:
    """Code values up to `brightest` -> up to 1, the same below the knee."""
    room = 1 - _KNEE
    over = np.maximum(code - _KNEE, 0) / room
    most = (brightest - _KNEE) / room
    return np.where(code <= _KNEE, code, np.minimum(_KNEE + room * over * (1 + over / most**2) / (1 + over), 1))


def _oetf(light: np.ndarray) -> np.ndarray:
    return np.where(light < 0.018, 4.5 * light, 1.099 * np.maximum(light, 1e-12) ** 0.45 - 0.099)


def _inverse_oetf(code: np.ndarray) -> np.ndarray:
    return np.where(code < 0.081, code / 4.5, ((np.maximum(code, 0) + 0.099) / 1.099) ** (1 / 0.45))


def _to_xyz(primaries: int) -> np.ndarray:
    """[3, 3] XYZ from linear RGB; the white, D65, has Y = 1 (SMPTE RP 177)."""
    columns = np.array([(x / y, 1, (1 - x - y) / y) for x, y in _CHROMATICITIES[primaries]]).T
    x, y = _D65
    return columns * np.linalg.solve(columns, (x / y, 1, (1 - x - y) / y))


def _luminance_weights(primaries: int) -> np.ndarray:
    return _to_xyz(primaries)[1]


def _to_bt709_primaries(primaries: int) -> np.ndarray:
    return np.linalg.solve(_to_xyz(1), _to_xyz(primaries))
