"""Open a portrait in the interactive viewer: playback with sound, camera control, debug views, live training, export.

    ernerf-ti view runs/speaker                                 # with its capture's audio, and true frames to compare
    ernerf-ti view runs/speaker --audio speech.wav              # any speech
    ernerf-ti view runs/speaker --train captures/speaker        # start or continue the run, and watch
    ernerf-ti view runs/speaker --offscreen out.mp4 --script actions.json

Press q in the window for the list of keys. The manual is docs/viewer.md.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ernerf_ti.cli.options import Command, Device, Flat, OptionalOutput, Positional
from ernerf_ti.cli.paths import capture_folder, existing_file, output_file, output_folder, run_folder
from ernerf_ti.cli.running import UsageError
from ernerf_ti.cli.signing_options import SigningOptions
from ernerf_ti.media.files import require_not_replaced
from ernerf_ti.portrait.config import check_mouth_gain
from ernerf_ti.process.device import CudaGraphs, resolve_device
from ernerf_ti.process.precision import Precision, resolve_precision
from ernerf_ti.train.config import default_preset
from ernerf_ti.viewer.options import ViewerOptions


@dataclass(frozen=True)
class ViewOptions:
    """Options of `ernerf-ti view`."""

    run: Positional[Path]
    """Run folder of `ernerf-ti train`, or a checkpoint file; with --train also a new folder."""
    audio: Path | None = None
    """Speech to play, an audio or video file; by default the audio of the capture."""
    capture: Path | None = None
    """Capture that the run was trained on; by default the folder recorded in the run."""
    background: Path | None = None
    """Image to put behind the person."""
    mouth_gain: float | None = None
    """How far the mouth moves with the sound, 0 to 3: with 1 as in training, with more further. By default the
    portrait's own, which the preset small sets to 1.15. A portrait in training has 1."""
    train: Path | None = None
    """Capture to train the run on while it is shown; starts a run, or continues it."""
    preset: Literal["auto", "paper", "released", "small"] = "auto"
    """Preset of a run that --train starts; auto is paper on CUDA and small on a CPU."""
    stages: tuple[Literal["head", "finetune", "torso"], ...] = ("head", "finetune", "torso")
    """Stages that --train goes through."""
    output: OptionalOutput = None
    """Folder for screenshots and exports; by default RUN/viewer."""
    inbox: Path | None = None
    """Folder to watch: new audio files are played, new images become the background. By default RUN/inbox."""
    speech_model: Path | None = None
    """Folder of the speech model, for portraits trained on hubert or esperanto features."""
    offscreen: Path | None = None
    """Write a video of the viewer to this file instead of opening a window; needs --script."""
    script: Path | None = None
    """JSON file with the actions of the video and their times; docs/viewer.md describes it."""
    device: Device = "auto"
    """Device to render on; auto is CUDA if torch can use it, else the CPU."""
    precision: Precision = "auto"
    """Format of the networks' values; auto is float32 on the CPU, and on CUDA bf16, or fp16 on a GPU without bf16."""
    cuda_graphs: CudaGraphs = "auto"
    """Repeat recorded work on CUDA, which takes less time to launch: auto, off, or parts (without our kernels)."""
    signing: Flat[SigningOptions] = field(default_factory=SigningOptions)


def _check(options: ViewOptions) -> None:
    if (options.offscreen is None) != (options.script is None):
        raise UsageError("--offscreen and --script: expected both or neither, got one; pass the other too")
    check_mouth_gain(options.mouth_gain)
    if options.mouth_gain not in (None, 1) and options.train is not None:
        raise UsageError(
            f"--mouth-gain: expected none with --train, whose portrait has 1, got {options.mouth_gain:g}; leave it out"
        )


def _view(options: ViewOptions) -> None:
    if options.offscreen is None:
        from ernerf_ti.viewer.display_check import check_display

        check_display()
    run = options.run if options.train is not None else run_folder(options.run)
    train, capture = (None if path is None else capture_folder(path) for path in (options.train, options.capture))
    for path, what in ((options.audio, "a video or sound file"), (options.background, "an image")):
        if path is not None:
            existing_file(path, what)
    output = None if options.output is None else output_folder(options.output)
    offscreen = None if options.offscreen is None else output_file(options.offscreen)
    for given, what in ((options.audio, "audio file"), (options.background, "image"), (options.script, "script")):
        if given is not None and offscreen is not None:
            require_not_replaced(given, what, offscreen)
    device = resolve_device(options.device)
    resolve_precision(options.precision, device)  # a wrong one is reported before anything is opened

    from ernerf_ti.viewer.app import OFFSCREEN, open_viewer, show
    from ernerf_ti.viewer.offscreen import read_script, run_script

    viewer_options = ViewerOptions(
        *(run, capture, options.audio, options.background, output, options.inbox, options.speech_model),
        *(train, default_preset(device.type) if options.preset == "auto" else options.preset),
        *(options.stages, str(device)),
        precision=options.precision,
        cuda_graphs=options.cuda_graphs,
        mouth_gain=options.mouth_gain,
        make_signer=options.signing.signer,
    )
    if offscreen is None or options.script is None:
        show(viewer_options)
    else:
        script = read_script(options.script)
        run_script(open_viewer(viewer_options, OFFSCREEN, scripted=True), script, offscreen)
        print(offscreen)


main = Command(
    "view",
    ViewOptions,
    _view,
    __doc__,
    important=(
        *("run", "audio", "capture", "background", "mouth_gain", "train", "output", "offscreen", "script"),
        *("device", "precision"),
    ),
    renamed={"out": "output"},
    check=_check,
    interrupted="interrupted; training progress was saved, an unfinished video was discarded",
)
