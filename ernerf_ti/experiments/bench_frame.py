"""A frame on the CPU, part by part, and in turn with the path that training takes.

The parts are those of :func:`ernerf_ti.portrait.render.head_passes.render_head_in_parts` on the samples of a frame:
what is left of the head's time is spent between them. Milliseconds of the wall are medians; milliseconds of the CPU,
all threads together, tell more on a machine that does other work too.
"""

from collections.abc import Callable
from functools import partial
from statistics import median
from time import perf_counter, process_time

import torch
from torch import Tensor

import taichi_kernels as tk
from ernerf_ti.portrait.records import FrameInputs, RenderOutput, TorsoLayer
from ernerf_ti.portrait.render.frame import ImagePixels, render_portrait
from ernerf_ti.portrait.render.head import render_head_in_chunks
from ernerf_ti.portrait.render.head_passes import SAMPLES_PER_PART, ray_march
from ernerf_ti.portrait.render.sample_evaluation import Field
from ernerf_ti.portrait.render.torso import render_torso
from ernerf_ti.run.trained_portrait import TrainedPortrait


@torch.no_grad()
def time_cpu_frame(trained: TrainedPortrait, inputs: FrameInputs, n: int) -> dict[str, float]:
    """Figures of a frame from the capture's camera by names.

    Args:
        trained: the portrait, on the CPU.
        inputs: of the frame.
        n: repetitions of which a figure is the median.
    """
    parts = _parts(trained, inputs)
    figures = {}
    for name, part in parts.items():
        wall, cpu, _ = _in_turn([part], n)[0]
        figures[f"frame on the CPU, {name}"] = wall
        figures[f"frame on the CPU, {name}, CPU time"] = cpu
    before, now = _in_turn([partial(_frame, trained, inputs, as_in_training=x) for x in (True, False)], n)
    for name, (wall, cpu, _) in (("as in training", before), ("in passes", now)):
        figures[f"frame on the CPU, whole, {name}"] = wall
        figures[f"frame on the CPU, whole, {name}, CPU time"] = cpu
    figures["frame on the CPU, times faster, CPU time"] = before[1] / now[1]
    assert isinstance(before[2], RenderOutput) and isinstance(now[2], RenderOutput)
    error = (before[2].rgb - now[2].rgb).square().mean().clamp(min=1e-20)
    figures["frame on the CPU, PSNR between both"] = float(-10 * error.log10())
    return figures


def _frame(trained: TrainedPortrait, inputs: FrameInputs, as_in_training: bool) -> RenderOutput:
    portrait = trained.portrait
    bound = portrait.head.bind(inputs, with_uncertainty=False, with_attention=False)
    # To the renderer the bound method is a field like any other, which it renders as training does.
    head: Field = bound.__call__ if as_in_training else bound

    def torso(coords: Tensor) -> TorsoLayer:
        return portrait.torso(coords, inputs.head_pose, inputs.torso_appearance, for_image=not as_in_training)

    return render_portrait(
        *(head, portrait.head_grid, inputs.head_pose, _pixels(trained), portrait.config.march, trained.background),
        torso=torso,
        torso_grid=portrait.torso_grid,
    )


def _pixels(trained: TrainedPortrait) -> ImagePixels:
    # The renderer of the portrait keeps them, with what does not depend on the pose.
    return trained.portrait.renderer(trained.intrinsics, trained.size).pixels


def _parts(trained: TrainedPortrait, inputs: FrameInputs) -> dict[str, Callable[[], object]]:
    portrait, pixels = trained.portrait, _pixels(trained)
    head, grid, config = portrait.head, portrait.head_grid, portrait.config.march
    field = head.bind(inputs, with_uncertainty=False, with_attention=False)
    rays_o, rays_d = pixels.rays(inputs.head_pose)
    background = trained.background.view(-1, 3)
    networks, encode, degree = field.folded(), head.position_encoder.for_images(), head.config.direction_degree
    n_part = config.samples_per_chunk or SAMPLES_PER_PART
    memory = rays_o.new_empty(head.position_encoder.n_outputs * n_part)

    # The samples and values of each pass, as the frame has them.
    march, sums = ray_march(grid, rays_o, rays_d, config), tk.RaySums.begin(rays_o)
    passes: list[tuple[tk.PassSamples, Tensor]] = []
    rays, n_passed = torch.arange(len(rays_o), dtype=torch.int32), 0
    features: list[Tensor] = []
    harmonics: list[Tensor] = []
    while len(rays) and n_passed < config.max_steps:
        samples = march.take(rays, config.samples_per_pass)
        values = rays_o.new_empty(networks.n_values, len(samples.directions))
        for part in range(0, values.shape[1], n_part):
            rows = slice(part, part + n_part)
            features.append(encode(samples.positions[rows], memory).t().clone().t())
            harmonics.append(tk.spherical_harmonics(samples.directions[rows], degree))
            networks(features[-1], harmonics[-1], values[:, rows])
        passes.append((samples, values))
        rays = rays[tk.blend_samples_(sums, values, samples, config.T_threshold)]
        n_passed += config.samples_per_pass

    def marching() -> None:
        again = ray_march(grid, rays_o, rays_d, config)
        for samples, _ in passes:
            again.take(samples.rays, config.samples_per_pass)

    def positions() -> None:
        for samples, _ in passes:
            for part in samples.positions.split(n_part):
                encode(part, memory)

    def directions() -> None:
        for samples, _ in passes:
            for part in samples.directions.split(n_part):
                tk.spherical_harmonics(part, degree)

    out = rays_o.new_empty(networks.n_values * n_part)

    def evaluating() -> None:
        for x, d in zip(features, harmonics, strict=True):
            networks(x, d, out[: networks.n_values * len(x)].view(-1, len(x)))

    def blending() -> None:
        new = tk.RaySums.begin(rays_o)
        for samples, values in passes:
            tk.blend_samples_(new, values, samples, config.T_threshold)

    def torso(coords: Tensor) -> TorsoLayer:
        return portrait.torso(coords, inputs.head_pose, inputs.torso_appearance, for_image=True)

    return {
        "rays": partial(pixels.rays, inputs.head_pose),
        "audio encoder": partial(head.audio_encoder, inputs.audio_window),
        "folding the networks": field.folded,
        "march": marching,
        "position encoder": positions,
        "direction encoder": directions,
        "networks": evaluating,
        "blending": blending,
        "head": partial(render_head_in_chunks, field, grid, rays_o, rays_d, config, background),
        "torso": partial(render_torso, torso, portrait.torso_grid, pixels.coords, background),
    }


def _in_turn(functions: list[Callable[[], object]], n: int) -> list[tuple[float, float, object]]:
    """Median milliseconds of wall and CPU, and the last result, of functions that are called in turn."""
    times: list[list[tuple[float, float]]] = [[] for _ in functions]
    results: list[object] = [None] * len(functions)
    for repetition in range(1 + n):
        for i, function in enumerate(functions):
            wall, cpu = perf_counter(), process_time()
            results[i] = function()
            if repetition:  # the first call compiles kernels
                times[i].append((1000 * (perf_counter() - wall), 1000 * (process_time() - cpu)))
    return [
        (median(wall for wall, _ in row), median(cpu for _, cpu in row), result)
        for row, result in zip(times, results, strict=True)
    ]
