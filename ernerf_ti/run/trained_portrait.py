"""A trained portrait, loaded from its run folder for rendering."""

from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from ernerf_ti.portrait.config import PortraitConfig
from ernerf_ti.portrait.model.pose_regression import PoseRegression
from ernerf_ti.portrait.portrait import Portrait
from ernerf_ti.portrait.records import FrameInputs, RenderOutput
from ernerf_ti.run.checkpoint import load_checkpoint
from ernerf_ti.run.folder import RunFolder
from ernerf_ti.run.serialization import config_from_dict

SMOOTHING = 7
"""Frames averaged to smooth a tracked head path, odd."""


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
    eye_closures: Tensor
    """[n] of the capture."""
    background: Tensor
    """[H, W, 3] in [0, 1]."""
    as_published: bool = False
    """Converted and not trained since: rendered as the public code does, in rounds, with the identity codes of row 0
    and zeros beyond the ends of the speech."""

    _torso_codes: dict[int, tuple[PoseRegression, Tensor]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )
    """By version of the codes, the last one: what a pose lets expect, and [n, K] for the frames of the capture."""

    def torso_appearance(self, head_pose: Tensor, place: int | None = None) -> Tensor:
        """[K] identity code of the torso.

        Args:
            head_pose: [4, 4] scene.
            place: of the frame of `poses` that is followed, so that the shoulders move, and meet the neck, as they were
                filmed; by how much the pose differs, they give way. None for the code that the pose lets expect.
        """
        identities = self.portrait.torso.appearance
        if self.as_published:
            return identities(self.appearance_index)
        version = identities.codes._version  # the portrait may be in training
        if version not in self._torso_codes:
            learned = identities.of_all_frames()
            expected = self.portrait.predicted_torso_appearance(self.poses[: len(learned)])
            of_capture = torch.cat((learned, expected(self.poses[len(learned) :])))
            smoothed = F.avg_pool1d(of_capture.t()[None], SMOOTHING, 1, SMOOTHING // 2, count_include_pad=False)[0].t()
            self._torso_codes.clear()
            self._torso_codes[version] = expected, smoothed
        expected, of_capture = self._torso_codes[version]
        if place is None:
            return expected(head_pose[None])[0]
        filmed, wanted = expected(torch.stack((self.poses[place], head_pose.to(self.poses.device))))
        return of_capture[place] + wanted - filmed

    @property
    def appearance_index(self) -> int | None:
        """Code that the head is rendered with: None for the mean of all, which no training frame has."""
        return 0 if self.as_published else None

    def render(self, conditioning: FrameInputs, background: Tensor | None, with_torso: bool = True) -> RenderOutput:
        """A picture from the capture's camera; arguments as :meth:`ernerf_ti.portrait.portrait.Portrait.render`.

        The torso's code, if the conditioning has none, is the one that the head pose lets expect.
        """
        code = conditioning.torso_appearance
        if code is None and with_torso:
            code = self.torso_appearance(conditioning.head_pose)
        conditioning = replace(conditioning, appearance_index=self.appearance_index, torso_appearance=code)
        return self.portrait.render(
            conditioning, self.intrinsics, self.size, background, with_torso, in_passes=self.as_published
        )


def load_portrait(run: Path, device: torch.device | str = "cpu") -> TrainedPortrait:
    """Load what a run has learned.

    Args:
        run: the run folder, or a checkpoint file.
        device: where it is rendered.

    Raises:
        FileNotFoundError, ValueError: as :func:`ernerf_ti.run.checkpoint.load_checkpoint`.
    """
    run = Path(run)
    content = load_checkpoint(RunFolder(run).checkpoint if run.is_dir() else run, device)
    capture, scene = content["capture"], content["scene"]
    config = config_from_dict(PortraitConfig, content["portrait_config"], "portrait_config")
    portrait = Portrait(config, capture["feature_dimension"], capture["n_train"]).to(device)
    portrait.load_state_dict(content["portrait"])
    portrait.requires_grad_(False)
    return TrainedPortrait(
        portrait,
        capture["extractor"],
        capture["feature_dimension"],
        tuple(scene["intrinsics"].tolist()),
        (capture["width"], capture["height"]),
        scene["poses"],
        scene["eye_closures"],
        scene["background"].float() / 255,
        "official" in content,
    )
