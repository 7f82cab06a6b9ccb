"""The demonstration: a synthetic person is filmed, learned, and made to speak; then compared with the truth."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import cv2
import numpy as np
import torch
from tqdm import tqdm

from ernerf_ti.data.capture import Capture, open_capture
from ernerf_ti.data.capture_files import FPS
from ernerf_ti.data.synthetic.mouth import mouth_track
from ernerf_ti.data.synthetic.portrait_writers import write_portrait_capture
from ernerf_ti.data.synthetic.speech import speak
from ernerf_ti.data.synthetic.synthetic_portrait import SyntheticPortrait
from ernerf_ti.media.files import write_json
from ernerf_ti.media.images import write_image
from ernerf_ti.media.video import write_video
from ernerf_ti.portrait.camera import scene_from_capture
from ernerf_ti.run.trained_portrait import TrainedPortrait, load_portrait
from ernerf_ti.synthesis.driving import ping_pong, speech_windows
from ernerf_ti.synthesis.frames import render_frames
from ernerf_ti.synthesis.video import SYNTHESIZED, picture_of
from ernerf_ti.train.config import PRESETS, TrainConfig
from ernerf_ti.train.losses import psnr
from ernerf_ti.train.trainer import Trainer

_UTTERANCE_SECONDS = 6.0
_VOICES = "tenor", "alto"
"""Of the training, and of the new utterance."""
_ITERATIONS = {"head": 5000, "finetune": 500, "torso": 3000}
_SHEET = 6
_PATCH = 24, 16  # columns and rows to which the mouth is resized
_RIDGE = 30.0


@dataclass(frozen=True)
class Demo:
    """What the demonstration is told."""

    folder: Path
    device: str
    size: int
    seconds: float
    speed_up: float
    seed: int

    def __post_init__(self):
        if self.seconds < 2:
            raise ValueError(f"seconds: expected at least 2, got {self.seconds}; a portrait needs some speech")
        if not self.speed_up >= 1:
            raise ValueError(f"speed_up: expected at least 1, got {self.speed_up}; 1 is the full training")

    @property
    def config(self) -> TrainConfig:
        config = PRESETS["small"]
        stages = {
            name: dataclasses.replace(getattr(config, name), iterations=max(2, round(iterations / self.speed_up)))
            for name, iterations in _ITERATIONS.items()
        }
        return dataclasses.replace(config, seed=self.seed, **stages)


def run_demo(demo: Demo) -> dict:
    """Do it all; returns what metrics.json says.

    Raises:
        ValueError: a size or length that is too small.
        OSError: the folder can't be written.
    """
    seconds, begin = {}, perf_counter()

    def lap(stage: str) -> None:
        nonlocal begin
        seconds[stage], begin = round(perf_counter() - begin, 1), perf_counter()

    person = SyntheticPortrait(round(demo.seconds * FPS), demo.size, demo.seed, _VOICES[0], device=demo.device)
    write_portrait_capture(person, demo.folder / "capture", progress=True)
    capture = open_capture(demo.folder / "capture")
    lap("film the synthetic person")
    trainer = Trainer(capture, demo.config, demo.folder / "run", demo.device)
    for stage in ("head", "finetune", "torso"):
        trainer.run((stage,))
        lap(f"train {stage}")
    trained = load_portrait(demo.folder / "run", demo.device)
    metrics, held_out = _held_out(trained, capture)
    lap("render held-out frames")
    meter = MouthMeter(person, capture)
    spoken = _new_utterance(demo, person, trained, meter, held_out)
    lap("speak with another voice")
    metrics |= spoken | {"blink_eyes_to_mouth": _blink_ratio(trained, capture), "seconds": seconds}
    write_json(demo.folder / "metrics.json", metrics)
    return metrics


class MouthMeter:
    """Measures how far a mouth is open in a picture: ridge regression from its pixels, fitted to true frames.

    Args:
        person: whose truth it learns.
        capture: the same frames, as files.
    """

    def __init__(self, person: SyntheticPortrait, capture: Capture):
        ids = capture.train.frame_ids
        patches = np.stack([mouth_patch(capture.image(k), capture.landmarks(k)) for k in ids])
        openings = person.mouths[ids, 0]
        self._mean, self._opening = patches.mean(0), float(openings.mean())
        centerd = patches - self._mean
        # In the dual: there are fewer frames than pixels.
        gram = centerd @ centerd.T + _RIDGE * np.eye(len(centerd))
        self._weights = centerd.T @ np.linalg.solve(gram, openings - self._opening)

    def __call__(self, image: np.ndarray, landmarks: np.ndarray) -> float:
        """Opening in metres in a picture [H, W, 3] uint8; landmarks [68, 2] tell where the face is."""
        return float((mouth_patch(image, landmarks) - self._mean) @ self._weights) + self._opening


def mouth_patch(image: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """[n] the picture below the nose, resized, in [0, 1]. Its place does not depend on the mouth."""
    eyes = landmarks[36:48].mean(0)
    nose = landmarks[33]
    unit = float(np.linalg.norm(landmarks[45] - landmarks[36]))
    down = (nose - eyes) / max(1e-6, float(np.linalg.norm(nose - eyes)))
    center = nose + 0.45 * unit * down
    columns, rows = _PATCH
    across = np.array([down[1], -down[0]])
    scale = 1.1 * unit / columns
    matrix = np.column_stack((scale * across, scale * down, center - scale * (across * columns + down * rows) / 2))
    patch = cv2.warpAffine(image, matrix, _PATCH, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
    return patch.astype(np.float64).ravel() / 255


def _held_out(trained: TrainedPortrait, capture: Capture) -> tuple[dict, list[np.ndarray]]:
    """PSNR of the head before the true torso and of the whole portrait; pairs of true and rendered frames."""
    split = capture.val
    windows = torch.from_numpy(capture.audio_windows)[split.audio_ids]
    poses = scene_from_capture(torch.from_numpy(split.poses)).float()
    eyes = capture.eye_closures[split.frame_ids]

    def behind_the_head(place: int) -> torch.Tensor:
        layer = capture.torso(split.frame_ids[place]).astype(np.float32) / 255
        picture = layer[..., :3] * layer[..., 3:] + capture.background.astype(np.float32) / 255 * (1 - layer[..., 3:])
        return torch.from_numpy(picture).to(trained.background.device)

    heads = render_frames(trained, windows, poses, eyes, behind_the_head, with_torso=False)
    portraits = render_frames(trained, windows, poses, eyes, trained.background)
    scores, pairs = [], []
    for k, head, portrait in zip(tqdm(split.frame_ids, "held-out frames", unit="frame"), heads, portraits, strict=True):
        true = capture.image(k)
        errors = (np.square(picture_of(output) / 255.0 - true / 255.0).mean() for output in (head, portrait))
        scores.append([psnr(float(error)) for error in errors])
        pairs.append(np.concatenate((true, picture_of(portrait)), 1))
    head_psnr, portrait_psnr = np.mean(scores, 0)
    return {"head_psnr": float(head_psnr), "portrait_psnr": float(portrait_psnr), "held_out_frames": len(split)}, pairs


def _new_utterance(
    demo: Demo, person: SyntheticPortrait, trained: TrainedPortrait, meter: MouthMeter, pairs: list[np.ndarray]
) -> dict:
    """Speak new words with another voice, and compare with how the person would have looked."""
    speech = speak(_UTTERANCE_SECONDS, demo.seed + 1000, _VOICES[1])
    windows = speech_windows(trained, speech.samples)
    ids = ping_pong(len(windows), person.n_frames)
    mouths = mouth_track(speech.timeline, len(windows))
    poses = scene_from_capture(torch.from_numpy(person.poses[ids])).float()
    outputs = render_frames(trained, windows, poses, person.blinks[ids], trained.background)
    true, rendered, measured = [], [], []
    for k, mouth, output in zip(tqdm(ids, "new utterance", unit="frame"), mouths, outputs, strict=True):
        opening, width, rounding = map(float, mouth)
        state = dataclasses.replace(person.state(int(k)), opening=opening, width=width, rounding=rounding)
        truth = person.render_state(state)
        true.append(truth.image)
        rendered.append(picture_of(output))
        measured.append([meter(image, truth.landmarks) for image in (true[-1], rendered[-1])])
    beside = [np.concatenate(pair, 1) for pair in zip(true, rendered, strict=True)]
    write_video(demo.folder / "portrait.mp4", rendered, FPS, speech.samples, metadata=SYNTHESIZED)
    write_video(demo.folder / "comparison.mp4", beside, FPS, speech.samples, metadata=SYNTHESIZED)
    write_image(demo.folder / "contact_sheet.png", _contact_sheet(pairs, beside))
    of_truth, of_portrait = (float(np.corrcoef(column, mouths[:, 0])[0, 1]) for column in np.transpose(measured))
    return {
        "mouth_opening_correlation": of_portrait,
        "mouth_opening_correlation_of_the_true_frames": of_truth,
        "new_utterance": {"seconds": _UTTERANCE_SECONDS, "voice": _VOICES[1], "trained_on": _VOICES[0]},
    }


def _blink_ratio(trained: TrainedPortrait, capture: Capture) -> float:
    """How much closing the eyes changes the eyes' pixels, over how much it changes the mouth's."""
    k = int(capture.val.frame_ids[0])
    windows = torch.from_numpy(capture.audio_windows)[k : k + 1].expand(2, -1, -1)
    poses = scene_from_capture(torch.from_numpy(capture.val.poses[:1])).float().expand(2, 4, 4)
    eyes = np.array([0.0, 1.0])
    opened, closed = (o.rgb.cpu() for o in render_frames(trained, windows, poses, eyes, trained.background))
    change, landmarks = (opened - closed).abs().mean(-1).numpy(), capture.landmarks(k)
    regions = []
    for points in (landmarks[36:48], landmarks[48:]):
        low, high = np.floor(points.min(0)).astype(int), np.ceil(points.max(0)).astype(int)
        regions.append(change[low[1] : high[1], low[0] : high[0]].mean())
    return float(regions[0] / max(regions[1], 1e-6))


def _contact_sheet(held_out: list[np.ndarray], utterance: list[np.ndarray]) -> np.ndarray:
    """Truth beside portrait: held-out frames in the left column, the new utterance in the right one."""
    columns = []
    for pairs in (held_out, utterance):
        chosen = np.linspace(0, len(pairs) - 1, _SHEET).astype(int)
        columns.append(np.concatenate([pairs[k] for k in chosen], 0))
    return np.concatenate(columns, 1)
