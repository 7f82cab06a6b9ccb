"""One image of the portrait, rendered in chunks of rows so that a window stays responsive."""

from dataclasses import dataclass, replace
from functools import partial
from time import perf_counter
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ernerf_ti.audio.context import audio_context
from ernerf_ti.portrait.camera import all_pixels, pixel_rays
from ernerf_ti.portrait.records import FrameInputs, RenderOutput
from ernerf_ti.portrait.render.frame_renderer import PendingFrame
from ernerf_ti.portrait.render.layers import TorsoScene, render_layers
from ernerf_ti.portrait.render.static_shapes import static_shapes
from ernerf_ti.run.trained_portrait import TrainedPortrait
from ernerf_ti.viewer.camera_control import Intrinsics, camera_pose, head_pose, layer_coords, view_intrinsics
from ernerf_ti.viewer.clip import Clip
from ernerf_ti.viewer.state import DIALS, ViewState

_CHUNK_PIXELS = 2**14


@dataclass(frozen=True)
class RenderRequest:
    """Everything an image depends on; equal requests give the same image."""

    clip: Clip
    frame: int
    pose_frame: int
    """Frame whose head pose is used."""
    eye: float
    audio: bool
    look: ViewState
    """The settings that change the image, see :func:`look_of`."""
    size: tuple[int, int]
    """Width, height in pixels."""
    background_version: int
    weights_version: int
    with_uncertainty: bool = False
    with_torso_offset: bool = False
    with_attention: bool = False


@dataclass
class RenderedView:
    """A finished image with what it was made from."""

    request: RenderRequest
    output: RenderOutput
    """[H, W]; opacity is that of head and torso together."""
    head_opacity: Tensor
    """[H, W]."""
    torso_offset: Tensor | None
    """[H, W, 2] deformation of the torso's coordinates in units of half the image, vertical first; 0 outside it."""
    rays_d: Tensor
    """[H, W, 3] unit directions, scene."""
    pose: Tensor
    """[4, 4] of the viewer's camera."""
    intrinsics: Intrinsics
    seconds: dict[str, float]
    """By stage."""


_LOOK = (
    *("yaw", "pitch", "distance", "pan_x", "pan_y", "field_of_view", "head", "head_yaw", "head_pitch"),
    *("torso", "background", "color", "appearance", "mouth_gain", *DIALS),
)


def look_of(state: ViewState) -> ViewState:
    """The state with every setting that changes no image at its default."""
    plain = ViewState(state.captured_field_of_view, state.n_embeddings)
    return replace(plain, **{name: getattr(state, name) for name in _LOOK})


class RenderJob:
    """Renders the image of a request.

    Args:
        trained: portrait to render.
        request: what to render.
        silence: [8, C, steps] audio windows for a mouth that does not follow the audio.
        picture: [H, W, 3] in [0, 1], the background for "picture".
    """

    @torch.no_grad()
    def __init__(self, trained: TrainedPortrait, request: RenderRequest, silence: Tensor, picture: Tensor | None):
        self._laps = _Laps(trained.background.device)
        self._trained, self._request = trained, request
        clip, look, device = request.clip, request.look, trained.background.device
        width, height = request.size
        self._frame_pose = head_pose(clip.poses[request.pose_frame].to(device), look)
        self._pose = camera_pose(self._frame_pose, look)
        self._intrinsics = view_intrinsics(trained.intrinsics, trained.size, look, request.size)
        window = silence
        if request.audio:
            window = audio_context(clip.windows, request.frame, silent_ends=trained.as_published)
        dials = {name: getattr(look, setting) for setting, name in DIALS.items() if name in trained.dial_names}
        self._inputs = FrameInputs(
            window.to(device),
            torch.tensor([request.eye], dtype=torch.float32, device=device),
            trained.appearance_index if look.appearance < 0 else look.appearance,
            self._frame_pose,
            dials=trained.dials(dials if any(dials.values()) else {}),
        )
        self._torso_appearance: Tensor | int = look.appearance
        if look.appearance < 0:
            self._torso_appearance = trained.torso_appearance(
                self._frame_pose, float(clip.pose_indices[request.pose_frame])
            )
        portrait = trained.portrait
        encoder, with_attention = portrait.head.audio_encoder, request.with_attention or static_shapes(device)
        code = encoder.adjust(portrait.call(encoder.encode, self._inputs.audio_window), look.mouth_gain)
        self.head = portrait.head.bind(self._inputs, request.with_uncertainty, code, portrait.call, with_attention)
        """The head's field of the frame."""
        self._backdrop = {"capture": trained.background, "picture": picture}.get(look.background)
        self._pixels = all_pixels(height, width, device)
        rows = max(1, _CHUNK_PIXELS // width) if device.type == "cpu" else height
        self._chunks = list(self._pixels.split(rows * width))
        self._rendered: list[tuple] = []
        self.view: RenderedView | None = None
        self._laps.end("audio")

    @torch.no_grad()
    def advance(self, seconds: float = float("inf")) -> bool:
        """Render for about `seconds`, one chunk at least; returns whether the image is finished."""
        until = perf_counter() + seconds
        while self.view is None:
            self._rendered.append(self._render_chunk(self._chunks[len(self._rendered)]))
            if len(self._rendered) == len(self._chunks):
                self._finish()
            if perf_counter() >= until:
                break
        return self.view is not None

    def _render_chunk(self, pixels: Tensor) -> tuple:
        trained, look = self._trained, self._request.look
        self._laps.begin()
        rays_o, rays_d = pixel_rays(self._pose, self._intrinsics, pixels)
        coords = layer_coords(rays_o, rays_d, self._frame_pose, trained.intrinsics, trained.size)
        behind = self._behind(coords)
        self._laps.end("rays")
        torso = offset = None
        if look.torso:
            portrait, appearance = trained.portrait, self._torso_appearance
            field = partial(
                portrait.torso, head_pose=self._frame_pose, appearance=appearance, call=portrait.call, for_image=True
            )
            torso = TorsoScene(field, portrait.torso_grid, coords)
            if self._request.with_torso_offset:
                layer = field(coords.clamp(-1, 1))
                covered = (layer.alpha > 0.5) & (coords.abs() <= 1).all(1)
                offset = layer.offset * covered[:, None] / trained.portrait.config.torso.shrink

        march, n_rays = trained.portrait.config.march, len(rays_o)

        def render(capacity: int | None) -> RenderOutput:
            return render_layers(
                *(self.head, trained.portrait.head_grid, rays_o, rays_d, march, behind, torso),
                after_layer=self._laps.end,
                capacity=capacity,
            )

        capacity = trained.portrait.sample_capacity(n_rays)
        return PendingFrame(render, n_rays * march.max_steps, capacity).result(), offset, rays_d

    def _behind(self, coords: Tensor) -> Tensor | None:
        """[N, 3] background at coordinates of the layer, repeating its edges outside; None for none."""
        look = self._request.look
        if look.background == "color":
            return coords.new_tensor(look.color).expand(len(coords), 3)
        if self._backdrop is None:
            return None
        image = self._backdrop.permute(2, 0, 1)[None]
        grid = coords.flip(1).clamp(-2, 2)[None, None]
        sampled = F.grid_sample(image, grid, padding_mode="border", align_corners=True)
        return sampled[0, :, 0].t().contiguous()

    def _finish(self) -> None:
        width, height = self._request.size
        outputs, offsets, rays_d = zip(*self._rendered, strict=True)

        def image(values: Tensor) -> Tensor:
            return values.view(height, width, *values.shape[1:])

        output = RenderOutput.concatenate(list(outputs)).map(image)
        self.view = RenderedView(
            self._request,
            output,
            output.opacity if output.head_opacity is None else output.head_opacity,
            None if offsets[0] is None else image(torch.cat(offsets)),
            image(torch.cat(rays_d)),
            *(self._pose, self._intrinsics, self._laps.seconds()),
        )


class _Laps:
    """Measures the stages of an image, on CUDA without waiting between them."""

    def __init__(self, device: torch.device):
        self._is_cuda = device.type == "cuda"
        self._laps: list[tuple[str, Any, Any]] = []
        self.begin()

    def begin(self) -> None:
        """Begin the next stage, leaving out the time since the last one."""
        self._last = self._now()

    def end(self, stage: str) -> None:
        """End a stage, and begin the next one."""
        now = self._now()
        self._laps.append((stage, self._last, now))
        self._last = now

    def seconds(self) -> dict[str, float]:
        """By stage; waits for the end of the last one."""
        seconds = {"audio": 0.0, "rays": 0.0, "torso": 0.0, "head": 0.0}
        if self._is_cuda:
            self._last.synchronize()
        for stage, begin, end in self._laps:
            seconds[stage] += begin.elapsed_time(end) / 1000 if self._is_cuda else end - begin
        return seconds

    def _now(self) -> Any:
        if not self._is_cuda:
            return perf_counter()
        now = torch.cuda.Event(enable_timing=True)
        now.record()
        return now
