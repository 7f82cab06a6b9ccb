"""From a trained portrait and speech to pictures, one at a time."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ernerf_ti.audio.extractors import extract_windows
from ernerf_ti.audio.ready_made import read_windows
from ernerf_ti.batch import Conditioning, RenderOutput
from ernerf_ti.camera import smooth_path
from ernerf_ti.checkpoint import load_checkpoint
from ernerf_ti.config import TrainConfig, config_from_dict
from ernerf_ti.data.audio_context import audio_context
from ernerf_ti.model.pose_codes import PoseCodes
from ernerf_ti.portrait import Portrait
from ernerf_ti.train.trainer import CHECKPOINT

_BLINK_EVERY = 2.0, 6.0
"""Seconds between blinks of people who talk: 10 to 30 a minute."""
_BLINK_SHAPE = (0.5, 1.0, 0.9, 0.45, 0.15)
"""Closure in the frames of a blink, 40 ms each."""
_CALM = 7
"""Frames in the mean that calms a path, odd."""


@dataclass(frozen=True)
class TrainedPortrait:
    """A portrait as a run folder has it, with what rendering needs of its capture."""

    portrait: Portrait
    extractor: str
    feature_dimension: int
    intrinsics: tuple[float, float, float, float]
    size: tuple[int, int]
    """Width, height."""
    poses: Tensor
    """[n, 4, 4] pose_world_from_camera of the capture, scene."""
    eye_areas: Tensor
    """[n] of the capture."""
    background: Tensor
    """[H, W, 3] in [0, 1]."""
    as_published: bool = False
    """Converted and not trained since: rendered as the public code does, in rounds, with the identity codes of row 0
    and zeros beyond the ends of the speech."""

    _torso_codes: dict[int, tuple[PoseCodes, Tensor]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )
    """By version of the codes, the last one: what a pose lets expect, and [n, K] for the frames of the capture."""

    def torso_code(self, head_pose: Tensor, place: int | None = None) -> Tensor:
        """[K] identity code of the torso.

        Args:
            head_pose: [4, 4] scene.
            place: of the frame of `poses` that is followed, so that the shoulders move, and meet the neck, as they were
                filmed; by how much the pose differs, they give way. None for the code that the pose lets expect.
        """
        identities = self.portrait.torso.identity_codes
        if self.as_published:
            return identities(self.identity_index)
        version = identities.codes._version  # the portrait may be in training
        if version not in self._torso_codes:
            learned = identities.of_all_frames()
            expected = self.portrait.expected_torso_codes(self.poses[: len(learned)])
            of_capture = torch.cat((learned, expected(self.poses[len(learned) :])))
            calm = F.avg_pool1d(of_capture.t()[None], _CALM, 1, _CALM // 2, count_include_pad=False)[0].t()
            self._torso_codes.clear()
            self._torso_codes[version] = expected, calm
        expected, of_capture = self._torso_codes[version]
        if place is None:
            return expected(head_pose[None])[0]
        filmed, wanted = expected(torch.stack((self.poses[place], head_pose.to(self.poses.device))))
        return of_capture[place] + wanted - filmed

    @property
    def identity_index(self) -> int | None:
        """Code that the head is rendered with: None for the mean of all, which no training frame has."""
        return 0 if self.as_published else None

    def render(self, conditioning: Conditioning, background: Tensor | None, with_torso: bool = True) -> RenderOutput:
        """A picture from the capture's camera; arguments as :meth:`ernerf_ti.portrait.Portrait.render`.

        The torso's code, if the conditioning has none, is the one that the head pose lets expect.
        """
        code = conditioning.torso_code
        if code is None and with_torso:
            code = self.torso_code(conditioning.head_pose)
        conditioning = replace(conditioning, identity_index=self.identity_index, torso_code=code)
        return self.portrait.render(
            conditioning, self.intrinsics, self.size, background, with_torso, in_rounds=self.as_published
        )


def load_portrait(run: Path, device: torch.device | str = "cpu") -> TrainedPortrait:
    """Load what a run has learned.

    Args:
        run: the run folder, or a checkpoint file.
        device: where it is rendered.

    Raises:
        FileNotFoundError, ValueError: as :func:`ernerf_ti.checkpoint.load_checkpoint`.
    """
    run = Path(run)
    content = load_checkpoint(run / CHECKPOINT if run.is_dir() else run, device)
    capture, scene = content["capture"], content["scene"]
    config = config_from_dict(TrainConfig, content["train_config"])
    portrait = Portrait(config.portrait, capture["feature_dimension"], capture["n_train"]).to(device)
    portrait.load_state_dict(content["portrait"])
    portrait.requires_grad_(False)
    return TrainedPortrait(
        portrait,
        capture["extractor"],
        capture["feature_dimension"],
        tuple(scene["intrinsics"].tolist()),
        (capture["width"], capture["height"]),
        scene["poses"],
        scene["eye_areas"],
        scene["background"].float() / 255,
        "official" in content,
    )


def speech_windows(trained: TrainedPortrait, samples: np.ndarray, model: Path | None = None) -> Tensor:
    """[S] mono 16 kHz sound -> [T, steps, C] windows of the portrait's extractor, one per 25 fps frame.

    Raises:
        ValueError: the extractor can't be computed here, or gives another dimension.
    """
    windows = torch.from_numpy(extract_windows(samples, trained.extractor, -(-len(samples) // 640), model))
    _check_dimension(trained, f"{trained.extractor} features", windows)
    return windows


def ready_made_windows(trained: TrainedPortrait, path: Path, n: int) -> Tensor:
    """[n, steps, C] windows of a .npy file that another tool made of the speech; the last one is repeated.

    Raises:
        FileNotFoundError, ValueError: no such file, one of no known format, or features of another dimension.
    """
    _, windows = read_windows(path)
    windows = torch.from_numpy(windows)
    _check_dimension(trained, str(path), windows)
    return windows[torch.arange(n).clamp(max=len(windows) - 1)]


def _check_dimension(trained: TrainedPortrait, name: str, windows: Tensor) -> None:
    if windows.shape[2] != trained.feature_dimension:
        raise ValueError(
            f"{name}: expected dimension {trained.feature_dimension} (of the training), "
            f"got {windows.shape[2]}; pass the speech model that the portrait was trained with"
        )


def ping_pong(n: int, available: int) -> np.ndarray:
    """[n] indices that run to the end, back, and on, so that there is no jump."""
    turn, place = np.divmod(np.arange(n), available)
    return np.where(turn % 2 == 0, place, available - 1 - place)


def head_path(
    trained: TrainedPortrait, n: int, kind: str = "capture", smoothing: int = _CALM
) -> tuple[Tensor, np.ndarray]:
    """How the head moves in n frames.

    Args:
        kind: "capture": those of the capture, smoothed, there and back; "still": the first one.
        smoothing: frames in a mean, odd.

    Returns:
        [n, 4, 4] poses, scene, and [n] places of their frames in the capture.

    Raises ValueError for another kind.
    """
    if kind == "still":
        return trained.poses[:1].expand(n, 4, 4), np.zeros(n, int)
    if kind != "capture":
        raise ValueError(f"pose: expected capture, still or a file, got {kind!r}; choose one of these")
    places = ping_pong(n, len(trained.poses))
    return smooth_path(trained.poses.double().cpu(), smoothing).float()[places], places


def blinks(trained: TrainedPortrait, n: int, kind: str, seed: int = 0) -> np.ndarray:
    """[n] float32 closure of the eyes.

    Args:
        kind: "capture": that of the capture, along with its poses; "natural": blinks at random times; or
            a number from 0 (open) to 1 (closed).
        seed: of the random times.

    Raises ValueError for another kind.
    """
    if kind == "capture":
        return trained.eye_areas.cpu().numpy()[ping_pong(n, len(trained.eye_areas))].astype(np.float32)
    if kind == "natural":
        generator, closure = np.random.default_rng(seed), np.zeros(n + len(_BLINK_SHAPE), np.float32)
        at = generator.uniform(*_BLINK_EVERY) * 25 / 2
        while at < n:
            closure[int(at) : int(at) + len(_BLINK_SHAPE)] = _BLINK_SHAPE
            at += generator.uniform(*_BLINK_EVERY) * 25
        return closure[:n]
    try:
        value = float(kind)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise ValueError(f"blink: expected capture, natural or a number from 0 to 1, got {kind!r}; choose one of these")
    return np.full(n, value, np.float32)


def render_frames(
    trained: TrainedPortrait,
    windows: Tensor,
    poses: Tensor,
    eye_areas: np.ndarray,
    background: Tensor | Callable[[int], Tensor] | None,
    with_torso: bool = True,
    places: np.ndarray | None = None,
) -> Iterator[RenderOutput]:
    """Pictures of speech.

    Args:
        trained: who speaks.
        windows: [T, steps, C] audio windows, one per frame.
        poses: [T, 4, 4] of the head, scene.
        eye_areas: [T] closure of the eyes.
        background: [H, W, 3] in [0, 1], or what gives that of a frame; None for colour times alpha, to lay over
            something.
        with_torso: else the head alone.
        places: [T] frames of the capture that the torso follows; None for torsos that the poses let expect.

    Yields:
        RenderOutput of [H, W] for each frame.
    """
    device = trained.background.device
    for k in range(len(windows)):
        conditioning = Conditioning(
            audio_context(windows, k, silent_ends=trained.as_published).to(device),
            torch.tensor([float(eye_areas[k])], device=device),
            None,
            poses[k].to(device),
            trained.torso_code(poses[k], None if places is None else int(places[k])) if with_torso else None,
        )
        behind = background(k) if callable(background) else background
        yield trained.render(conditioning, behind, with_torso)
