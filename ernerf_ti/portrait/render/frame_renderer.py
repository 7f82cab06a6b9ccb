"""Images of a portrait that are launched without waiting for the device, and checked when they are needed."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ernerf_ti.portrait.model.calls import Call, call_plainly, whole_call
from ernerf_ti.portrait.records import FrameInputs, RenderOutput
from ernerf_ti.portrait.render.frame import ImagePixels
from ernerf_ti.portrait.render.sample_capacity import SampleCapacity
from ernerf_ti.portrait.render.static_shapes import kernels_can_be_captured, static_shapes

if TYPE_CHECKING:
    from ernerf_ti.portrait.portrait import Portrait


class PendingFrame:
    """Rays whose rendering has been launched, and may still be running.

    Args:
        render: capacity for samples, or None -> RenderOutput of all rays. It is called at once, and again if there was
            too little room.
        most: the largest number of samples that the rays can have.
        capacity: the capacity, which is adapted to what is found; None to render without one.
    """

    def __init__(self, render: Callable[[int | None], RenderOutput], most: int, capacity: SampleCapacity | None):
        self._render, self._most, self._capacity = render, most, capacity
        self._size: int | None = None
        self._n_found: _NumberOnHost | None = None
        self._output = self._launch()

    def result(self) -> RenderOutput:
        """Wait for the rays. None of them lacks samples: if there was too little room, they are rendered again."""
        while self._n_found is not None:
            assert self._capacity is not None and self._size is not None
            n, self._n_found = self._n_found.get(), None
            self._capacity.fit(n)
            if n > self._size:
                self._output = self._launch()
        return self._output

    @torch.no_grad()
    def _launch(self) -> RenderOutput:
        if self._capacity is None:
            return self._render(None)
        self._size = self._capacity.size(self._most)
        output = self._render(self._size)
        assert output.n_found is not None
        self._n_found = _NumberOnHost(output.n_found)
        return output


class FrameRenderer:
    """Renders images of a portrait from one camera.

    Where shapes are fixed (see :mod:`ernerf_ti.portrait.render.static_shapes`) several images can be in flight:
    submitting one waits for nothing. Elsewhere an image is rendered when it is submitted.

    Args:
        portrait: what is rendered.
        intrinsics: fx, fy, cx, cy in pixels.
        size: width, height.
        device: that of the portrait.
    """

    def __init__(
        self,
        portrait: "Portrait",
        intrinsics: tuple[float, float, float, float],
        size: tuple[int, int],
        device: torch.device,
    ):
        self._portrait = portrait
        self.pixels = ImagePixels(intrinsics, size, device)
        """Those of the images."""

    def renders(
        self, intrinsics: tuple[float, float, float, float], size: tuple[int, int], device: torch.device
    ) -> bool:
        """Whether this is the renderer of a camera on a device."""
        return (self.pixels.intrinsics, self.pixels.size, self.pixels.device) == (intrinsics, size, device)

    @torch.no_grad()
    def submit(
        self,
        inputs: FrameInputs,
        background: Tensor | None = None,
        with_torso: bool = True,
        audio_code: Tensor | None = None,
        in_passes: bool = False,
        with_attention: bool = True,
    ) -> PendingFrame:
        """Launch the rendering of an image.

        Args:
            inputs: the frame's inputs, on the portrait's device.
            background: [H, W, 3] in [0, 1]; None for premultiplied color, to be composited over another image.
            with_torso: composite the head over the torso rather than over the background.
            audio_code: [A] replaces the encoded audio window.
            in_passes: sample as the public code does, which waits for the device after each pass.
            with_attention: False if nobody looks at the attention: on the CPU it is then None.

        Returns:
            A PendingFrame of the image, whose result is as of
            :func:`ernerf_ti.portrait.render.frame.render_portrait`. The inputs must not change before.

        Raises ValueError if the background has another size.
        """
        portrait, pixels, index = self._portrait, self.pixels, inputs.appearance_index
        call: Call = call_plainly
        with_attention = with_attention or static_shapes(pixels.device)
        if not in_passes and kernels_can_be_captured(pixels.device):
            call = whole_call(portrait.call)
            if isinstance(index, int):
                index = torch.full((1,), index, device=pixels.device)

        def render(capacity: int | None) -> RenderOutput:
            return call(
                *(portrait.image, inputs.audio_window, inputs.eye_closure, inputs.head_pose, inputs.torso_appearance),
                *(index, background, audio_code, inputs.dials),
                pixels=pixels,
                with_torso=with_torso,
                in_passes=in_passes,
                capacity=capacity,
                precision=portrait.precision,
                with_attention=with_attention,
            )

        n_rays = self.pixels.size[0] * self.pixels.size[1]
        capacity = None if in_passes else portrait.sample_capacity(n_rays)
        return PendingFrame(render, n_rays * portrait.config.march.max_steps, capacity)


class _NumberOnHost:
    """An integer on its way to the host, behind the work that has been launched so far."""

    def __init__(self, number: Tensor):
        self._number = number
        self._copied: torch.cuda.Event | None = None
        if number.is_cuda:
            self._number = torch.empty((), dtype=number.dtype, pin_memory=True)
            self._number.copy_(number, non_blocking=True)
            self._copied = torch.cuda.Event()
            self._copied.record()

    def get(self) -> int:
        if self._copied is not None:
            self._copied.synchronize()
        return int(self._number)
