"""Build a viewer from options, and run it in a window or through a script."""

import math
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from time import perf_counter

import numpy as np

from ernerf_ti.audio.frame_features import SAMPLE_RATE
from ernerf_ti.data.capture import open_capture
from ernerf_ti.process import graphs
from ernerf_ti.process.device import CudaGraphs
from ernerf_ti.process.precision import Precision, resolve_precision
from ernerf_ti.run.folder import RunFolder
from ernerf_ti.run.trained_portrait import TrainedPortrait, load_portrait
from ernerf_ti.synthesis.statement import statement
from ernerf_ti.train.config import PRESETS, STAGES
from ernerf_ti.train.trainer import Trainer, trained_alone
from ernerf_ti.viewer.clip import Clip, capture_clip, silent_clip, sound_clip
from ernerf_ti.viewer.display_check import check_display
from ernerf_ti.viewer.options import ViewerOptions
from ernerf_ti.viewer.panel import PANEL_WIDTH
from ernerf_ti.viewer.screen import Layout
from ernerf_ti.viewer.sound import SoundOutput, open_output
from ernerf_ti.viewer.training_session import TrainingSession
from ernerf_ti.viewer.viewer import RuntimeOptions, Viewer
from ernerf_ti.viewer.window import run_window

WINDOW = Layout(1280, 720, PANEL_WIDTH)
OFFSCREEN = Layout(960, 640)

MakeViewer = Callable[..., Viewer]
"""From a sound output, and a clock if it is not the computer's, to the viewer."""


def open_viewer(options: ViewerOptions, layout: Layout, scripted: bool = False) -> MakeViewer:
    """Load a portrait and what goes with it.

    Args:
        options: portrait, capture, audio and so on.
        layout: of the screen.
        scripted: whether a script runs the viewer, which then waits for whatever takes time.

    Raises:
        FileNotFoundError, ValueError, ImportError: an input that is missing or does not fit.
    """
    training = None
    if options.train is not None:
        training = open_training(
            *(options.run, options.train, options.preset, options.stages, options.device),
            *(options.precision, options.cuda_graphs),
        )
    return _make_viewer(options, layout, scripted, training)


def open_training(
    run: Path,
    capture: Path,
    preset: str,
    stages: tuple[str, ...],
    device: str,
    precision: Precision = "auto",
    cuda_graphs: CudaGraphs = "auto",
) -> TrainingSession:
    """Continue the training of a run as it was started, or start one in its folder.

    Raises OSError if another process trains it, besides what reading the capture and the run raises.
    """
    with ExitStack() as stack:
        stack.enter_context(trained_alone(run))
        opened = open_capture(capture)
        if RunFolder(run).checkpoint.is_file():
            trainer = Trainer.resume(opened, run, device, cuda_graphs=cuda_graphs)
        else:
            config = replace(PRESETS[preset], precision=precision)
            trainer = Trainer(opened, config, run, device, cuda_graphs=cuda_graphs)
        return TrainingSession(trainer, stages, stack.pop_all().close)


def show(options: ViewerOptions) -> None:
    """Open a window, start playing, and return when the window is closed.

    Raises:
        NoWindowError: no display, before anything is loaded; or no Vulkan.
        FileNotFoundError, ValueError, ImportError: as :func:`open_viewer`.
    """
    check_display()
    viewer = open_viewer(options, WINDOW)(open_output(SAMPLE_RATE))
    start_playing(viewer)
    run_window(viewer)


def start_playing(viewer: Viewer) -> None:
    """Play if there is something to hear; a portrait in training waits, since playing takes time from training."""
    if viewer.training is None and np.any(viewer.clip.samples):
        viewer.act({"set": {"playing": True}})


def watch_training(trainer: Trainer, stages: tuple[str, ...] = STAGES) -> bool:
    """Open a window on a trainer and train until the window is closed; returns whether training finished.

    Raises NoWindowError.
    """
    check_display()
    training = TrainingSession(trainer, stages)
    options = ViewerOptions(trainer.folder, device=str(trainer.device))
    viewer = _make_viewer(options, WINDOW, False, training)(open_output(SAMPLE_RATE))
    viewer.act({"set": {"training": True}})
    run_window(viewer)
    return training.finished


def _make_viewer(
    options: ViewerOptions, layout: Layout, scripted: bool, training: TrainingSession | None
) -> MakeViewer:
    folder = options.run if options.run.is_dir() or training is not None else options.run.parent
    own, problem = None, ""
    if training is not None:
        trained = training.portrait()
        own = capture_clip(trained, training.trainer.capture)
    else:
        precision = resolve_precision(options.precision, options.device)
        call = graphs.cuda_graphs(options.cuda_graphs, options.device, partial(print, file=sys.stderr), precision)
        trained = load_portrait(options.run, options.device, precision, call, options.mouth_gain)
        own, problem = _own_clip(options, folder, trained)
    if options.audio is not None:
        clip = sound_clip(trained, options.audio, options.speech_model)
    else:
        clip = own or silent_clip(trained)
    inbox = options.inbox
    if inbox is None and not scripted:
        inbox = RunFolder(folder).inbox
    signer = None if options.make_signer is None else options.make_signer(partial(statement, trained))
    runtime = RuntimeOptions(
        options.output or RunFolder(folder).viewer, layout, options.speech_model, inbox, signer=signer
    )
    if scripted:
        runtime = replace(runtime, refine_seconds=math.inf, train_seconds=0.0, wait_for_sound=True)
    if problem:
        print(problem, file=sys.stderr)

    def make(output: SoundOutput, time: Callable[[], float] = perf_counter) -> Viewer:
        viewer = Viewer(trained, clip, output, runtime, time, training, own)
        if options.background is not None:
            viewer.act({"do": "background", "path": options.background})
        if problem:
            viewer.say(problem)
        return viewer

    return make


def _own_clip(options: ViewerOptions, folder: Path, trained: TrainedPortrait) -> tuple[Clip | None, str]:
    """The clip of the capture in the options, or else of the run's capture; if that can't be read, None and why."""
    if options.capture is not None:
        return capture_clip(trained, open_capture(options.capture, trained.extractor)), ""
    try:
        return capture_clip(trained, open_capture(RunFolder(folder).capture(), trained.extractor)), ""
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        return None, f"opened without its capture, so without audio and true frames: {reason}"
