"""Training steps per second on the CPU with one thread, with all, and with the number chosen at run time."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter

MODES = ("one", "all", "adaptive")


def run(capture: Path, seconds: float, busy: bool) -> dict[str, list[int]]:
    """Steps of the stage head, with the preset "small", in `seconds`: two turns of each mode, A B C A B C.

    Each turn is a process of its own: threads that wait actively slow down others of the same process.

    Args:
        capture: a capture folder.
        seconds: length of a turn.
        busy: keep every core busy with another process meanwhile.

    Raises:
        ValueError: OMP_NUM_THREADS is set, which leaves nothing to choose.
        RuntimeError: a turn failed; it has said why.
    """
    if "OMP_NUM_THREADS" in os.environ:
        raise ValueError(f"OMP_NUM_THREADS: expected it unset, got {os.environ['OMP_NUM_THREADS']}; unset it")
    steps: dict[str, list[int]] = {mode: [] for mode in MODES}
    n_others = (os.cpu_count() or 1) * busy
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(n_others)]
    try:
        for mode in MODES * 2:
            command = [sys.executable, "-m", __name__, str(capture), str(seconds), mode]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
            if done.returncode:
                raise RuntimeError(
                    f"bench threads: expected a turn with the mode {mode} to end, got an error; see above"
                )
            steps[mode].append(int(done.stdout.split()[-1]))
    finally:
        for other in others:
            other.kill()
            other.wait()
    return steps


def count_steps(capture: Path, seconds: float, mode: str) -> int:
    """Steps of the head stage, after one that compiles the kernels."""
    import torch

    from ernerf_ti.data.capture import open_capture
    from ernerf_ti.process.threads import ThreadTuner
    from ernerf_ti.train.config import PRESETS
    from ernerf_ti.train.trainer import Trainer

    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(open_capture(capture), PRESETS["small"], Path(folder))
        trainer.train_step()
        if mode == "one":
            torch.set_num_threads(1)  # Taichi's stay as many as there are cores
        tuner = ThreadTuner("cpu" if mode == "adaptive" else "none")
        n, end = 0, perf_counter() + seconds
        while perf_counter() < end:
            with tuner:
                trainer.train_step()
            n += 1
    return n


if __name__ == "__main__":
    print(count_steps(Path(sys.argv[1]), float(sys.argv[2]), sys.argv[3]))
