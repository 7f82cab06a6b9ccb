"""A trained portrait, loaded from its run folder for rendering."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ernerf_ti.audio.speech_projection import SpeechProjection
from ernerf_ti.bake.baked_head import BakedHead
from ernerf_ti.bake.baked_renderer import BakedRenderer
from ernerf_ti.media.provenance.consent import Consent, consent_in
from ernerf_ti.portrait.config import PortraitConfig, check_mouth_gain
from ernerf_ti.portrait.model.calls import Call, call_plainly
from ernerf_ti.portrait.model.pose_regression import PoseRegression
from ernerf_ti.portrait.portrait import Portrait
from ernerf_ti.portrait.records import FrameInputs, RenderOutput
from ernerf_ti.portrait.render.frame_renderer import PendingFrame
from ernerf_ti.run.checkpoint import check_state, load_checkpoint, load_state
from ernerf_ti.run.folder import RunFolder
from ernerf_ti.run.serialization import config_from_dict

SMOOTHING = 7
"""Number of frames over which the torso's appearance is averaged along the capture, odd."""


@dataclass(frozen=True)
class TrainedPortrait:
    """A trained portrait with what rendering needs of its capture."""

    portrait: Portrait
    extractor: str
    """Of audio features."""
    feature_dimension: int
    intrinsics: tuple[float, float, float, float]
    """fx, fy, cx, cy in pixels."""
    size: tuple[int, int]
    """Width, height."""
    poses: Tensor
    """[n, 4, 4] pose_world_from_camera of the capture's frames, scene; the training frames come first."""
    eye_closures: Tensor
    """[n] of the same frames."""
    background: Tensor
    """[H, W, 3] in [0, 1]."""
    as_published: bool = False
    """Whether the portrait was converted and not trained since. It is rendered as the public code does: in several
    passes, with the appearance embedding of frame 0, and with zeros beyond the ends of the speech."""
    consent: Consent | None = None
    """Who agreed to the portrait; None if that is not recorded."""
    checkpoint: Path | None = None
    """File it was loaded from; None for a portrait in training."""
    speech_projection: SpeechProjection | None = None
    """What makes features of Whisper's states; None for other features."""
    silence: Tensor | None = None
    """[P, L, steps, C] windows of silence that it was trained on; None for runs without them."""
    baked: BakedHead | None = None
    """The stored part of the head, which images on the CPU are made of; None for the networks alone."""

    _torso_appearances: dict[int, tuple[PoseRegression, Tensor]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )
    """By version of the embeddings, the last one only: regression from poses, and [n, K] what the embeddings of the
    capture's frames differ by from those expected from their poses, smoothed."""

    def torso_appearances(self, head_poses: Tensor, frames: np.ndarray | None = None) -> Tensor:
        """[m, K] appearance embeddings of the torso for m head poses, on the portrait's device.

        Args:
            head_poses: [m, 4, 4] scene.
            frames: [m] indices into `poses` of the frames whose shoulders are reproduced, so that they meet the neck as
                in the capture; the embeddings are corrected for the difference of the head poses. An index between two
                whole numbers blends both frames. None for embeddings that are predicted from the head poses alone.
        """
        appearance = self.portrait.torso.appearance
        if self.as_published:
            return appearance(self.appearance_index).expand(len(head_poses), -1)
        version = appearance.embeddings._version  # the portrait may be in training
        if version not in self._torso_appearances:
            learned = appearance.of_all_frames()
            predict = self.portrait.predicted_torso_appearance(self.poses[: len(learned)])
            unexplained = F.pad(
                learned - predict(self.poses[: len(learned)]), (0, 0, 0, len(self.poses) - len(learned))
            )
            # Averaged after the expectation is subtracted: what the poses jitter by does not move the shoulders.
            smooth = F.avg_pool1d(unexplained.t()[None], SMOOTHING, 1, SMOOTHING // 2, count_include_pad=False)[0].t()
            self._torso_appearances.clear()
            self._torso_appearances[version] = predict, smooth
        predict, unexplained = self._torso_appearances[version]
        expected = predict(head_poses)
        if frames is None:
            return expected
        first = np.floor(frames).astype(np.int64)
        before = torch.from_numpy(first).to(expected.device)
        share = torch.from_numpy((frames - first).astype(np.float32)).to(expected.device)[:, None]
        after = (before + 1).clamp(max=len(unexplained) - 1)
        return expected + torch.lerp(unexplained[before], unexplained[after], share)

    def torso_appearance(self, head_pose: Tensor, frame: float | None = None) -> Tensor:
        """[K] appearance embedding of the torso for one head pose [4, 4]; see :meth:`torso_appearances`."""
        return self.torso_appearances(head_pose[None], None if frame is None else np.array([frame]))[0]

    @property
    def dial_names(self) -> tuple[str, ...]:
        """Of the expression dials that images can be rendered with: none on the CPU if the portrait is baked."""
        return () if self.baked_renderer is not None else self.portrait.config.head.dial_names

    def dials(self, values: Mapping[str, float]) -> Tensor | None:
        """[D] expression dials on the portrait's device, as :class:`FrameInputs` takes them.

        Args:
            values: in standard deviations of the capture, by name; dials that are left out are neutral. None of them
                gives None.

        Raises ValueError for a dial that the portrait lacks.
        """
        unknown = [name for name in values if name not in self.dial_names]
        if unknown:
            has = ", ".join(self.dial_names) or "none"
            advice = "choose one of these" if self.dial_names else "train it with --portrait.head.dials"
            if self.baked_renderer is not None:
                has, advice = "none, as it is baked with a neutral face", "render the run that it was made of"
            raise ValueError(f"dial: expected a dial of this portrait ({has}), got {', '.join(unknown)}; {advice}")
        if not values:
            return None
        return torch.tensor([values.get(name, 0.0) for name in self.dial_names], device=self.background.device)

    @property
    def appearance_index(self) -> int | None:
        """Index of the head's appearance embedding: None for the mean embedding."""
        return 0 if self.as_published else None

    def submit(
        self, inputs: FrameInputs, background: Tensor | None, with_torso: bool = True, with_attention: bool = True
    ) -> PendingFrame:
        """Launch the rendering of an image from the capture's camera, see
        :meth:`ernerf_ti.portrait.render.frame_renderer.FrameRenderer.submit`.

        If the inputs have no appearance embedding of the torso, it is predicted from the head pose. On the CPU a baked
        portrait is rendered by :class:`ernerf_ti.bake.baked_renderer.BakedRenderer`.

        Raises ValueError for dials in the inputs of a portrait that has none, or is rendered as a baked one.
        """
        appearance = inputs.torso_appearance
        if appearance is None and with_torso:
            appearance = self.torso_appearance(inputs.head_pose)
        inputs = replace(inputs, appearance_index=self.appearance_index, torso_appearance=appearance)
        baked = self.baked_renderer
        if baked is not None:
            if inputs.dials is not None:
                raise ValueError(
                    f"dials: expected None, as the portrait is baked with a neutral face, got {inputs.dials.tolist()}; "
                    "render the run that it was made of"
                )
            return PendingFrame(lambda _: baked.render(inputs, background, with_torso, with_attention), 0, None)
        renderer = self.portrait.renderer(self.intrinsics, self.size)
        return renderer.submit(
            inputs, background, with_torso, in_passes=self.as_published, with_attention=with_attention
        )

    @cached_property
    def baked_renderer(self) -> BakedRenderer | None:
        """What renders the images of a baked portrait on the CPU; None for the networks alone."""
        if self.baked is None or self.background.device.type != "cpu":
            return None
        return BakedRenderer(self.portrait, self.baked, self.intrinsics, self.size)

    def render(
        self, inputs: FrameInputs, background: Tensor | None, with_torso: bool = True, with_attention: bool = True
    ) -> RenderOutput:
        """Render an image from the capture's camera; arguments as of :meth:`submit`."""
        return self.submit(inputs, background, with_torso, with_attention).result()


def load_portrait(
    run: Path,
    device: torch.device | str = "cpu",
    precision: torch.dtype = torch.float32,
    call: Call = call_plainly,
    mouth_gain: float | None = None,
) -> TrainedPortrait:
    """Load a trained portrait.

    Args:
        run: a run folder, a checkpoint file, a baked portrait, or a folder that contains a run as `run/`.
        device: where it is rendered.
        precision: of its networks; see :meth:`ernerf_ti.portrait.portrait.Portrait.set_precision`.
        call: calls them; see :mod:`ernerf_ti.portrait.model.calls`.
        mouth_gain: how far the mouth moves; None for that of the portrait's configuration.

    Raises:
        FileNotFoundError, ValueError: as :meth:`ernerf_ti.run.folder.RunFolder.find` and
            :func:`ernerf_ti.run.checkpoint.load_checkpoint`, for a configuration that does not fit the weights, and for
            a gain that is out of range, or is not 1 and the portrait does not know its mean audio code.
    """
    path = RunFolder.find(run).checkpoint
    content = load_checkpoint(path, device)
    capture, scene = content["capture"], content["scene"]
    portrait = portrait_of(content, path).to(device)
    portrait.requires_grad_(False)
    portrait.set_precision(precision)
    portrait.call = call
    _set_mouth_gain(portrait, mouth_gain, path)
    encoder = portrait.head.audio_encoder
    if len(encoder.training_codes):
        encoder.nearest = portrait.config.head.nearest_codes
    resolution = portrait.config.head_grid.resolution
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
        consent_in(content, path),
        path,
        SpeechProjection.from_state(scene["speech"], path) if "speech" in scene else None,
        content.get("silence"),
        BakedHead.from_state(content["baked"], resolution, path) if "baked" in content else None,
    )


def _set_mouth_gain(portrait: Portrait, gain: float | None, path: Path) -> None:
    encoder = portrait.head.audio_encoder
    if gain is None:
        gain = portrait.config.head.mouth_gain if encoder.knows_mean else 1.0
    check_mouth_gain(gain)
    if gain != 1 and not encoder.knows_mean:
        raise ValueError(
            f"{path}: expected a mouth-gain of 1, as the portrait was converted, or trained by an earlier version, and "
            f"lacks its mean audio code, got {gain:g}; leave the option out, or train the portrait again"
        )
    encoder.gain = gain


def portrait_of(content: dict[str, Any], path: Path) -> Portrait:
    """The portrait of a checkpoint, on the CPU.

    Args:
        content: as :func:`ernerf_ti.run.checkpoint.load_checkpoint` returns it.
        path: of the file, for messages.

    Raises ValueError if the configuration is invalid or does not fit the weights.
    """
    config = config_from_dict(PortraitConfig, content["portrait_config"], f"{path}: portrait_config")
    check_portrait(config, content, path)
    portrait = Portrait(config, content["capture"]["feature_dimension"], content["capture"]["n_train"])
    load_state(portrait, content["portrait"], path, "portrait")
    return portrait


def check_portrait(config: PortraitConfig, content: dict[str, Any], path: Path) -> None:
    """Raise ValueError unless the weights in a checkpoint have the shapes of a configuration.

    Allocates no memory for the portrait: sizes in a damaged file may be absurd.
    """
    capture = content["capture"]
    try:
        with torch.device("meta"):
            expected = Portrait(config, capture["feature_dimension"], capture["n_train"]).state_dict()
    except (RuntimeError, OverflowError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path}: expected the configuration of a portrait, got one that can't be built "
            f"({' '.join(str(error).split())[:200]}); the file is damaged, take another copy"
        ) from error
    check_state(expected, content["portrait"], path, "portrait")
