"""Checkpoints and frames in the format of the public code, generated from its names and shapes."""

import numpy as np
import torch
from torch import Tensor

from ernerf_ti.audio.ready_made import save_windows
from ernerf_ti.data.synthetic.portrait_writers import write_portrait_capture
from ernerf_ti.data.synthetic.synthetic_portrait import SyntheticPortrait
from ernerf_ti.portrait.camera import all_pixels, pixel_coords, pixel_rays
from taichi_kernels import cell_centers, pack_bits
from tests.reference.official_frame import PLANE, TORSO, render_frame, training_pass

BOX = [-1.0, -0.5, -1.0, 1.0, 0.5, 1.0]
BUFFERS = ("aabb_", "density_", "step_counter")
FRAMES = 64
"""Rows of appearance embeddings, in place of 10,000."""


def shapes(features: int = 29, torso: bool = True, embeddings: int = FRAMES) -> dict[str, tuple[int, ...]]:
    """Of every tensor of an ngp.pth, in the natural order of its keys."""
    named = {"individual_codes": (embeddings, 4)}
    if torso:
        named |= {"individual_codes_torso": (embeddings, 8), "anchor_points": (3, 4)}
    named |= {"aabb_train": (6,), "aabb_infer": (6,), "density_bitfield": (262144,)}
    if torso:
        named["density_grid_torso"] = (16384,)
    named["step_counter"] = (16, 2)
    for i, (n_out, n_in) in enumerate([(32, features), (32, 32), (64, 32), (64, 64)]):
        named |= {f"audio_net.encoder_conv.{2 * i}.weight": (n_out, n_in, 3)}
        named |= {f"audio_net.encoder_conv.{2 * i}.bias": (n_out,)}
    for i, n_out in ((0, 64), (2, 32)):
        named |= {f"audio_net.encoder_fc1.{i}.weight": (n_out, 64), f"audio_net.encoder_fc1.{i}.bias": (n_out,)}
    for i, (n_out, n_in) in enumerate([(16, 32), (8, 16), (4, 8), (2, 4), (1, 2)]):
        named |= {f"audio_att_net.attentionConvNet.{2 * i}.weight": (n_out, n_in, 3)}
        named |= {f"audio_att_net.attentionConvNet.{2 * i}.bias": (n_out,)}
    named |= {"audio_att_net.attentionNet.0.weight": (8, 8), "audio_att_net.attentionNet.0.bias": (8,)}
    for plane in ("xy", "yz", "xz"):
        named |= {f"encoder_{plane}.embeddings": (163584, 1), f"encoder_{plane}.offsets": (13,)}
    networks = {
        "eye_att_net": [(16, 36), (1, 16)],
        "sigma_net": [(64, 69), (64, 64), (65, 64)],
        "color_net": [(64, 84), (3, 64)],
        "unc_net": [(32, 36), (1, 32)],
        "aud_ch_att_net": [(64, 36), (32, 64)],
    }
    if torso:
        networks |= {"torso_deform_net": [(32, 84), (32, 32), (2, 32)]}
    for network, layers in networks.items():
        named |= {f"{network}.net.{i}.weight": shape for i, shape in enumerate(layers)}
    if torso:
        named |= {"torso_encoder.embeddings": (555520, 2), "torso_encoder.offsets": (17,)}
        named |= {f"torso_net.net.{i}.weight": s for i, s in enumerate([(32, 116), (32, 32), (4, 32)])}
    return named


def random_tensors(seed: int, features: int = 29, torso: bool = True, embeddings: int = FRAMES) -> dict[str, Tensor]:
    """Strong tables and densities, so that the picture is not empty, in a ball of occupied cells."""
    generator = torch.Generator().manual_seed(seed)
    made = {}
    for name, shape in shapes(features, torso, embeddings).items():
        if name.endswith(("embeddings", "individual_codes", "individual_codes_torso")):
            made[name] = torch.randn(shape, generator=generator) * 0.5
        elif not name.startswith(BUFFERS) and not name.endswith("offsets"):
            fan_in = shape[-1] * (shape[1] if len(shape) == 3 else 1) if len(shape) > 1 else 64
            made[name] = (torch.rand(shape, generator=generator) * 2 - 1) * fan_in**-0.5
    made["sigma_net.net.2.weight"][0] *= 20
    made |= {"aabb_train": torch.tensor(BOX), "aabb_infer": torch.tensor(BOX)}
    centers = cell_centers(128)
    made["density_bitfield"] = pack_bits((centers.norm(dim=1) < 0.45).float()[None], 0.5)
    made["step_counter"] = torch.randint(0, 9000, (16, 2), dtype=torch.int32, generator=generator)
    made |= {f"encoder_{p}.offsets": torch.tensor(PLANE.level_offsets, dtype=torch.int32) for p in ("xy", "yz", "xz")}
    if torso:
        starts = torch.tensor([[0.01, 0.01, 0.1, 1], [-0.1, -0.1, 0.1, 1], [0.1, -0.1, 0.1, 1]])
        made["anchor_points"] = starts + torch.randn(3, 4, generator=generator) * 0.02
        made["density_grid_torso"] = (torch.rand(16384, generator=generator) - 0.5).clamp(min=0)
        made["torso_encoder.offsets"] = torch.tensor(TORSO.level_offsets, dtype=torch.int32)
    return {name: made[name] for name in shapes(features, torso, embeddings)}


def entries(torso: bool = True) -> dict:
    """What an ngp.pth holds beside its tensors."""
    stats = {"loss": [0.5], "valid_loss": [], "results": [0.25], "checkpoints": ["a.pth"], "best_result": None}
    means = {"mean_count": 12345, "mean_density": 0.75, "mean_density_torso": 0.0078125 if torso else 0}
    return {"epoch": 3, "global_step": 120, "stats": stats, **means}


def save(path, tensors, bare=False, **more):
    torch.save(tensors if bare else {**entries("anchor_points" in tensors), **more, "model": tensors}, path)
    return path


def frame_inputs(seed: int, features: int, steps: int, side: int = 16) -> dict[str, Tensor]:
    """A camera before the face, a little to its side, and what a frame says."""
    generator = torch.Generator().manual_seed(seed)
    turn, _ = torch.linalg.qr(torch.eye(3) + 0.1 * torch.randn(3, 3, generator=generator))
    turn = turn * turn.diagonal().sign()
    pose = torch.eye(4)
    pose[:3, :3] = turn @ torch.tensor([[0.0, -1, 0], [0, 0, -1], [1, 0, 0]])
    pose[:3, 3] = turn @ torch.tensor([0.0, 3.2, 0.0])
    intrinsics = torch.tensor([side * 3.0, side * 3.1, side / 2, side / 2 + 1], dtype=torch.float64)
    pixels = all_pixels(side, side)
    rays_o, rays_d = pixel_rays(pose, tuple(intrinsics.tolist()), pixels)
    return {
        "pose": pose[None],
        "intrinsics": intrinsics,
        "auds": torch.randn(8, features, steps, generator=generator),
        "eye": torch.rand(1, 1, generator=generator),
        "bg": torch.rand(side, side, 3, generator=generator),
        "bg_coords": pixel_coords(pixels, side, side)[None],
        "rays_o": rays_o[None],
        "rays_d": rays_d[None],
        "index": torch.tensor(7),
        "train_gt": torch.rand(1, side * side, 3, generator=generator),
    }


def official_frame(tensors: dict[str, Tensor], inputs: dict[str, Tensor], mean_density_torso: float = 0.0078125):
    """Arrays of a frame.npz, computed in float64, stored as the public code's numbers are, in float32."""
    torso = "anchor_points" in tensors
    exact = {
        name: t.double().requires_grad_(not torso and not name.startswith(BUFFERS)) if t.dtype == torch.float32 else t
        for name, t in tensors.items()
    }
    with torch.no_grad():
        picture = render_frame(exact, inputs, mean_density_torso)
    results = {f"{'torso' if torso else 'head'}_{name}": values for name, values in picture.items()}
    if not torso:
        results |= training_pass(exact, inputs)
        results["grad/individual_codes"] = results["grad/individual_codes"][:16]
    stored = {name: t.detach() for name, t in (inputs | results).items()}
    keep = ("intrinsics", "train_loss")
    return {n: (t.float() if t.dtype == torch.float64 and n not in keep else t).numpy() for n, t in stored.items()}


def write_capture(folder):
    """Twelve frames of a synthetic person, with DeepSpeech features as well."""
    write_portrait_capture(SyntheticPortrait(12, 32, seed=4), folder)
    save_windows(folder, "deepspeech", np.random.default_rng(0).standard_normal((12, 16, 29)))
    return folder


def write_frame(path, arrays: dict[str, np.ndarray]):
    np.savez(path, **arrays)
    return path
