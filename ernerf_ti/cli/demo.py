"""Train a portrait of a synthetic person and let it speak with another voice: no footage, no downloads.

    python tools/demo.py              # 8 to 9 minutes on two cores; everything goes to demo/
    python tools/demo.py --out DIR --size 320 --device cuda

Writes portrait.mp4 (a new utterance by another voice, with sound), comparison.mp4 (truth beside portrait), a
contact sheet and metrics.json.
"""

import os

os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # read when torch starts: large buffers cost fewer page faults

import argparse
import sys
from pathlib import Path
from time import perf_counter

import torch

from ernerf_ti.experiments.demo import Demo, run_demo


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("demo"), help="folder for everything")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--size", type=int, help="width and height in pixels; 160, or 320 on CUDA, if left out")
    parser.add_argument("--seconds", type=float, default=16.0, help="of video to learn from")
    parser.add_argument("--speed-up", type=float, default=1.0, help="divides the training steps, for a quick look")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    size = options.size or (320 if options.device.startswith("cuda") else 160)
    begin = perf_counter()
    try:
        demo = Demo(options.out, options.device, size, options.seconds, options.speed_up, options.seed)
        metrics = run_demo(demo)
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    for name in ("portrait.mp4", "comparison.mp4", "contact_sheet.png", "metrics.json"):
        print(options.out / name)
    print(
        f"held-out head {metrics['head_psnr']:.1f} dB, head and torso {metrics['portrait_psnr']:.1f} dB; "
        f"mouth opening r = {metrics['mouth_opening_correlation']:.2f} with a new voice; "
        f"{perf_counter() - begin:.0f} s in all"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
