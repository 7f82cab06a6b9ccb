"""Play a portrait in the viewer's window and measure frame rate, audio offset and memory.

An image counts when it becomes visible. The offset is the position of the audio at that moment minus the middle of the
40 ms that the frame covers, so that it is positive if the audio is ahead. Memory is that of the process, after a fifth
of the time and at the end.
"""

import os
import platform
from pathlib import Path
from time import perf_counter, process_time

import numpy as np

from ernerf_ti.audio.frame_features import SAMPLE_RATE
from ernerf_ti.data.capture_files import FPS
from ernerf_ti.viewer.app import WINDOW, open_viewer
from ernerf_ti.viewer.display_check import check_display
from ernerf_ti.viewer.options import ViewerOptions
from ernerf_ti.viewer.sound import open_output
from ernerf_ti.viewer.viewer import Viewer
from ernerf_ti.viewer.window import ViewerWindow


def run(run: Path, capture: Path | None, seconds: float, target_rate: float, device: str) -> dict[str, float | str]:
    """Open a window, play, and measure.

    Args:
        run: a run folder, or a checkpoint file.
        capture: capture of the run, for its audio.
        seconds: length of the measurement, which begins after a second of playing.
        target_rate: frame rate that the rendering scale adapts to.
        device: to render on.

    Returns:
        Figures by name.

    Raises:
        OSError, ValueError, ImportError: no window can be opened, or as :func:`ernerf_ti.viewer.app.open_viewer`.
    """
    check_display()
    viewer = open_viewer(ViewerOptions(run, capture, device=device), WINDOW)(open_output(SAMPLE_RATE))
    viewer.act({"set": {"target_rate": target_rate, "playing": True}})
    return _measure(viewer, seconds)


def _measure(viewer: Viewer, seconds: float) -> dict[str, float | str]:
    window = ViewerWindow(viewer)
    scales, first_memory = [], None
    try:
        _play(window, 1.0)
        viewer.offsets.clear()
        shown, begin, cpu = viewer.n_shown, perf_counter(), process_time()
        while (passed := perf_counter() - begin) < seconds and window.step():
            assert viewer.view is not None  # there is one after the first step
            scales.append(viewer.view.request.size[0] / viewer.trained.size[0])
            if first_memory is None and passed > seconds / 5:
                first_memory = _memory()
        passed, cpu = perf_counter() - begin, process_time() - cpu
        # A frame stands for the middle of its 40 ms.
        offsets = 1000 * (np.array(viewer.offsets) - 0.5 / FPS)
        n = viewer.n_shown - shown
    finally:
        window.close()
        viewer.close()
    quarter = max(1, len(offsets) // 4)
    return {
        "image": f"{viewer.trained.size[0]} x {viewer.trained.size[1]}",
        "sound": viewer.output.note or "device",
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}",
        "seconds played": passed,
        "images per second": n / passed,
        "CPU seconds per image": cpu / max(1, n),
        "cores used": cpu / passed,
        "scale, median": float(np.median(scales)),
        "offset, median, ms": float(np.median(offsets)),
        "offset, median of the last quarter, ms": float(np.median(offsets[-quarter:])),
        "offset, 95th percentile of the size, ms": float(np.quantile(np.abs(offsets), 0.95)),
        "offset, largest, ms": float(np.abs(offsets).max()),
        "memory after a fifth of the time, MB": first_memory or _memory(),
        "memory at the end, MB": _memory(),
    }


def _play(window: ViewerWindow, seconds: float) -> None:
    until = perf_counter() + seconds
    while perf_counter() < until:
        window.step()


def _memory() -> float:
    """Resident memory of this process, MB."""
    status = Path("/proc/self/status")
    if not status.is_file():  # not Linux
        return float("nan")
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1]) / 1024
