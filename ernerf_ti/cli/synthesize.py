"""Render a trained portrait speaking, as a video with sound.

    ernerf-ti synthesize runs/speaker --audio speech.wav -o speaking.mp4
    ernerf-ti synthesize runs/speaker --audio speech.wav -o speaking.webm --background none
    ernerf-ti synthesize runs/speaker --audio speech.wav -o out.mp4 --pose still --blink natural --depth depth.mp4
    ernerf-ti synthesize runs/speaker --audio speech.wav -o glad.mp4 --dial smile=1.5 --dial brows=1
    ernerf-ti synthesize runs/speaker --audio speech.wav -o dubbed.mp4 --onto interview.mp4

The second example writes a video with an alpha channel, the last one renders the head into a recording of the person.
Several GPUs render one video together: torchrun --nproc-per-node 4 -m ernerf_ti synthesize ...
"""

import sys
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import tyro

from ernerf_ti.cli.options import Command, Device, Flat, Output, Positional
from ernerf_ti.cli.paths import capture_folder, existing_file, make_parent, output_file, output_folder, run_folder
from ernerf_ti.cli.signing_options import SigningOptions
from ernerf_ti.media.provenance.note import COMPOSITE_TYPE, SOURCE_TYPE
from ernerf_ti.portrait.config import check_mouth_gain
from ernerf_ti.process.device import CudaGraphs, resolve_device, use_own_device
from ernerf_ti.process.precision import Precision, resolve_precision
from ernerf_ti.synthesis.options import SynthesisOptions, constant_closure
from ernerf_ti.synthesis.outputs import check_formats


@dataclass(frozen=True, kw_only=True)
class SynthesizeOptions(SynthesisOptions):
    """Options of `ernerf-ti synthesize`."""

    run: Positional[Path]
    """Run folder of `ernerf-ti train`, or a checkpoint file."""
    output: Output
    """File to write: .mp4 or .mkv, or .webm or .mov with an alpha channel; a path without a suffix is a folder of PNG
    images with an alpha channel."""
    dial: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """An expression dial of a portrait that was trained with it, as NAME=VALUE: brows, smile, gaze-x or gaze-y, from -3
    to 3 standard deviations of the capture. It can be given several times; other dials stay neutral, at 0."""
    device: Device = "auto"
    """Device to render on; auto is CUDA if torch can use it, else the CPU."""
    precision: Precision = "auto"
    """Format of the networks' values; auto is float32 on the CPU, and on CUDA bf16, or fp16 on a GPU without bf16."""
    cuda_graphs: CudaGraphs = "auto"
    """Repeat recorded work on CUDA, which takes less time to launch: auto, off, or parts (without our kernels)."""
    signing: Flat[SigningOptions] = field(default_factory=SigningOptions)


def _check(options: SynthesizeOptions) -> None:
    check_formats(options)
    constant_closure(options.blink)
    check_mouth_gain(options.mouth_gain)
    _ = options.dials


def _synthesize(options: SynthesizeOptions) -> None:
    run = run_folder(options.run)
    existing_file(options.audio, "a video or sound file")
    if options.onto is not None and not options.onto.is_dir():
        existing_file(options.onto, "a video of the person")
    if options.pose_file is not None:
        existing_file(options.pose_file, "capture, still or a transforms file")
    if options.background_file is not None:
        existing_file(options.background_file, "capture, none, a color as #rrggbb or an image")
    if options.onto_capture is not None:
        capture_folder(options.onto_capture)
    files = [path for path in (options.output, options.depth, options.attention) if path is not None and path.suffix]
    for path in files:
        output_file(path)
    if not options.output.suffix:
        output_folder(options.output)
    use_own_device()
    device = resolve_device(options.device)
    precision = resolve_precision(options.precision, device)

    from tqdm import tqdm

    from ernerf_ti.media.sound_notes import print_sound_notes
    from ernerf_ti.process.graphs import cuda_graphs
    from ernerf_ti.process.ranks import Ranks
    from ernerf_ti.run.trained_portrait import load_portrait
    from ernerf_ti.synthesis.statement import statement
    from ernerf_ti.synthesis.video import synthesize

    graphs = cuda_graphs(options.cuda_graphs, device, partial(tqdm.write, file=sys.stderr), precision)
    trained = load_portrait(run, device, precision, graphs, options.mouth_gain)
    with Ranks.joined(device) as ranks:
        if not ranks.is_first:
            synthesize(trained, options, ranks=ranks)
            return
        if trained.consent is None:
            print(f"{run}: no consent record; docs/responsible_use.md says how to add one", file=sys.stderr)
        print_sound_notes(options.audio)
        signer = options.signing.signer(
            partial(statement, trained, options.audio, options.onto),
            SOURCE_TYPE if options.onto is None else COMPOSITE_TYPE,
        )
        for path in files:
            make_parent(path)
        for path in synthesize(trained, options, signer.sign if signer else None, ranks):
            print(path)
        for path in signer.finish() if signer else []:
            print(path)


main = Command(
    "synthesize",
    SynthesizeOptions,
    _synthesize,
    __doc__,
    important=(
        *("run", "audio", "output", "pose", "blink", "dial", "mouth_gain", "background", "head_only", "onto"),
        *("onto_capture", "onto_part", "speech_model"),
        *("fps", "codec", "crf", "provenance", "device", "precision"),
    ),
    check=_check,
    interrupted="interrupted; no video was written",
)
