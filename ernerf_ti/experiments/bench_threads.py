"""Training steps per second with one thread, with all, and with the number chosen at run time.

    python -m ernerf_ti.experiments.bench_threads CAPTURE [--seconds 45] [--busy]

`--busy` keeps every core busy with another process meanwhile. Each setting runs in a process of its own, twice in turn
(A B C A B C), with the preset "small". OMP_NUM_THREADS must not be set.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter

MODES = ("one", "all", "adaptive")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("capture", type=Path, help="capture folder")
    parser.add_argument("--seconds", type=float, default=45.0, help="length of each run (default: %(default)s)")
    parser.add_argument("--busy", action="store_true", help="keep every core busy with another process")
    parser.add_argument("--mode", choices=MODES, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.mode:
        print(count_steps(options.capture, options.seconds, options.mode))
        return 0
    if "OMP_NUM_THREADS" in os.environ:
        print("bench_threads: expected OMP_NUM_THREADS unset, got a value; unset it", file=sys.stderr)
        return 1
    command = [sys.executable, "-m", __spec__.name if __spec__ else __name__, str(options.capture)]
    others = [
        subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(os.cpu_count() * options.busy)
    ]
    try:
        for mode in MODES * 2:
            run = [*command, "--seconds", str(options.seconds), "--mode", mode]
            steps = subprocess.run(run, stdout=subprocess.PIPE, text=True, check=True).stdout.split()[-1]
            print(f"{mode}: {steps} steps in {options.seconds:g} s", flush=True)
    finally:
        for other in others:
            other.kill()
    return 0


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
    sys.exit(main())
