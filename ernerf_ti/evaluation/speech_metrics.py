"""Metrics of the mouth in the frames with speech alone: in a pause, the sound does not say what the mouth does."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ernerf_ti.evaluation.mesh_metrics import correlate
from ernerf_ti.evaluation.metric import Metric, MetricValue, NotComputed, Setting, mean_over_frames
from ernerf_ti.evaluation.mouth_series import PAUSE, frame_loudness, in_pauses
from ernerf_ti.synthesis.driving import SAMPLES_PER_FRAME

_OF_THE_MOUTH = ("PSNR lips", "SSIM lips", "ST-LPIPS lips", "LMD", "mesh AUE lower", "mouth-opening correlation")


class InSpeech(Metric):
    """Another metric, over the frames that are not in a pause.

    Args:
        whole: a metric with a value per frame, or one that correlates two curves.
    """

    def __init__(self, whole: Metric):
        self.whole, self.name, self.unit, self.better = whole, f"{whole.name} in speech", whole.unit, whole.better
        self.description = f"{whole.name}, without the frames in pauses; {PAUSE}."

    def applies_to(self, setting: Setting) -> bool:
        return setting.samples is not None and self.whole.applies_to(setting)

    def missing(self) -> NotComputed | None:
        return self.whole.missing()

    def of_speech(
        self, whole: MetricValue | NotComputed, spoken: np.ndarray, times: np.ndarray, seed: int
    ) -> MetricValue | NotComputed:
        """Value in a setting, without values of single frames: they are those of the whole metric.

        Args:
            whole: result of the whole metric in the setting.
            spoken: [n] bool of :func:`spoken_frames`.
            times: [n] of the setting.
            seed: of the bootstrap.
        """
        if isinstance(whole, NotComputed):
            return whole
        if whole.per_frame is not None:
            result = mean_over_frames(np.where(spoken, whole.per_frame, np.nan), times, seed)
        else:
            assert whole.curves is not None  # by the class's contract
            known = spoken & np.isfinite(list(whole.curves.values())).all(0)
            result = correlate({k: curve[known] for k, curve in whole.curves.items()}, known, times, seed)
        return result if isinstance(result, NotComputed) else replace(result, per_frame=None, curves=None)


def speech_metrics(metrics: Sequence[Metric]) -> list[InSpeech]:
    """Those of the metrics that are about the mouth, in speech."""
    return [InSpeech(metric) for metric in metrics if metric.name in _OF_THE_MOUTH]


def spoken_frames(samples: np.ndarray, times: np.ndarray) -> np.ndarray:
    """[n] bool, whether frames are not in a pause; those beyond the sound are not.

    Args:
        samples: [S] mono 16 kHz sound in [-1, 1].
        times: [n] int, index at 25 fps into the sound of each frame.
    """
    n = len(samples) // SAMPLES_PER_FRAME
    pauses = in_pauses(frame_loudness(samples, np.arange(n)))
    heard = (times >= 0) & (times < n)
    spoken = np.ones(len(times), bool)
    spoken[heard] = ~pauses[times[heard]]
    return spoken
