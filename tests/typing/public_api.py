"""A program over the public API, checked by `mypy --disallow-untyped-calls`: every call is typed, and so is its result.

Nothing runs it; `assert_type` fails in the type checker.
"""

from pathlib import Path

import torch
from torch import Tensor
from typing_extensions import assert_type

import taichi_kernels as tk
from ernerf_ti.audio.extractors import extract_windows
from ernerf_ti.data.capture import Capture, open_capture
from ernerf_ti.media.sound import read_sound
from ernerf_ti.portrait.portrait import Portrait
from ernerf_ti.portrait.records import FrameInputs, RenderOutput
from ernerf_ti.run.trained_portrait import TrainedPortrait, load_portrait
from ernerf_ti.synthesis.options import SynthesisOptions
from ernerf_ti.synthesis.video import synthesize
from ernerf_ti.train.config import PRESETS, TrainConfig, default_preset
from ernerf_ti.train.trainer import Trainer
from taichi_kernels.compat.torch_ngp import install


def encodings(positions: Tensor, directions: Tensor) -> Tensor:
    config = tk.GridConfig(n_dims=3, n_levels=4, base_resolution=16, finest_resolution=64, log2_table_size=12)
    encoding = tk.GridEncoding(config)
    assert_type(config.n_outputs, int)
    features = assert_type(tk.grid_encode(positions, encoding.table, config), Tensor)
    harmonics = assert_type(tk.spherical_harmonics(directions, 4), Tensor)
    sines = assert_type(tk.frequency_encode(positions, 6), Tensor)
    return torch.cat((features, harmonics, sines), 1)


def rendering(rays_o: Tensor, rays_d: Tensor, density: Tensor) -> tk.CompositedRays:
    bitfield = assert_type(tk.pack_bits(tk.dilate_density(density), threshold=0.5), Tensor)
    assert_type(tk.cell_centers(64), Tensor)
    t_near, t_far = tk.intersect_aabb(rays_o, rays_d, (-1, -1, -1, 1, 1, 1))
    tk.intersect_aabb(rays_o, rays_d, rays_o.new_ones(6))
    samples = assert_type(tk.march_rays(rays_o, rays_d, t_near, t_far, bitfield, max_steps=16), tk.RaySamples)
    sigmas = assert_type(samples.positions, Tensor)[:, 0]
    return assert_type(
        tk.composite(sigmas, samples.deltas, samples.positions, None, samples.packed_info), tk.CompositedRays
    )


def training(folder: Path) -> bool:
    capture = assert_type(open_capture(folder), Capture)
    config = assert_type(PRESETS[default_preset("cpu")], TrainConfig)
    trainer = Trainer(capture, config, folder / "run")
    trainer.save()
    assert_type(trainer.portrait, Portrait)
    return assert_type(trainer.run(), bool)


def speech(run: Path, audio: Path, inputs: FrameInputs) -> list[Path]:
    trained = assert_type(load_portrait(run), TrainedPortrait)
    output = assert_type(trained.render(inputs, trained.background), RenderOutput)
    assert_type(output.rgb, Tensor)
    extract_windows(read_sound(audio, 16000), trained.extractor)
    return assert_type(synthesize(trained, SynthesisOptions(audio, Path("speaking.mp4"))), list[Path])


install("er-nerf")
