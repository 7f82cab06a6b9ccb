"""From the command line's wishes to a viewer that runs in a window or through a script."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ernerf_ti.audio.frame_features import SAMPLE_RATE
from ernerf_ti.data.capture import Capture, open_capture
from ernerf_ti.run.folder import RunFolder
from ernerf_ti.run.trained_portrait import load_portrait
from ernerf_ti.train.config import PRESETS, STAGES
from ernerf_ti.train.trainer import Trainer
from ernerf_ti.viewer.clip import capture_clip, silent_clip, sound_clip
from ernerf_ti.viewer.screen import Layout
from ernerf_ti.viewer.sound import SoundOutput, open_output
from ernerf_ti.viewer.training_session import TrainingSession
from ernerf_ti.viewer.viewer import Viewer, ViewerOptions
from ernerf_ti.viewer.window import check_window, run_window

WINDOW = Layout(1280, 720, 280)
OFFSCREEN = Layout(960, 640)


@dataclass(frozen=True)
class Wanted:
    """What is looked at; see tools/view.py."""

    run: Path
    capture: Path | None = None
    audio: Path | None = None
    background: Path | None = None
    out: Path | None = None
    inbox: Path | None = None
    speech_model: Path | None = None
    train: Path | None = None
    preset: str = "small"
    stages: tuple[str, ...] = STAGES
    device: str = "cpu"


def open_viewer(wanted: Wanted, layout: Layout, scripted: bool = False) -> Callable[..., Viewer]:
    """Load all that is wanted.

    Args:
        wanted: portrait, capture, sound.
        layout: of the screen.
        scripted: whether a script runs it: what takes time is waited for.

    Returns:
        A function from the sound output, and the wall clock if it is not the computer's, to the viewer.

    Raises:
        FileNotFoundError, ValueError, ImportError: an input that is not there or does not fit.
    """
    folder = wanted.run if wanted.run.is_dir() or wanted.train else wanted.run.parent
    training = None
    if wanted.train is not None:
        training = open_training(wanted.run, wanted.train, wanted.preset, wanted.stages, wanted.device)
    return viewer_of(wanted, layout, scripted, folder, training)


def viewer_of(
    wanted: Wanted, layout: Layout, scripted: bool, folder: Path, training: TrainingSession | None
) -> Callable[..., Viewer]:
    """As :func:`open_viewer`, with a training that is open already, or none."""
    trouble = ""
    if training is not None:
        trained, capture = training.portrait(), training.trainer.capture
    else:
        trained = load_portrait(wanted.run, wanted.device)
        capture, trouble = _capture(wanted, folder, trained.extractor)
    own = None if capture is None else capture_clip(trained, capture)
    clip = (
        own or silent_clip(trained) if wanted.audio is None else sound_clip(trained, wanted.audio, wanted.speech_model)
    )
    budgets = {"refine_seconds": float("inf"), "train_seconds": 0.0, "wait_for_sound": True} if scripted else {}
    options = ViewerOptions(
        *(wanted.out or RunFolder(folder).viewer, layout, wanted.speech_model),
        inbox=None if scripted and wanted.inbox is None else wanted.inbox or RunFolder(folder).inbox,
        **budgets,
    )

    def make(output: SoundOutput, *time: Callable[[], float]) -> Viewer:
        viewer = Viewer(trained, clip, output, options, *time, training=training, own_clip=own)
        if wanted.background is not None:
            viewer.act({"do": "background", "path": wanted.background})
        if trouble:
            viewer.say(trouble)
        return viewer

    return make


def _capture(wanted: Wanted, folder: Path, extractor: str) -> tuple[Capture | None, str]:
    """The one that is wanted, or else that of the run if it is still where it was; and why there is none."""
    if wanted.capture is not None:
        return open_capture(wanted.capture, extractor), ""
    try:
        return open_capture(RunFolder(folder).capture(), extractor), ""
    except (OSError, ValueError) as error:
        return None, f"without the capture: {error}"


def open_training(run: Path, capture: Path, preset: str, stages: tuple[str, ...], device: str) -> TrainingSession:
    """Go on with the run of a folder, or begin one there."""
    opened = open_capture(capture)
    if (RunFolder(run).checkpoint).is_file():
        trainer = Trainer.resume(opened, run, device)
    else:
        trainer = Trainer(opened, PRESETS[preset], run, device)
    return TrainingSession(trainer, stages)


def show(wanted: Wanted) -> None:
    """Open a window and stay until it is closed.

    Raises:
        NoWindowError: no display, or no Vulkan; before anything is loaded.
        FileNotFoundError, ValueError, ImportError: as :func:`open_viewer`.
    """
    check_window()
    make = open_viewer(wanted, WINDOW)
    run_window(make(open_output(SAMPLE_RATE)))


def watch_training(trainer: Trainer, stages: tuple[str, ...] = STAGES) -> bool:
    """Open a window on a trainer and train until it is closed; whether the end was reached.

    Raises NoWindowError.
    """
    check_window()
    training = TrainingSession(trainer, stages)
    wanted = Wanted(trainer.folder, device=str(trainer.device))
    viewer = viewer_of(wanted, WINDOW, False, trainer.folder, training)(open_output(SAMPLE_RATE))
    viewer.act({"set": {"training": True}})
    run_window(viewer)
    return training.finished
