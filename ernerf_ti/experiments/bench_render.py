"""Time rendering and training of a portrait, part by part.

Each figure is the median of several frames or steps, in milliseconds. The parts of a frame are timed separately, on
the samples that the frame evaluates; the frame itself is timed as a whole, and waited for. On the CPU, where a frame
takes another path than training, :mod:`ernerf_ti.experiments.bench_frame` times its parts. Frames per second are those
of frames in a row: rendered only, copied to the host as 8-bit images, and encoded into an .mp4, all as synthesis does
it. They are given for the portrait (head over torso over background) and for the head alone.
"""

import contextlib
import dataclasses
import platform
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter

import cv2
import numpy as np
import torch

import taichi_kernels as tk
from ernerf_ti.data.capture import open_capture
from ernerf_ti.data.capture_files import FPS
from ernerf_ti.experiments.bench_frame import time_cpu_frame
from ernerf_ti.media.video_writer import write_video
from ernerf_ti.portrait.camera import all_pixels, pixel_coords, pixel_rays
from ernerf_ti.portrait.records import FrameInputs, RenderOutput, TorsoLayer
from ernerf_ti.portrait.render.torso import render_torso
from ernerf_ti.process.graphs import STEADY_AFTER, cuda_graphs
from ernerf_ti.process.precision import Precision, resolve_precision
from ernerf_ti.run.checkpoint import load_checkpoint
from ernerf_ti.run.folder import RunFolder
from ernerf_ti.run.serialization import config_from_dict
from ernerf_ti.run.trained_portrait import TrainedPortrait, load_portrait
from ernerf_ti.synthesis.frames import render_frames
from ernerf_ti.synthesis.images import color_image, picture_of
from ernerf_ti.synthesis.pipeline import images_ahead, images_on_host
from ernerf_ti.train.config import STAGES, TrainConfig
from ernerf_ti.train.trainer import Trainer

_FRAMES_IN_A_ROW = {"cpu": 10, "cuda": 100}  # at least, for frames per second


def run(
    run: Path, capture: Path | None, sizes: tuple[int, ...], n: int, device: str, precision: Precision = "auto"
) -> dict[str, dict[str, float] | dict[str, str]]:
    """Figures by title: the machine, a frame of each size, and a training step if there is a capture.

    Args:
        run: a run folder, or a checkpoint.
        capture: capture of the run, to time training steps on.
        sizes: widths and heights in pixels.
        n: frames or steps of which a figure is the median.
        device: where they are computed.
        precision: format in which the networks are evaluated.

    Raises:
        OSError, ValueError: as :func:`load_portrait` and :func:`open_capture`.
    """
    dtype = resolve_precision(precision, device)
    trained = load_portrait(run, device, dtype, cuda_graphs("auto", device, partial(print, file=sys.stderr), dtype))
    machine = _machine(device) | {"precision": str(dtype).removeprefix("torch.")}
    figures: dict[str, dict[str, float] | dict[str, str]] = {"machine": machine}
    for size in sizes:
        figures[f"{size} x {size}"] = time_frames(resized(trained, size), n)
    if capture is not None:
        figures["training step"] = time_steps(capture, run, n, device, precision)
    return figures


def resized(trained: TrainedPortrait, size: int) -> TrainedPortrait:
    """The portrait seen by a camera of another resolution, `size` pixels wide and high."""
    scale = size / trained.size[0]
    fx, fy, cx, cy = trained.intrinsics
    background = cv2.resize(trained.background.cpu().numpy(), (size, size), interpolation=cv2.INTER_LINEAR)
    return dataclasses.replace(
        trained,
        size=(size, size),
        intrinsics=(fx * scale, fy * scale, cx * scale, cy * scale),
        background=torch.from_numpy(background).to(trained.background.device),
    )


@torch.no_grad()
def time_frames(trained: TrainedPortrait, n: int) -> dict[str, float]:
    """Milliseconds per part of a frame, and frames per second in a row."""
    portrait, device, size = trained.portrait, trained.background.device, trained.size
    pixels = all_pixels(size[1], size[0], device)
    window = torch.zeros(8, trained.feature_dimension, 16, device=device)
    inputs = FrameInputs(window, trained.eye_closures[:1].float(), None, trained.poses[0])
    rays_o, rays_d = pixel_rays(inputs.head_pose, trained.intrinsics, pixels)
    grid, march = portrait.head_grid, portrait.config.march
    field = portrait.head.bind(inputs, with_uncertainty=False, call=portrait.call)

    def marched() -> tk.RaySamples:
        t_near, t_far = tk.intersect_aabb(rays_o, rays_d, grid.aabb, march.min_near)
        return tk.march_rays(
            *(rays_o, rays_d, t_near, t_far, grid.bitfield, grid.config.bound),
            max_steps=march.max_steps,
            dt_gamma=march.dt_gamma,
        )

    samples = marched()
    # The frame evaluates only some of the marched samples: those in front of opaque ones.
    whole = portrait.render(inputs, trained.intrinsics, size, trained.background)
    n_evaluated = int(whole.n_samples.sum())
    positions, directions = samples.positions[:n_evaluated], samples.directions[:n_evaluated]
    output = field(samples.positions, samples.directions)
    weighted = torch.cat((output.rgbs, samples.ts[:, None]), 1)

    def torso(coords: torch.Tensor) -> TorsoLayer:
        return portrait.torso(coords, inputs.head_pose, None, portrait.call)

    coords = pixel_coords(pixels, size[1], size[0])
    parts: dict[str, Callable] = {
        "audio encoder": partial(portrait.head.audio_encoder, window),
        "march": marched,
        "position encoder": partial(_in_chunks, portrait.head.position_encoder, positions),
        "field (encoder and networks)": partial(_in_chunks, field, positions, directions),
        "composite": partial(tk.composite, output.sigmas, samples.deltas, weighted, None, samples.packed_info),
        "torso": partial(render_torso, torso, portrait.torso_grid, coords, trained.background.view(-1, 3)),
        "frame": partial(portrait.render, inputs, trained.intrinsics, size, trained.background),
    }
    figures = {name: _milliseconds(part, n, device) for name, part in parts.items()}
    if device.type == "cpu":
        figures |= time_cpu_frame(trained, inputs, n)
    n_in_a_row = max(n, _FRAMES_IN_A_ROW[device.type])
    figures["encode video"] = _encoding_milliseconds(picture_of(whole), n_in_a_row)
    figures["samples per ray"] = n_evaluated / len(rays_o)
    return figures | _rates(trained, n_in_a_row)


def time_steps(capture: Path, run: Path, n: int, device: str, precision: Precision = "auto") -> dict[str, float]:
    """Milliseconds per training step of each stage, starting from the weights of the run."""
    opened, figures = open_capture(capture), {}
    with tempfile.TemporaryDirectory() as folder:
        path = RunFolder.find(run).checkpoint
        config = config_from_dict(TrainConfig, load_checkpoint(path, device)["train_config"])
        trainer = Trainer(opened, dataclasses.replace(config, precision=precision), Path(folder), device)
        trainer.portrait.load_state_dict(load_portrait(run, device).portrait.state_dict())
        for stage in STAGES:
            if getattr(trainer.config, stage).iterations:
                trainer.start_stage(stage)
                trainer.step = 1  # step 0 updates the occupancy grid, which most steps do not
                trainer.train_step()
                trainer.stages[stage].adjust()  # as after the first log line
                figures[stage] = _milliseconds(trainer.train_step, n, torch.device(device))
    return figures


def _encoding_milliseconds(picture: np.ndarray, n: int) -> float:
    """Per frame of a video of n."""
    with tempfile.TemporaryDirectory() as folder:
        start = perf_counter()
        write_video(Path(folder) / "encoding.mp4", [picture] * n, FPS)
        return 1000 * (perf_counter() - start) / n


def _rates(trained: TrainedPortrait, n: int) -> dict[str, float]:
    """Frames per second of n frames in a row, as synthesis renders, copies and encodes them."""
    device = trained.background.device

    def frames(with_torso: bool) -> Iterator[RenderOutput]:
        windows = torch.zeros(n, 16, trained.feature_dimension)
        poses = trained.poses[:1].expand(n, 4, 4)
        # Without a torso nothing is behind the head.
        return render_frames(
            trained, windows, poses, np.zeros(n), trained.background if with_torso else None, with_torso
        )

    def rendered(with_torso: bool) -> None:
        deque(frames(with_torso), maxlen=0)
        if device.type == "cuda":
            torch.cuda.synchronize()

    def on_the_host(with_torso: bool) -> None:
        deque(images_on_host(frames(with_torso), [color_image], device), maxlen=0)

    def in_a_file(with_torso: bool) -> None:
        pictures = images_ahead(frames(with_torso), [color_image], device)
        with tempfile.TemporaryDirectory() as folder, contextlib.closing(pictures):
            write_video(Path(folder) / "synthesis.mp4", (color for (color,) in pictures), FPS)

    figures = {}
    for layers, with_torso in (("portrait", True), ("head alone", False)):
        for what, work in (
            ("rendering only", rendered),
            ("uint8 on the host", on_the_host),
            ("into an mp4", in_a_file),
        ):
            start = perf_counter()
            work(with_torso)
            figures[f"frames/s, {layers}, {what}"] = n / (perf_counter() - start)
    return figures


def _in_chunks(function: Callable, *tensors: torch.Tensor) -> None:
    """Call a function on as many samples at once as the renderer does."""
    at_once = 2**14 if tensors[0].device.type == "cpu" else len(tensors[0])
    for start in range(0, len(tensors[0]), max(1, at_once)):
        function(*(tensor[start : start + at_once] for tensor in tensors))


def _milliseconds(function: Callable, n: int, device: torch.device) -> float:
    times = []
    # The first call compiles kernels, and on CUDA one of the following records graphs.
    n_first = STEADY_AFTER + 1 if device.type == "cuda" else 1
    for _ in range(n_first + n):
        start = perf_counter()
        function()
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(1000 * (perf_counter() - start))
    return median(times[n_first:])


def _machine(device: str) -> dict[str, str]:
    name = torch.cuda.get_device_name() if device.startswith("cuda") else f"{platform.machine()} CPU"
    return {"device": name, "torch": torch.__version__, "threads": str(torch.get_num_threads())}
