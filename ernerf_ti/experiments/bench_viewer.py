"""Play a portrait in the viewer's window and measure rate, sound offset and memory.

    python tools/bench_viewer.py runs/speaker --capture captures/speaker --seconds 60
    xvfb-run -a -s "-screen 0 1280x800x24" python tools/bench_viewer.py demo/run --capture demo/capture   # on a server

Pictures are counted when a new one is visible. The offset is the place of the sound at that moment less the middle of
the 40 ms that the picture stands for: positive when the sound is ahead. Memory is that of the process, after a fifth of
the time and at the end.
"""

import os

# Both are read when torch starts. Large buffers cost fewer page faults; a thread that waits leaves its core to the
# window and the sound: on two cores with other work beside, that made 5 pictures a second of 0.4.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import argparse
import platform
import sys
from pathlib import Path
from time import perf_counter, process_time

import numpy as np
import torch

from ernerf_ti.audio.frame_features import SAMPLE_RATE
from ernerf_ti.data.capture_files import FPS
from ernerf_ti.media.files import write_json
from ernerf_ti.viewer.app import WINDOW, Wanted, open_viewer
from ernerf_ti.viewer.sound import open_output
from ernerf_ti.viewer.viewer import Viewer
from ernerf_ti.viewer.window import ViewerWindow, check_window


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run", type=Path, help="folder of train.py, or a checkpoint")
    parser.add_argument("--capture", type=Path, help="capture of the run, for its sound")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--target-rate", type=float, default=12.0, help="pictures per second that the scale adapts to")
    parser.add_argument("-o", "--output", type=Path, help="a .json to write too")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args(arguments)
    try:
        check_window()
        wanted = Wanted(options.run, options.capture, device=options.device)
        viewer = open_viewer(wanted, WINDOW)(open_output(SAMPLE_RATE))
        viewer.act({"set": {"target_rate": options.target_rate, "playing": True}})
        figures = measure(viewer, options.seconds)
    except (OSError, ValueError, ImportError) as error:
        print(error, file=sys.stderr)
        return 1
    for name, value in figures.items():
        print(f"{name:44} {value if isinstance(value, str) else format(value, '10.2f')}")
    if options.output is not None:
        write_json(options.output, figures)
    return 0


def measure(viewer: Viewer, seconds: float) -> dict[str, float | str]:
    """Figures of playing for so long, after a second to settle."""
    window = ViewerWindow(viewer)
    scales, first_memory = [], None
    try:
        _play(window, 1.0)
        viewer.offsets.clear()
        shown, begin, cpu = viewer.n_shown, perf_counter(), process_time()
        while (passed := perf_counter() - begin) < seconds and window.step():
            scales.append(viewer.view.request.size[0] / viewer.trained.size[0])
            if first_memory is None and passed > seconds / 5:
                first_memory = _memory()
        passed, cpu = perf_counter() - begin, process_time() - cpu
        # The frame's own time is 40 ms, the middle of which it stands for.
        offsets = 1000 * (np.array(viewer.offsets) - 0.5 / FPS)
        n = viewer.n_shown - shown
    finally:
        window.close()
        viewer.close()
    quarter = max(1, len(offsets) // 4)
    return {
        "picture": f"{viewer.trained.size[0]} x {viewer.trained.size[1]}",
        "sound": viewer.output.note or "device",
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}",
        "seconds played": passed,
        "pictures per second": n / passed,
        "CPU seconds per picture": cpu / max(1, n),
        "cores that were had": cpu / passed,
        "scale, median": float(np.median(scales)),
        "offset, median, ms": float(np.median(offsets)),
        "offset, last quarter of the time, median, ms": float(np.median(offsets[-quarter:])),
        "offset, 95 % within, ms": float(np.quantile(np.abs(offsets), 0.95)),
        "offset, largest, ms": float(np.abs(offsets).max()),
        "memory after a fifth, MB": first_memory or _memory(),
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


if __name__ == "__main__":
    sys.exit(main())
