"""Log mel spectra of speech, 80 bands every 20 ms, normalized over the recording.

For the voice that a portrait was trained on they work about as well as phone posteriors, for other voices poorly. Use
them where pocketsphinx is not available.
"""

import functools

import numpy as np

from ernerf_ti.audio.frame_features import HOP, SAMPLE_RATE, FrameFeatures

_N_FFT = 512
_LOG_FLOOR = 1e-6  # energy of samples in [-1, 1]; about the quantization noise of 16 bits
_VARIANCE_FLOOR = 1e-2


class MelSpectrum(FrameFeatures):
    """Log energies in mel bands, with zero mean and unit variance."""

    name = "mel"
    dimension = 80
    window = 400  # 25 ms
    context = 0

    def frames(self, samples: np.ndarray, before: float) -> np.ndarray:
        if len(samples) < self.window:
            return np.zeros((0, self.dimension))
        windows = np.lib.stride_tricks.sliding_window_view(samples, self.window)[::HOP]
        power = np.abs(np.fft.rfft(windows * np.hanning(self.window), _N_FFT)) ** 2
        return np.log(power @ _mel_filters(self.dimension).T + _LOG_FLOOR)

    def steps(self, frames: np.ndarray, mean: np.ndarray, variance: np.ndarray) -> np.ndarray:
        normalized = (frames - mean) / np.sqrt(np.maximum(variance, _VARIANCE_FLOOR))
        return normalized.reshape(-1, 2, self.dimension).mean(1).astype(np.float32)


@functools.cache
def _mel_filters(n_bands: int) -> np.ndarray:
    import librosa.filters

    return librosa.filters.mel(sr=SAMPLE_RATE, n_fft=_N_FFT, n_mels=n_bands).astype(np.float64)
