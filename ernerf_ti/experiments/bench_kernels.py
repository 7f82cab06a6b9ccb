"""Time each kernel and its plain-torch twin side by side, after checking that they agree.

Both are run in turn, and the best time of each counts. "limit" is the time that this machine needs to
move the op's inputs and outputs through memory once, or to gather its table entries at random from a
table of the size of a level, whichever is longer, from rates measured in the same run; "of limit" is the
fraction of our time that this makes up.

The march is compared ray by ray. Where rays enter a box whose face is a face of cells, as here, rounding decides in
which cell their first lattice point lies, and so whether it is a sample: by fused multiply-adds in the kernel on CUDA,
without them in the twin. Rays with the same samples must agree closely; the number of the others is reported.
"""

import functools
import math
import os
import platform
import subprocess
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

import taichi_kernels as tk
from taichi_kernels import reference, runtime

ROOT = Path(__file__).resolve().parents[2]

BOX = (-1.0, -0.5, -1.0, 1.0, 0.5, 1.0)


@dataclass
class Case:
    """One op on one set of inputs."""

    name: str
    size: str
    op: Callable
    twin: Callable
    inputs: list[Tensor]
    gathers: int = 0
    """Table entries that the forward pass reads; the backward pass reads and writes as many."""
    level_entries: int = 1 << 14
    """Entries of the largest level that they are read from, which decides the cache that serves them."""
    tolerance: float = 1e-3
    """Largest relative L2 difference to the twin."""
    most_rays_apart: float | None = None
    """Compare samples of rays, and leave out those with other samples than the twin's, at most this fraction."""


@dataclass
class Row:
    """Times in ms, best of the repeats; None where there is no backward."""

    name: str
    size: str
    difference: float
    rays_apart: int | None
    forward: float
    twin_forward: float
    both: float | None
    twin_both: float | None
    gigabytes_per_second: float
    limit: float
    both_limit: float | None


def run(device: torch.device, ops: tuple[str, ...], scale: float, repeats: int) -> tuple[dict[str, object], str]:
    """Check and time ops.

    Args:
        device: where they run.
        ops: beginnings of their names; all if empty.
        scale: fraction of the full problem sizes.
        repeats: timings of which the best counts.

    Returns:
        The figures as JSON values, and as a Markdown table.

    Raises:
        ValueError: no op has such a name.
    """
    torch.manual_seed(0)
    known = cases(device, scale)
    if not (selected := [case for case in known if case.name.startswith(ops or "")]):
        raise ValueError(
            f"--ops: expected beginnings of {', '.join(case.name for case in known)}, got {', '.join(ops)}"
        )
    bandwidth = copy_rate(device)
    rows = [measure(case, repeats, bandwidth) for case in tqdm(selected, unit="op")]
    report = describe_machine(device) | {
        "scale": scale,
        "repeats": repeats,
        "bandwidth_gb_per_s": bandwidth / 1e9,
        "gathers_per_us": gather_rate(device, 1 << 14) / 1e6,
        "launch_us": launch_overhead(device),
        "rows": [asdict(row) for row in rows],
    }
    return report, as_table(report, rows)


def cases(device: torch.device, scale: float) -> list[Case]:
    def n(full: int) -> int:
        return max(16, int(full * scale))

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, device=device) * 2 - 1

    result = []

    points = ray_ordered_points(n(500_000), device)
    plane = tk.GridConfig(2, 14, 64, 512, log2_table_size=14, n_features=1)
    tables = torch.randn(3, plane.n_entries, 1, device=device)
    for label, wants_positions in (("triplane_encode", False), ("triplane_encode, dx", True)):
        result.append(
            Case(
                *(label, f"{len(points)} points, 3 x 14 levels, F 1"),
                lambda x, t: tk.triplane_encode(x, t, plane),
                lambda x, t: reference.triplane_encode(x, t, plane),
                [points.clone().requires_grad_(wants_positions), tables.clone().requires_grad_()],
                gathers=len(points) * 42 * 4,
            )
        )

    torso = tk.GridConfig(2, 16, 16, 2048, log2_table_size=16, n_features=2, kind="tiled")
    volume = tk.GridConfig(3, 16, 16, 2048, log2_table_size=19, n_features=2)
    for label, config, x in (
        ("grid_encode 2-D tiled", torso, uniform(n(65_536), 2)),
        ("grid_encode 3-D hash", volume, ray_ordered_points(n(100_000), device)),
    ):
        result.append(
            Case(
                *(label, f"{len(x)} points, 16 levels, F 2"),
                lambda x, t, config=config: tk.grid_encode(x, t, config),
                lambda x, t, config=config: reference.grid_encode(x, t, config),
                [x, torch.randn(config.n_entries, 2, device=device).requires_grad_()],
                gathers=len(x) * 16 * 2**config.n_dims,
                level_entries=2**config.log2_table_size,
            )
        )

    result.append(
        Case(
            *("frequency_encode", f"{n(65_536)} x 2, 8 octaves"),
            lambda x: tk.frequency_encode(x, 8),
            lambda x: reference.frequency_encode(x, 8),
            [uniform(n(65_536), 2).requires_grad_()],
        )
    )
    directions = F.normalize(uniform(n(500_000), 3), dim=1)
    result.append(
        Case(
            *("spherical_harmonics", f"{len(directions)} directions, degree 4"),
            lambda d: tk.spherical_harmonics(d, 4),
            lambda d: reference.spherical_harmonics(d, 4),
            [directions.requires_grad_()],
        )
    )
    cells = torch.randint(0, 128, (n(128**3), 3), dtype=torch.int32, device=device)
    result.append(Case("morton_encode", f"{len(cells)} cells", tk.morton_encode, reference.morton_encode, [cells]))

    resolution = 128 if scale == 1 else 32
    radii = tk.cell_centers(resolution, device=device).norm(dim=1)
    density = ((radii > 0.45) & (radii < 0.6)).float()[None]
    grid = f"{resolution}^3 cells"
    result.append(Case("dilate_density", grid, tk.dilate_density, reference.dilate_density, [density]))
    result.append(
        Case(
            *("pack_bits", grid),
            lambda g: tk.pack_bits(g, 0.5),
            lambda g: reference.pack_bits(g, 0.5),
            [density],
        )
    )

    rays_o, rays_d = camera_rays(n(65_536), device)
    rays = f"{len(rays_o)} rays"
    result.append(
        Case(
            *("intersect_aabb", rays),
            lambda o, d: tk.intersect_aabb(o, d, BOX),
            lambda o, d: reference.intersect_aabb(o, d, BOX),
            [rays_o, rays_d],
        )
    )
    t_near, t_far = tk.intersect_aabb(rays_o, rays_d, BOX)
    bitfield = tk.pack_bits(density, 0.5)
    result.append(
        Case(
            *("march_rays", f"{rays}, up to 16 samples"),
            lambda o, d, near, far, bits: tk.march_rays(o, d, near, far, bits, max_steps=16),
            lambda o, d, near, far, bits: reference.march_rays(o, d, near, far, bits, max_steps=16),
            [rays_o, rays_d, t_near, t_far, bitfield],
            tolerance=1e-5,
            most_rays_apart=0.02,
        )
    )
    samples = tk.march_rays(rays_o, rays_d, t_near, t_far, bitfield, max_steps=16)
    m = len(samples.ts)
    result.append(
        Case(
            *("composite", f"{rays}, {m} samples, 5 + 2 channels"),
            tk.composite,
            reference.composite,
            [
                (torch.rand(m, device=device) * 20).requires_grad_(),
                samples.deltas,
                torch.rand(m, 5, device=device).requires_grad_(),
                torch.rand(m, 2, device=device).requires_grad_(),
                samples.packed_info,
            ],
        )
    )
    return result


def ray_ordered_points(n: int, device: torch.device) -> Tensor:
    """[n, 3] points in runs of 16 along rays, as training sees them."""
    origins = (torch.rand(n // 16 + 1, 1, 3, device=device) - 0.5) * 1.6
    directions = F.normalize(torch.randn(n // 16 + 1, 1, 3, device=device), dim=-1)
    steps = torch.arange(16, device=device)[:, None] * 0.027
    return (origins + steps * directions).clamp(-1, 1).reshape(-1, 3)[:n].contiguous()


def camera_rays(n: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Rays of a square image of about n pixels that looks at the box along its depth axis, row-major."""
    side = math.isqrt(n)
    pixels = (torch.arange(side, device=device) + 0.5) / side - 0.5
    up, right = torch.meshgrid(pixels, pixels, indexing="ij")
    rays_d = F.normalize(torch.stack((0.8 * up, -torch.ones_like(up), 0.8 * right), -1).reshape(-1, 3), dim=1)
    rays_o = torch.tensor([0.0, 3.2, 0.0], device=device).expand(len(rays_d), 3)
    return rays_o.contiguous(), rays_d.contiguous()


def measure(case: Case, repeats: int, bandwidth: float) -> Row:
    difference, rays_apart, outputs = largest_difference(case)
    if not difference <= case.tolerance:
        raise SystemExit(
            f"{case.name}: expected the twin's result within {case.tolerance}, got a relative difference of "
            f"{difference:.2e}; run the tests of this op"
        )
    upstream = [torch.randn_like(o) for o in outputs if o.requires_grad]
    both = twin_both = None
    with torch.no_grad():
        forward, twin_forward = alternate(lambda: case.op(*case.inputs), lambda: case.twin(*case.inputs), repeats)
    if upstream:
        both, twin_both = alternate(
            lambda: gradients(case.op, case.inputs, upstream),
            lambda: gradients(case.twin, case.inputs, upstream),
            repeats,
        )
    read, written = size_in_bytes(case.inputs), size_in_bytes(outputs)
    if case.gathers:  # a table is gathered from, not read through
        read -= size_in_bytes(case.inputs[-1:])
    gather_time = case.gathers / gather_rate(case.inputs[0].device, case.level_entries) if case.gathers else 0.0
    limit = max((read + written) / bandwidth, gather_time)
    both_limit = None
    if upstream:
        wanted = size_in_bytes([x for x in case.inputs if x.requires_grad])
        moved = 2 * read + written + size_in_bytes(upstream) + wanted
        both_limit = max(moved / bandwidth, 2 * gather_time)
    return Row(
        name=case.name,
        size=case.size,
        difference=difference,
        rays_apart=rays_apart,
        forward=1e3 * forward,
        twin_forward=1e3 * twin_forward,
        both=both and 1e3 * both,
        twin_both=twin_both and 1e3 * twin_both,
        gigabytes_per_second=(read + written) / forward / 1e9,
        limit=1e3 * limit,
        both_limit=both_limit and 1e3 * both_limit,
    )


def largest_difference(case: Case) -> tuple[float, int | None, list[Tensor]]:
    """Largest relative L2 difference to the twin over outputs and gradients, rays left out of it, and the outputs."""
    outputs, expected = as_list(case.op(*case.inputs)), as_list(case.twin(*case.inputs))
    pairs, rays_apart = list(zip(outputs, expected, strict=True)), None
    if case.most_rays_apart is not None:
        pairs, rays_apart = same_samples(tk.RaySamples(*outputs), tk.RaySamples(*expected), case.most_rays_apart)
    if any(o.requires_grad for o in outputs):
        upstream = [torch.randn_like(o) for o in outputs if o.requires_grad]
        pairs += zip(
            gradients(case.op, case.inputs, upstream), gradients(case.twin, case.inputs, upstream), strict=True
        )
    difference = 0.0
    for a, b in pairs:
        finite = b.double().abs() < 1e30  # a ray that misses has the largest number
        norm = b.double()[finite].norm().item()
        if norm > 0:
            difference = max(difference, (a.double()[finite] - b.double()[finite]).norm().item() / norm)
    return difference, rays_apart, [o.detach().requires_grad_(o.requires_grad) for o in outputs]


def same_samples(samples: tk.RaySamples, expected: tk.RaySamples, most_apart: float) -> tuple[list[Any], int]:
    """Positions, directions, distances and steps of both on rays with the same samples, and the number of the others.

    Raises SystemExit if the others are more than the fraction `most_apart`.
    """
    sides = samples, expected
    counts = [side.packed_info[:, 1].long() for side in sides]
    rays = [torch.repeat_interleave(torch.arange(len(count), device=count.device), count) for count in counts]
    same = counts[0] == counts[1]
    ts, expected_ts = (side.ts[same[ray]] for side, ray in zip(sides, rays, strict=True))
    of_same = rays[0][same[rays[0]]]
    same[of_same[(ts - expected_ts).abs() > 0.5 * samples.deltas[same[rays[0]]]]] = False
    n_apart = int((~same).sum())
    if n_apart > most_apart * len(same):
        raise SystemExit(
            f"march_rays: expected other samples than the twin's on at most {most_apart:.0%} of the rays, got "
            f"{n_apart} of {len(same)}; run the tests of this op"
        )
    rows, expected_rows = (same[ray] for ray in rays)
    return [(a[rows], b[expected_rows]) for a, b in zip(samples[:4], expected[:4], strict=True)], n_apart


def gradients(op: Callable, inputs: list[Tensor], upstream: list[Tensor]) -> tuple[Tensor, ...]:
    outputs = [o for o in as_list(op(*inputs)) if o.requires_grad]
    return torch.autograd.grad(outputs, [x for x in inputs if x.requires_grad], upstream)


def as_list(outputs: Tensor | tuple[Tensor, ...]) -> list[Tensor]:
    return [outputs] if isinstance(outputs, Tensor) else list(outputs)


def alternate(first: Callable, second: Callable, repeats: int) -> tuple[float, float]:
    """Best times in seconds of two functions that are run in turn, after one run each to warm up."""
    best = [math.inf, math.inf]
    for repeat in range(repeats + 1):
        for i, function in enumerate((first, second)):
            synchronize()
            begin = time.perf_counter()
            function()
            synchronize()
            if repeat:
                best[i] = min(best[i], time.perf_counter() - begin)
    return best[0], best[1]


def synchronize() -> None:
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


def size_in_bytes(tensors: list[Tensor]) -> int:
    return sum(t.numel() * t.element_size() for t in tensors)


def copy_rate(device: torch.device) -> float:
    """Bytes per second, read and written, of a copy that no cache holds."""
    n = 1 << 28 if device.type == "cuda" else 1 << 24
    source, target = torch.rand(n, device=device), torch.empty(n, device=device)
    copy, _ = alternate(lambda: target.copy_(source), lambda: None, repeats=9)
    return 2 * 4 * n / copy


@functools.cache
def gather_rate(device: torch.device, n_entries: int) -> float:
    """Random reads per second of 4-byte entries from a table of that many."""
    n = 1 << 24 if device.type == "cuda" else 1 << 21
    table, target = torch.rand(n_entries, device=device), torch.empty(n, device=device)
    index = torch.randint(0, n_entries, (n,), dtype=torch.int32, device=device)
    gather, _ = alternate(lambda: torch.index_select(table, 0, index, out=target), lambda: None, repeats=9)
    return n / gather


def launch_overhead(device: torch.device) -> dict[str, float]:
    """Microseconds of a launch with three tensors and four numbers that has next to nothing to do."""
    x = torch.zeros(1, 1, device=device)
    tk.frequency_encode(x, 1)
    features = torch.zeros(1, 3, device=device)
    grad = torch.zeros(1, 1, device=device)
    arguments = (features, features, 1, 1, 1, grad)
    kernel = tk.frequency_encoding._kernels(torch.float32, device.type == "cuda").gradient
    runtime.launch(kernel, *arguments)

    def many(launch: Callable) -> None:
        for _ in range(200):
            launch()

    flat = [a.view(-1) if isinstance(a, Tensor) else a for a in arguments]
    fast, public = alternate(
        lambda: many(lambda: runtime.launch(kernel, *arguments)), lambda: many(lambda: kernel(*flat)), repeats=5
    )
    return {"fast": fast / 200 * 1e6, "public": public / 200 * 1e6}


def describe_machine(device: torch.device) -> dict[str, object]:
    name = torch.cuda.get_device_name() if device.type == "cuda" else cpu_name()
    return {
        "device": device.type,
        "name": name,
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "taichi": ".".join(map(str, runtime.taichi().__version__)),
        "commit": commit(),
    }


def cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    names = [line.split(":")[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
    return names[0] if names else platform.processor()


def commit() -> str:
    def git(*arguments: str) -> str:
        try:
            output = subprocess.check_output(["git", "-C", ROOT, *arguments], stderr=subprocess.DEVNULL, text=True)
        except (OSError, subprocess.CalledProcessError):  # no git, or no checkout
            return ""
        return output.strip()

    return (git("rev-parse", "--short", "HEAD") or "unknown") + ("+changes" if git("status", "--porcelain") else "")


def as_table(report: dict[str, Any], rows: list[Row]) -> str:
    def ms(value: float | None) -> str:
        return "" if value is None else f"{value:.3g}"

    def ratio(above: float | None, below: float | None, form: str) -> str:
        return "" if above is None or below is None else form.format(above / below)

    lines = [
        f"{report['name']}, {report['threads']} threads, Python {report['python']}, torch {report['torch']}, "
        f"Taichi {report['taichi']}, commit {report['commit']}",
        f"copy {report['bandwidth_gb_per_s']:.1f} GB/s, gather from 64 KiB {report['gathers_per_us']:.0f} per us, "
        f"launch {report['launch_us']['fast']:.0f} us (public call {report['launch_us']['public']:.0f} us)",
        "",
        "| op | size | difference | forward ms | twin ms | ratio | GB/s | of limit "
        "| fwd + bwd ms | twin ms | ratio | of limit |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        apart = "" if row.rays_apart is None else f", {row.rays_apart} rays apart"
        columns = [row.name, row.size, f"{row.difference:.0e}{apart}"]
        columns += [ms(row.forward), ms(row.twin_forward), ratio(row.twin_forward, row.forward, "{:.1f}x")]
        columns += [f"{row.gigabytes_per_second:.2g}", ratio(row.limit, row.forward, "{:.0%}")]
        columns += [ms(row.both), ms(row.twin_both), ratio(row.twin_both, row.both, "{:.1f}x")]
        columns += [ratio(row.both_limit, row.both, "{:.0%}")]
        lines.append("| " + " | ".join(columns) + " |")
    return os.linesep.join(lines)
