"""Every kernel compiles for CUDA, to one CUDA kernel that the driver can launch, on a machine without a GPU.

A stub of the CUDA driver lets Taichi generate the code of the CUDA variants. What they compute is tested on the CPU by
the fixture `variant_for_cuda`, and on a GPU by `pytest --device cuda`.
"""

import importlib.util
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.cuda_stub import OLDEST_CAPABILITY, needs_stub, run_on_stub

pytestmark = needs_stub

RUN_EVERY_OP = """
import sys
import taichi_kernels as tk

def launch(kernel, *args):
    tensors = [a for a in args if isinstance(a, torch.Tensor)]
    dtype = next((a.dtype for a in tensors if a.is_floating_point() and a.dtype != torch.float16), torch.int32)
    name = f"{kernel.__module__}.{kernel.__name__}-{dtype}".replace("taichi_kernels.", "").replace("torch.", "")
    os.environ["STUB_PTX"] = os.path.join(os.path.dirname(os.environ["STUB_PTX"]), name)
    runtime.launch(kernel, *args)  # the first time Taichi's launch
    events()
    runtime._launch_now(kernel, args)
    by_taichi, = events()
    now.stream, now.is_capturing = Stream(7), True
    runtime.launch(kernel, *args)
    by_driver, = events()  # all that a capture sees of it
    os.environ["STUB_FAIL"] = "cuLaunchKernel:719"
    try:
        runtime.launch(kernel, *args)
        error = ""
    except RuntimeError as raised:
        error = str(raised)
    os.environ["STUB_FAIL"] = ""
    events()
    now.stream, now.is_capturing = now.default_stream, False
    layout = cuda_launcher.argument_layout(args, [a.annotation for a in kernel._primal.arguments])
    if (
        (by_driver.entry, by_driver.shape[1]) != (by_taichi.entry, by_taichi.shape[1])
        or (by_driver.stream, by_driver.context, by_driver.shared) != (7, 1, 0)
        or by_driver.shape[0] not in [f"{blocks}x1x1" for blocks in range(4, 65)]
        or not len(by_driver.parameter) == len(by_taichi.buffer) == layout.size
        or layout.unpack(by_driver.parameter) != layout.unpack(by_taichi.buffer)  # all but the padding
        or f"launch {kernel.__module__}.{kernel.__name__}, got error 719" not in error
    ):
        print(name, vars(by_taichi), vars(by_driver), error)
    for a in tensors:
        a.data.zero_()  # nothing ran: no output may be garbage

for name, module in list(sys.modules.items()):
    if name.startswith("taichi_kernels.") and hasattr(module, "launch") and module is not runtime:
        module.launch = launch

def backward(output):
    output = output if isinstance(output, torch.Tensor) else sum(o.sum() for o in output if o.requires_grad)
    output.sum().backward()

def backward_twice(op, *inputs):
    (first,) = torch.autograd.grad(op(*inputs).square().sum(), inputs[:1], create_graph=True)
    first.sum().backward()

for dtype in (torch.float32, torch.float64):
    def new(*shape):
        return torch.zeros(*shape, dtype=dtype).requires_grad_()
    all_shapes = dtype == torch.float32  # of the others the largest
    for n_dims, n_features, interpolation in (
        *(((2, 1, "linear"), (2, 2, "linear"), (2, 2, "smoothstep")) if all_shapes else ()),
        (3, 2, "smoothstep"), (3, 8, "smoothstep"),
    ):
        config = tk.GridConfig(n_dims, 2, 4, 8, 8, n_features, interpolation=interpolation)
        table = new(config.n_entries, n_features)
        if n_features == 2:
            backward_twice(lambda x, t: tk.grid_encode(x, t, config), new(5, n_dims), table)
        else:
            backward(tk.grid_encode(new(5, n_dims), table, config))
    backward_twice(lambda x: tk.frequency_encode(x, 3), new(5, 2))
    for degree in (1, 4, 8) if all_shapes else (8,):
        backward_twice(lambda d: tk.spherical_harmonics(d, degree), new(5, 3))
    with torch.no_grad():
        rays = (new(5, 3), new(5, 3))
        t_near, t_far = tk.intersect_aabb(*rays, (-1, -1, -1, 1, 1, 1))
        grid = torch.zeros(1, 512, dtype=dtype)
        tk.dilate_density(grid)
        bitfield = tk.pack_bits(grid, 0.5)
    samples = tk.march_rays(new(5, 3), new(5, 3), t_near, t_far, bitfield, capacity=8)
    backward(samples[:2])
    for Cw, Cs in ((5, 2), (17, 0)) if all_shapes else ((17, 0),):
        info = torch.zeros(5, 2, dtype=torch.int32)
        backward(tk.composite(new(3), torch.zeros(3, dtype=dtype), new(3, Cw), new(3, Cs), info))
    with torch.no_grad():
        tk.render_rays(lambda s: (s.ts, s.positions, s.positions), *rays, t_near, t_far, bitfield)
        for n_bases in (1, 3) if all_shapes else (3,):
            cells, box = torch.zeros(4, 4, 4, dtype=torch.int32), torch.tensor((-1, -1, -1, 1, 1, 1), dtype=dtype)
            blocks = torch.zeros(2, 3, dtype=torch.int32)
            colors = torch.zeros(5, 2, 2, 2, n_bases, 3, dtype=torch.uint8), new(n_bases, 3), new(3)
            baked = tk.march_baked_grid(
                torch.eye(4, dtype=dtype), (9, 9, 4, 3), (8, 6), cells, new(5, 2, 2, 2), *colors, 1.0, box, blocks
            )
            values, (*_, ts, deltas, info, before, after) = new(4, len(baked.ts)), baked
            tk.composite_baked(values, deltas, info, before, after, ts)
            kept = (x[:, :4].half().contiguous() for x in (before, after))
            tk.composite_baked(values, deltas.half(), info, *kept)
        pixels = torch.zeros(5, dtype=torch.int32)
        tk.show_layers(torch.zeros(9, 4, dtype=torch.uint8), new(9, 3), pixels, new(5, 3), new(5))
        tk.encode_tiles(new(5, 3), tk.PlaneTiles(torch.zeros(3, 4, 4, dtype=torch.int32), new(2, 3, 3, 16)), 1.0)
config = tk.GridConfig(2, 2, 4, 8, 8, 2)
backward(tk.triplane_encode(torch.zeros(5, 3), torch.zeros(3, config.n_entries, 2).half().requires_grad_(), config))
torch.use_deterministic_algorithms(True)
for dtype in (torch.float32, torch.float64):
    table = torch.zeros(config.n_entries, 2, dtype=dtype).requires_grad_()
    backward_twice(lambda x, t: tk.grid_encode(x, t, config), torch.zeros(5, 2, dtype=dtype).requires_grad_(), table)
cells = torch.zeros(5, 3, dtype=torch.int32)
tk.morton_decode(tk.morton_encode(cells))
"""

KERNELS = {
    *("grid_kernels.encode", "grid_kernels.grad_table", "grid_kernels.grad_positions"),
    *("frequency_encoding.encode", "frequency_encoding.gradient"),
    *(f"spherical_harmonics.{name}" for name in ("evaluate", "gradient", "derivatives_along")),
    *("occupancy_grid.dilate", "occupancy_grid.pack", "ray_aabb.intersect"),
    *("ray_marching.find", "ray_marching.write", "ray_marching.gradient"),
    *("compositing.forward", "compositing.backward", "compositing.accumulate"),
    *(f"baked_grid.{name}" for name in ("march", "write", "composite")),
    *("pixel_tiles.project", "plane_tiles.place", "layers.behind", "layers.front"),
}
ON_INTEGERS = {"morton.encode", "morton.decode"}


@pytest.fixture(scope="module")
def every_op(tmp_path_factory) -> tuple[dict[str, list[Path]], str]:
    """Files with the code of each instance of each kernel, by names MODULE.KERNEL-DTYPE: in turn Taichi's and the same
    with its arguments by value. And what was printed."""
    folder = tmp_path_factory.mktemp("cuda")
    result = run_on_stub(
        folder, RUN_EVERY_OP, TAICHI_KERNELS_CUDA_LAUNCHER="driver", PYTHONWARNINGS="error:taichi_kernels"
    )
    codes: dict[str, list[Path]] = {}
    for path in sorted((folder / "ptx").iterdir()):
        name = path.stem.rsplit("-", 1)[0]
        if name != "module":  # Taichi's own
            codes.setdefault(name, []).append(path)
    return codes, result.stdout


def test_every_kernel_compiles_for_cuda(every_op):
    codes, _ = every_op
    expected = {f"{name}-{dtype}" for name in KERNELS for dtype in ("float32", "float64")}
    expected |= {f"{name}-int32" for name in ON_INTEGERS}
    assert codes.keys() == expected
    scatter = [path.read_text() for name in codes if "grad_table" in name for path in codes[name]]
    for number in ("f32", "f64", "u64"):  # of the variant for deterministic algorithms: integers
        assert any(re.search(rf"(atom|red)(\.global)?\.add\.{number}", text) for text in scatter), number


def test_a_kernel_is_one_cuda_kernel_that_reads_its_arguments_only(every_op):
    codes, _ = every_op
    for name, paths in codes.items():
        for by_address, by_value in zip(paths[::2], paths[1::2], strict=True):
            assert len(re.findall(r"\.entry", by_address.read_text())) == 1, name
            code = by_value.read_text()
            assert ".param .align 16" in code and ".extern" not in code, name
            assert len(code.splitlines()) <= len(by_address.read_text().splitlines()), name


def test_float32_kernels_do_not_compute_in_float64(every_op):
    codes, _ = every_op
    for name, paths in codes.items():
        if name.endswith("-float32"):
            assert not any(".f64" in path.read_text() for path in paths), name


def test_the_driver_gets_what_taichi_gives_it(every_op):
    codes, printed = every_op
    assert sum(len(paths) for paths in codes.values()) > 160
    assert printed == ""


def find_ptxas() -> str | None:
    """The assembler of CUDA: of an installed toolkit, or of the package nvidia-cuda-nvcc or triton."""
    for package, folder in (("nvidia", "*"), ("triton", "backends/nvidia")):
        spec = importlib.util.find_spec(package)
        for root in (spec and spec.submodule_search_locations) or ():
            for path in Path(root).glob(f"{folder}/bin/ptxas"):
                return str(path)
    return shutil.which("ptxas")


def resources(ptxas: str, code: Path, capability: int) -> tuple[int, int]:
    """Registers of a thread, and bytes that it spills to memory, as the assembler reports them."""
    result = subprocess.run(
        [ptxas, "--verbose", f"--gpu-name=sm_{capability}", "--output-file", os.devnull, code],
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    (registers,) = re.findall(r"Used (\d+) registers", result.stderr)
    return int(registers), sum(int(n) for n in re.findall(r"(\d+) bytes spill", result.stderr))


@pytest.mark.parametrize("capability", [OLDEST_CAPABILITY, 86, 90, 100])
def test_code_assembles_without_spills(capability, every_op):
    ptxas = find_ptxas()
    if ptxas is None:
        pytest.skip("needs ptxas, from CUDA's toolkit or the package nvidia-cuda-nvcc")
    codes, _ = every_op
    for name, paths in codes.items():
        largest = max(paths[1::2], key=lambda path: path.stat().st_size)
        registers, spilled = resources(ptxas, largest, capability)
        assert 0 < registers <= 255 and spilled == 0, name
