"""Images for the viewer: what to render for a state, at which scale, and when to reuse the last image."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from time import perf_counter

import cv2
import numpy as np
import torch
from torch import Tensor

from ernerf_ti.audio.context import audio_context
from ernerf_ti.media.images import read_image
from ernerf_ti.portrait.model.head_field import BoundHeadField
from ernerf_ti.run.trained_portrait import TrainedPortrait
from ernerf_ti.viewer.camera_control import camera_pose, head_pose
from ernerf_ti.viewer.clip import Clip, silent_windows
from ernerf_ti.viewer.modes import Picture, color_picture, difference_picture, picture_of_mode, transparent_picture
from ernerf_ti.viewer.occupancy_boxes import box_edges
from ernerf_ti.viewer.render_job import RenderedView, RenderJob, RenderRequest, look_of
from ernerf_ti.viewer.scale_control import ScaleControl
from ernerf_ti.viewer.state import ViewState
from ernerf_ti.viewer.training_session import TrainingSession

_TRAINING_VIEW_EVERY = 1.0  # s between images of a portrait in training


class PictureMaker:
    """Renders the images of a state, and reuses them while nothing changes.

    Args:
        trained: the portrait.
        training: set if the portrait is being trained.
        refine_seconds: of each :meth:`update`, for refining a still image.
        time: the wall clock, s.
    """

    def __init__(
        self,
        trained: TrainedPortrait,
        training: TrainingSession | None,
        refine_seconds: float,
        time: Callable[[], float],
    ):
        self.trained, self.training = trained, training
        width, height = trained.size
        self.scale_control = ScaleControl(width * height)
        self.view: RenderedView | None = None
        """The last rendered view."""
        self.n_pictures = 0
        """Number of different images so far."""
        self.frozen_frame = 0
        """Frame whose head pose is used when the state does not follow the capture."""
        self.next_training_view = 0.0
        self._refine_seconds, self._time = refine_seconds, time
        windows = silent_windows(trained)
        self._silence = audio_context(windows, len(windows) // 2)
        self._background: Tensor | None = None
        self._background_version = 0
        self._job: RenderJob | None = None
        self._wanted: RenderRequest | None = None
        self._picture: tuple[RenderedView, tuple[str, str], list[np.ndarray], str] | None = None
        self._edges: tuple[int, np.ndarray] | None = None

    def take_background(self, path: Path) -> None:
        """Read the image for background "picture"; raises as :func:`ernerf_ti.media.images.read_image`."""
        picture = cv2.resize(read_image(path)[..., :3], self.trained.size, interpolation=cv2.INTER_AREA)
        self._background = torch.from_numpy(picture).float().to(self.trained.background.device) / 255
        self._background_version += 1

    @property
    def has_background(self) -> bool:
        """Whether there is an image for background "picture"."""
        return self._background is not None

    def request(self, state: ViewState, clip: Clip, frame: int, scale: float = 1.0) -> RenderRequest:
        """The request to render a frame in a state."""
        eye = {"capture": clip.eye_closures, "natural": clip.natural_blinks}.get(state.eyes)
        width, height = self.trained.size
        return RenderRequest(
            clip,
            frame,
            self._pose_frame(state, frame),
            state.eye if eye is None else float(eye[frame]),
            state.audio,
            look_of(state),
            (max(2, round(width * scale)), max(2, round(height * scale))),
            self._background_version,
            self.weights_version,
            state.mode == "uncertainty",
            state.mode == "torso deformation",
            state.mode in ("audio attention", "eye attention"),
        )

    @property
    def weights_version(self) -> int:
        """Changes whenever the weights change."""
        return self.training.weights_version if self.training else 0

    @property
    def legend(self) -> str:
        """Meaning of the colors in the last images."""
        return self._picture[3] if self._picture is not None else ""

    def render(self, request: RenderRequest) -> RenderedView:
        """Render a request to the end."""
        job = RenderJob(self.trained, request, self._silence, self._background)
        job.advance()
        assert job.view is not None  # no time limit: the job is finished
        return job.view

    def head(self, request: RenderRequest) -> BoundHeadField:
        """The head field of a request."""
        return RenderJob(self.trained, request, self._silence, self._background).head

    def camera_path(self, state: ViewState, clip: Clip) -> Tensor:
        """[T, 4, 4] camera poses of a clip's frames, scene."""
        frames = range(len(clip))
        frame_poses = [head_pose(clip.poses[self._pose_frame(state, k)], state) for k in frames]
        return torch.stack([camera_pose(pose, state) for pose in frame_poses])

    def still(self, state: ViewState, clip: Clip, frame: int) -> np.ndarray:
        """[H, W, 3] uint8 of a frame at full resolution; with alpha, [H, W, 4], if there is no background."""
        view = self.render(self.request(state, clip, frame))
        if state.mode == "color" and state.background == "none":
            return transparent_picture(view)
        return self._of_mode(view, state.mode).image

    def update(self, state: ViewState, clip: Clip, frame: int, playing: bool, latency: float) -> None:
        """Bring the view up to date.

        Args:
            state: the settings.
            clip, frame: the frame to show.
            playing: whether the next frame follows; if not, the image is refined to full resolution.
            latency: total seconds that recent ticks took.
        """
        exact = self.request(state, clip, frame, 1.0 if state.auto_scale else state.scale)
        now = self._time()
        if state.training and self.view is not None:
            # Only the weights change, all the time: the time is better spent on training.
            same = replace(self.view.request, weights_version=exact.weights_version)
            if now < self.next_training_view and replace(same, size=exact.size) == exact:
                return
            self.next_training_view = now + _TRAINING_VIEW_EVERY
        shown = None if self.view is None else self.view.request
        if shown is not None and replace(shown, size=exact.size) == exact:
            if shown.size != exact.size and not playing:
                self._refine(exact)
            return
        self._job = None
        if not state.auto_scale:
            self.view = self.render(exact)
            return
        begin = perf_counter()
        self.view = self.render(self.request(state, clip, frame, self.scale_control.choose(state.target_rate)))
        if playing:
            width, height = self.view.request.size
            seconds = perf_counter() - begin
            around = max(0.0, latency - seconds)
            self.scale_control.observe(width * height, seconds, around)

    def _refine(self, exact: RenderRequest) -> None:
        """Render a still image at full resolution, in slices of time."""
        if self._job is None or self._wanted != exact:
            self._job, self._wanted = RenderJob(self.trained, exact, self._silence, self._background), exact
        if self._job.advance(self._refine_seconds):
            self.view, self._job = self._job.view, None

    def pictures(self, state: ViewState, clip: Clip) -> tuple[list[np.ndarray], str]:
        """Images [H, W, 3] uint8 to show side by side, and the meaning of their colors."""
        view, key = self.view, (state.mode, state.comparison)
        assert view is not None  # :meth:`update` has rendered one
        if self._picture is not None and self._picture[0] is view and self._picture[1] == key:
            return self._picture[2:]
        picture = self._of_mode(view, state.mode)
        title = f"{state.mode}: {picture.legend}" if picture.legend else ""
        pictures, legend = [picture.image], title
        if state.comparison != "off":
            pictures, legend = self._compared(view, picture.image, title or state.mode, state, clip)
        self._picture = (view, key, pictures, legend)
        self.n_pictures += 1
        return pictures, legend

    def _compared(
        self, view: RenderedView, image: np.ndarray, title: str, state: ViewState, clip: Clip
    ) -> tuple[list[np.ndarray], str]:
        if clip.true_frame is None:
            return [image], f"{title} | no true frame: needs the capture, playing its own audio (key o)"
        true = cv2.resize(clip.true_frame(view.request.frame), view.request.size, interpolation=cv2.INTER_AREA)
        difference = difference_picture(color_picture(view), true)
        legend = f"difference: {difference.legend}"
        if not (state.camera_is_captured and state.head == "capture"):
            legend += " (camera or head pose differs)"
        if state.comparison == "difference":
            return [difference.image], legend
        return [image, true, difference.image], f"{title} | true frame | {legend}"

    def _box_edges(self) -> np.ndarray:
        if self._edges is None or self._edges[0] != self.weights_version:
            self._edges = (self.weights_version, box_edges(self.trained.portrait.head_grid))
        return self._edges[1]

    def _of_mode(self, view: RenderedView, mode: str) -> Picture:
        return picture_of_mode(view, mode, self.trained.portrait.config.march.max_steps, self._box_edges)

    def _pose_frame(self, state: ViewState, k: int) -> int:
        return k if state.head == "capture" else self.frozen_frame
