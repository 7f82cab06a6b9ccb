"""The demo: render a synthetic person, train a portrait of it, let it speak, and compare it with the ground truth."""

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ernerf_ti.audio.frame_features import SAMPLE_RATE
from ernerf_ti.data.capture import Capture, open_capture
from ernerf_ti.data.capture_files import FPS
from ernerf_ti.data.synthetic.motion import natural_motion
from ernerf_ti.data.synthetic.mouth import mouth_track
from ernerf_ti.data.synthetic.portrait_writers import write_portrait_capture
from ernerf_ti.data.synthetic.speech import VOICES
from ernerf_ti.data.synthetic.synthetic_portrait import VARIED, SyntheticPortrait
from ernerf_ti.data.synthetic.text_speech import say
from ernerf_ti.experiments.demo_measures import LidMeter, MouthMeter
from ernerf_ti.experiments.demo_pictures import beside, comparison_frame, contact_sheet
from ernerf_ti.media.files import read_json, write_json
from ernerf_ti.media.provenance.note import write_synthesized_png
from ernerf_ti.media.video_writer import write_video
from ernerf_ti.portrait.camera import scene_from_capture
from ernerf_ti.process.interruption import StopRequest
from ernerf_ti.process.precision import Precision, resolve_precision
from ernerf_ti.process.threads import adaptive_threads
from ernerf_ti.run.folder import RunFolder
from ernerf_ti.run.trained_portrait import TrainedPortrait, load_portrait
from ernerf_ti.synthesis.driving import speech_windows
from ernerf_ti.synthesis.frames import render_frames
from ernerf_ti.synthesis.images import picture_of
from ernerf_ti.synthesis.video import SYNTHESIZED
from ernerf_ti.train.config import PRESETS, STAGES, TrainConfig
from ernerf_ti.train.losses import psnr
from ernerf_ti.train.trainer import Trainer, trained_alone

SENTENCE = "I am a synthetic portrait. This voice is new to me."
_VOICE = "alto"
_ITERATIONS = {"head": 4000, "finetune": 800, "torso": 8000}
_HELD_OUT_FRAMES = 18
_BLINK_FRAMES = 6
_SHEET_ROWS = 5


@dataclass(frozen=True)
class Demo:
    """Options of the demo."""

    folder: Path
    """Folder of all files; a demo that was interrupted there continues."""
    device: str
    size: int
    """Width and height in pixels."""
    seconds: float
    """Length of the training clip, 2 or more: a portrait needs some speech."""
    speed_up: float
    """Divides the training steps; 1 is the full training."""
    seed: int
    precision: Precision = "auto"

    @property
    def config(self) -> TrainConfig:
        """Training configuration: the small preset with fewer steps."""
        config = PRESETS["small"]
        # The head covers a fifth of the frame, and the background needs few rays.
        head = dataclasses.replace(config.head, n_rays=1536, lips_fraction=0.25, eyes_fraction=0.25, head_fraction=0.25)
        # The sound says all of this person's mouth: there is no uncertainty that a gain would make up for.
        field = dataclasses.replace(config.portrait.head, mouth_gain=1.0)
        portrait = dataclasses.replace(config.portrait, head=field)
        # Random patches hardly see eyes as small as these, and lids close less without steps of their own.
        finetune = dataclasses.replace(config.finetune, eyes_every=2)
        config = dataclasses.replace(config, head=head, finetune=finetune, portrait=portrait)
        stages = {
            name: dataclasses.replace(
                getattr(config, name), iterations=max(2, round(iterations / self.speed_up)), most_visits=0
            )
            for name, iterations in _ITERATIONS.items()
        }
        config = dataclasses.replace(config, seed=self.seed, precision=self.precision)
        return dataclasses.replace(config, **stages)

    @property
    def capture(self) -> Path:
        """Folder of the training clip."""
        return self.folder / "capture"

    @property
    def progress(self) -> Path:
        """File with the settings and the durations of the stages, which a demo writes first."""
        return self.folder / "progress.json"

    @property
    def run(self) -> Path:
        """Folder of the training run."""
        return self.folder / "run"


class _Progress:
    """Announces stages and records their durations, which add up over interruptions.

    Raises ValueError if the folder holds a demo with other settings.
    """

    def __init__(self, demo: Demo, n_stages: int):
        self._path = demo.progress
        self._n_stages, self._begun = n_stages, 0
        settings = {name: getattr(demo, name) for name in ("size", "seconds", "speed_up", "seed")}
        self._record = {"settings": settings, "seconds": {}}
        if self._path.is_file():
            self._record = read_json(self._path)
            if self._record.get("settings") != settings:
                raise ValueError(
                    f"{demo.folder}: expected a demo with the settings {settings}, got one with "
                    f"{self._record.get('settings')}; pass another folder"
                )
        else:
            demo.folder.mkdir(parents=True, exist_ok=True)
            write_json(self._path, self._record)

    @property
    def seconds(self) -> dict[str, float]:
        """Durations by stage."""
        return self._record["seconds"]

    @contextmanager
    def stage(self, name: str, note: str = "") -> Iterator[None]:
        self._begun += 1
        print(f"[{self._begun}/{self._n_stages}] {name}{note}", flush=True)
        begin = perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = round(self.seconds.get(name, 0.0) + perf_counter() - begin, 1)
            write_json(self._path, self._record)


def run_demo(demo: Demo) -> dict:
    """Run all stages, or those that an interrupted demo in the folder has left; returns the content of metrics.json.

    Raises:
        ValueError: a size that is too small, or a folder with a demo of other settings.
        OSError: the folder can't be written.
        KeyboardInterrupt: on Ctrl-C; the same demo continues later.
    """
    n_frames = round(demo.seconds * FPS)
    person = SyntheticPortrait(n_frames, demo.size, demo.seed, VARIED, device=demo.device, blinks="frequent")
    progress = _Progress(demo, 3 + len(STAGES))
    note = f": {n_frames} frames; kernels are compiled first"
    with progress.stage("render the synthetic person", note):
        write_portrait_capture(person, demo.capture, progress=True)
    capture = open_capture(demo.capture)
    _train(demo, capture, progress)
    trained = load_portrait(demo.run, demo.device, resolve_precision(demo.precision, demo.device))
    with progress.stage("measure held-out frames"):
        metrics, held_out = _held_out(trained, capture)
        metrics |= _lid_apertures(trained, capture, person)
    with progress.stage("speak a sentence in a new voice"):
        spoken, frames = _speak(demo, person, trained, MouthMeter(person, capture))
    columns = [("frames that were not trained on", held_out), (f'new voice: "{SENTENCE}"', frames)]
    write_synthesized_png(demo.folder / "contact_sheet.png", contact_sheet(columns, _SHEET_ROWS), SYNTHESIZED)
    metrics |= spoken | {"seconds": progress.seconds}
    write_json(demo.folder / "metrics.json", metrics)
    return metrics


def _train(demo: Demo, capture: Capture, progress: _Progress) -> None:
    with trained_alone(demo.run):
        _train_stages(demo, capture, progress)


def _train_stages(demo: Demo, capture: Capture, progress: _Progress) -> None:
    if RunFolder(demo.run).checkpoint.is_file():
        trainer = Trainer.resume(capture, demo.run, demo.device)
    else:
        trainer = Trainer(capture, demo.config, demo.run, demo.device)
    for stage in STAGES:
        with progress.stage(f"train {stage}", f": {getattr(demo.config, stage).iterations} steps"):
            with StopRequest() as stop:
                trainer.run((stage,), stop)
            if stop():
                raise KeyboardInterrupt


def _held_out(trained: TrainedPortrait, capture: Capture) -> tuple[dict, list[tuple[str, np.ndarray]]]:
    """PSNR of the head over the true torso and of the whole portrait; captioned pairs of true and rendered frames."""
    split = capture.val
    chosen = np.unique(np.linspace(0, len(split) - 1, min(_HELD_OUT_FRAMES, len(split))).astype(int))
    frame_ids = split.frame_ids[chosen]
    windows = torch.from_numpy(capture.audio_windows)[split.audio_ids[chosen]]
    poses = scene_from_capture(torch.from_numpy(split.poses[chosen])).float()
    eyes = capture.eye_closures[frame_ids]

    def behind_the_head(i: int) -> Tensor:
        layer = capture.torso(frame_ids[i]).astype(np.float32) / 255
        picture = layer[..., :3] * layer[..., 3:] + capture.background.astype(np.float32) / 255 * (1 - layer[..., 3:])
        return torch.from_numpy(picture).to(trained.background.device)

    heads = render_frames(trained, windows, poses, eyes, behind_the_head, with_torso=False)
    portraits = render_frames(trained, windows, poses, eyes, trained.background)
    scores, pairs = [], []
    frames = zip(tqdm(frame_ids, "held-out frames", unit="frame"), heads, portraits, strict=True)
    for k, head, portrait in adaptive_threads(frames, trained.background.device.type):
        true = capture.image(k)
        errors = (np.square(picture_of(output) / 255.0 - true / 255.0).mean() for output in (head, portrait))
        scores.append([psnr(float(error)) for error in errors])
        pairs.append((f"frame {k}", beside(true, picture_of(portrait))))
    head_psnr, portrait_psnr = np.mean(scores, 0)
    return {"head_psnr": float(head_psnr), "portrait_psnr": float(portrait_psnr), "held_out_frames": len(pairs)}, pairs


def _lid_apertures(trained: TrainedPortrait, capture: Capture, person: SyntheticPortrait) -> dict:
    """Mean apertures of the lids in held-out poses, with the eyes closed and open."""
    split = capture.val
    chosen = np.unique(np.linspace(0, len(split) - 1, min(_BLINK_FRAMES, len(split))).astype(int))
    rows = []
    for i in tqdm(chosen, "eyelids", unit="pose"):
        state = person.state(int(split.frame_ids[i]))
        meter = LidMeter(person, state)
        windows = torch.from_numpy(capture.audio_windows)[[int(split.audio_ids[i])] * 2]
        poses = scene_from_capture(torch.from_numpy(split.poses[[i, i]])).float()
        closures = np.array([1.0, 0.0])
        outputs = render_frames(trained, windows, poses, closures, trained.background)
        images = [picture_of(output) for output in outputs]
        rows.append([*map(meter, images), *meter.true_apertures, *map(meter.openness, images)])
    closed, opened, true_closed, true_opened, openness, _ = map(float, np.mean(rows, 0))
    return {
        "lid_aperture": {
            "closed": closed,
            "closed_in_the_truth": true_closed,
            "open": opened,
            "open_in_the_truth": true_opened,
            "iris_seen_through_closed_lids": openness,
        }
    }


def _speak(
    demo: Demo, person: SyntheticPortrait, trained: TrainedPortrait, meter: MouthMeter
) -> tuple[dict, list[tuple[str, np.ndarray]]]:
    """Speak a sentence in a voice that training did not hear; measures, and captioned pairs of truth and portrait."""
    speech = say(SENTENCE, VOICES[_VOICE], demo.seed)
    n = round(len(speech.samples) / SAMPLE_RATE * FPS)
    motion = natural_motion(n, demo.seed)
    mouths = mouth_track(speech.timeline, n)
    windows = speech_windows(trained, speech.samples)
    outputs = render_frames(
        trained, windows, scene_from_capture(torch.from_numpy(motion.poses)).float(), motion.blinks, trained.background
    )
    rendered, pairs, measured = [], [], []
    outputs = tqdm(adaptive_threads(outputs, trained.background.device.type), "sentence", n, unit="frame")
    for k, output in enumerate(outputs):
        truth = person.render_state(motion.state(k, mouths[k]))
        rendered.append(picture_of(output))
        measured.append([meter(image, truth.landmarks) for image in (truth.image, rendered[-1])])
        pairs.append((f"{k / FPS:.1f} s", beside(truth.image, rendered[-1])))
    write_video(demo.folder / "portrait.mp4", rendered, FPS, speech.samples, metadata=SYNTHESIZED)
    frames = [comparison_frame(pair, SENTENCE) for _, pair in pairs]
    write_video(demo.folder / "comparison.mp4", frames, FPS, speech.samples, metadata=SYNTHESIZED)
    of_truth, of_portrait = np.transpose(measured)
    return {
        "mouth_opening_correlation": float(np.corrcoef(of_portrait, mouths[:, 0])[0, 1]),
        "mouth_opening_correlation_of_the_true_frames": float(np.corrcoef(of_truth, mouths[:, 0])[0, 1]),
        "mouth_opening_range": float(np.std(of_portrait) / np.std(of_truth)),
        "sentence": {"text": SENTENCE, "seconds": n / FPS, "voice": _VOICE},
    }, pairs
