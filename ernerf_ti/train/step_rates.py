"""How fast a stage is trained: its wall seconds, rays and samples."""

from time import perf_counter

from torch import Tensor

from ernerf_ti.train.stage import StepStatistics


class StageClock:
    """Adds up the wall seconds of a stage."""

    def __init__(self, seconds: dict[str, float], stage: str):
        self._seconds, self._stage, self._last = seconds, stage, perf_counter()

    def tick(self) -> None:
        """Count the time since the last call."""
        now = perf_counter()
        self._seconds[self._stage] = self._seconds.get(self._stage, 0.0) + now - self._last
        self._last = now

    def skip(self) -> None:
        """Leave out the time since the last call."""
        self._last = perf_counter()


class StepRates:
    """Rays and samples since the last log line."""

    def __init__(self) -> None:
        self._begin, self._rays = perf_counter(), 0
        self._samples: Tensor | int = 0

    def add(self, statistics: StepStatistics) -> None:
        self._rays += statistics.n_rays
        # Not in place: a step that a CUDA graph repeats counts them in float32.
        self._samples = self._samples + statistics.n_samples

    def values(self) -> dict[str, float]:
        return {
            "rays_per_second": self._rays / (perf_counter() - self._begin),
            "samples_per_ray": float(self._samples) / max(1, self._rays),
        }


def summary(entry: dict) -> dict[str, str]:
    """Of a log entry, for the progress bar."""
    statistics = entry["statistics"]
    return {
        "loss": f"{entry['loss']:.4f}",
        "psnr": f"{statistics['psnr']:.1f}",
        "rays/s": f"{statistics['rays_per_second']:.0f}",
        "samples/ray": f"{statistics['samples_per_ray']:.1f}",
    }
