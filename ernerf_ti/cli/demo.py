"""Train a portrait of a synthetic person and let it speak in a new voice: no footage, no downloads.

    ernerf-ti demo
    ernerf-ti demo OUT --size 384 --device cuda

Takes about 10 minutes on two CPU cores. Writes portrait.mp4 (a sentence in a voice that training did not hear),
comparison.mp4 (truth beside portrait), contact_sheet.png and metrics.json. Ctrl-C stops; the same command continues.
"""

from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

from ernerf_ti.cli.options import Command, Device, Positional, check_range
from ernerf_ti.cli.paths import new_folder, output_folder
from ernerf_ti.process.device import resolve_device, use_deterministic_algorithms
from ernerf_ti.process.precision import Precision, resolve_precision


@dataclass(frozen=True)
class DemoOptions:
    """Options of `ernerf-ti demo`."""

    output: Positional[Path] = Path("demo")
    """Folder to write to, new or empty, or that of an earlier demo."""
    size: int = 256
    """Width and height in pixels, an even number."""
    seconds: float = 16.0
    """Length of the training clip in seconds."""
    speed_up: float = 1.0
    """Divide the number of training steps by this, for a quick look."""
    seed: int = 0
    """Seed of the person, the speech and the training."""
    device: Device = "auto"
    """Device to train and to render on; auto is CUDA if torch can use it, else the CPU."""
    precision: Precision = "auto"
    """Format of the networks' values; auto is float32 on the CPU, and on CUDA bf16, or fp16 on a GPU without bf16."""
    deterministic: bool = False
    """Train to the same bits each time on CUDA, more slowly; with the same GPU and versions."""


def _check(options: DemoOptions) -> None:
    check_range("size", options.size, 16, 1 << 13)
    check_range("seconds", options.seconds, 2, 86_400)
    check_range("speed-up", options.speed_up, 1, 1_000_000)


def _demo(options: DemoOptions) -> None:
    begin = perf_counter()
    folder = output_folder(options.output)
    if options.deterministic:
        use_deterministic_algorithms()
    device = resolve_device(options.device)
    resolve_precision(options.precision, device)

    from ernerf_ti.experiments.demo import Demo, run_demo

    demo = Demo(folder, str(device), options.size, options.seconds, options.speed_up, options.seed, options.precision)
    if not demo.progress.is_file():
        new_folder(folder)
    metrics = run_demo(demo)
    for name in ("portrait.mp4", "comparison.mp4", "contact_sheet.png", "metrics.json"):
        print(folder / name)
    lids = metrics["lid_aperture"]
    print(
        f"held-out frames: head {metrics['head_psnr']:.1f} dB, with torso {metrics['portrait_psnr']:.1f} dB; "
        f"new voice: mouth-opening correlation {metrics['mouth_opening_correlation']:.2f}; "
        f"closed eyes: lid aperture {lids['closed']:.3f} (truth {lids['closed_in_the_truth']:.3f}); "
        f"{perf_counter() - begin:.0f} s"
    )
    print(f"""
What to try next:
  ernerf-ti synthesize {demo.run} --audio YOUR_SPEECH.wav -o {folder / "your_speech.mp4"}
  ernerf-ti view {demo.run}
  ernerf-ti evaluate {demo.run}""")


main = Command(
    "demo",
    DemoOptions,
    _demo,
    __doc__,
    renamed={"out": ""},
    check=_check,
    interrupted="interrupted; the same command continues",
)
