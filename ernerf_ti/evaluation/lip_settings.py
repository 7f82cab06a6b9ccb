"""Settings that are rendered to see whether lips close: silence, and the moments at which p, b or m is heard."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ernerf_ti.audio.closures import REACH, heard_closures
from ernerf_ti.audio.context import AFTER, BEFORE, audio_contexts
from ernerf_ti.audio.frame_features import SAMPLE_RATE
from ernerf_ti.audio.silence import HALF_WINDOW, pause_windows
from ernerf_ti.data.capture import Capture
from ernerf_ti.evaluation.held_out import CROSS_SPEAKER, HeldOutFrames, frame_file, save_frames, saved_frames
from ernerf_ti.evaluation.mesh_metrics import tracker_problem
from ernerf_ti.evaluation.metric import ImageSequence, NotComputed, Setting
from ernerf_ti.media.images import read_image
from ernerf_ti.portrait.render.alpha import over
from ernerf_ti.process.ranks import Ranks
from ernerf_ti.process.threads import adaptive_threads
from ernerf_ti.run.trained_portrait import TrainedPortrait
from ernerf_ti.synthesis.driving import SAMPLES_PER_FRAME, speech_windows
from ernerf_ti.synthesis.images import to_bytes

CLOSURES = "closures"
SILENCES = "silence", f"{CROSS_SPEAKER}_silence"

_N_SILENT = 24  # frames
_SPEECH = 8 * SAMPLE_RATE  # before the pause
_SEED = 1000  # of the noise; training has others
_MAX_CLOSURES = 24


def silence_setting(
    name: str,
    trained: TrainedPortrait,
    held_out: HeldOutFrames,
    folder: Path,
    speech: np.ndarray,
    speech_model: Path | None,
    ranks: Ranks,
) -> Setting:
    """Render silence after speech, from 0.32 s on, where the audio context has nothing but silence.

    Args:
        name: one of SILENCES.
        trained: the portrait.
        held_out: frames whose poses are taken, evenly spaced.
        folder: folder for the rendered frames, PNG files.
        speech: [S] mono sound at 16 kHz, of which the first 8 s come before the pause; may be empty.
        speech_model: folder of the extractor's speech model, if it needs one.
        ranks: the processes that render the frames; the first one writes them.

    Returns:
        The setting; without images, and with the reason, if the features of silence can't be extracted.
    """
    whose = "the other speaker's" if name.startswith(CROSS_SPEAKER) else "the capture's held-out"
    description = (
        f"Rendered head composited over the capture's torso and background, at {_N_SILENT} held-out poses, in a pause "
        f"after {whose} speech: noise at -60 dB, from 0.32 s after the speech on."
    )
    problem = tracker_problem()
    windows = np.zeros((0, *held_out.frames.windows.shape[1:]), np.float32)
    if problem is None:
        try:
            windows = pause_windows(
                speech[:_SPEECH],
                lambda samples, n_frames: speech_windows(trained, samples, speech_model).numpy(),
                *(_N_SILENT + BEFORE + AFTER - 1, _SEED),
            )
        except (ImportError, FileNotFoundError, ValueError) as error:
            problem = NotComputed(f"silence can't be made for {trained.extractor} features: {error}")
    n = 0 if problem else _N_SILENT
    chosen = held_out.indices[np.linspace(0, len(held_out) - 1, n).round().astype(int)]
    contexts = audio_contexts(torch.from_numpy(windows))[BEFORE : BEFORE + n] if n else None
    heads = _heads(trained, held_out, chosen, ranks, contexts)
    save_frames(folder, [name], heads, n, name, ranks)
    ids = held_out.frames.split.frame_ids[chosen]
    times = min(len(speech), _SPEECH) // SAMPLES_PER_FRAME + HALF_WINDOW + BEFORE + np.arange(n)
    return Setting(
        *(name, description, saved_frames(folder / name, n)),
        truth=None,
        landmarks=lambda i: held_out.frames.capture.landmarks(int(ids[i])),
        times=times,
        samples=None,
        windows=windows[BEFORE : BEFORE + n],
        is_special=True,
        problem=problem,
    )


def closure_setting(
    trained: TrainedPortrait,
    capture: Capture,
    held_out: HeldOutFrames,
    folder: Path,
    samples: np.ndarray | None,
    ranks: Ranks,
) -> Setting:
    """The held-out frames around each p, b or m that is heard; those that were not rendered before are rendered.

    Args:
        trained: the portrait.
        capture: its capture.
        held_out: frames that were rendered as the setting `head`; closures are sought between the first and the last.
        folder: folder of the rendered frames.
        samples: [S] the capture's mono sound at 16 kHz; None without sound.
        ranks: the processes that render the frames; the first one writes them.

    Returns:
        The setting; without images, and with the reason, if no closure is heard.
    """
    description = (
        "Rendered head composited over the capture's torso and background, compared with the frame, in the 5 frames "
        "around each p, b or m that is heard in the held-out sound."
    )
    problem = tracker_problem()
    if samples is None:
        problem = problem or NotComputed("the capture has no sound")
    all_times, around = held_out.frames.split.audio_ids, np.arange(-REACH, REACH + 1)
    heard = np.zeros(0, int)
    if problem is None:
        assert samples is not None
        heard = heard_closures(samples)
        known = np.isin(heard[:, None] + around, all_times).all(1)
        heard = heard[known & (heard >= held_out.times[0]) & (heard <= held_out.times[-1])]
        if not len(heard):
            problem = NotComputed("no p, b or m is heard in the sound of these frames")
    if len(heard) > _MAX_CLOSURES:
        description += f" {_MAX_CLOSURES} of {len(heard)} such sounds, evenly spaced."
        heard = heard[np.linspace(0, len(heard) - 1, _MAX_CLOSURES).round().astype(int)]
    indices = np.flatnonzero(np.isin(all_times, heard[:, None] + around))
    paths = {int(k): frame_file(folder / "head", i) for i, k in enumerate(held_out.indices)}
    others = np.array([k for k in indices if int(k) not in paths], int)
    paths |= {int(k): frame_file(folder / CLOSURES, i) for i, k in enumerate(others)}
    heads = _heads(trained, held_out, others, ranks)
    save_frames(folder, [CLOSURES], heads, len(others), "frames around p, b, m", ranks)
    ids, times, n = held_out.frames.split.frame_ids[indices], all_times[indices], len(indices)
    return Setting(
        *(CLOSURES, description, ImageSequence(n, lambda i: read_image(paths[int(indices[i])]))),
        truth=ImageSequence(n, lambda i: capture.image(ids[i])),
        landmarks=lambda i: capture.landmarks(int(ids[i])),
        times=times,
        samples=samples,
        windows=capture.audio_windows[np.minimum(times, len(capture.audio_windows) - 1)],
        is_special=True,
        problem=problem,
    )


def _heads(
    trained: TrainedPortrait,
    held_out: HeldOutFrames,
    indices: np.ndarray,
    ranks: Ranks,
    contexts: Tensor | None = None,
) -> Iterator[tuple[np.ndarray]]:
    """[H, W, 3] uint8 heads over the capture's torso, of the frames that this process renders.

    Args:
        trained, held_out: the portrait and its frames.
        indices: [n] of the frames in the split.
        ranks: the processes.
        contexts: [n, 8, C, steps] audio contexts in place of those of the frames.
    """
    for i in adaptive_threads(ranks.frames(len(indices)), trained.background.device.type):
        index = int(indices[i])
        inputs = held_out.frames.inputs(index, trained=False)
        if contexts is not None:
            inputs.audio_window = contexts[i].contiguous().to(trained.background.device)
        head = trained.render(inputs, None, with_torso=False, with_attention=False)
        yield (to_bytes(over(head.rgb, head.opacity, held_out.frames.images(index).torso_over_background)),)
