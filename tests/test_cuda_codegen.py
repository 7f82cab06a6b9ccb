"""Every kernel compiles for CUDA, on a machine without a GPU.

A stub of the CUDA driver lets Taichi generate the code of the CUDA variants; what they compute is tested
on a GPU by `pytest --device cuda`.
"""

import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

RUN_EVERY_OP = """
import sys
import torch
import taichi_kernels as tk
from taichi_kernels import operators, runtime

ti = runtime.taichi()
ti.init(arch=ti.cuda, enable_fallback=False, offline_cache=False, log_level=ti.ERROR)
assert ti.cfg.arch == ti.cuda

def launch(kernel, *args):
    kernel(*runtime._flat(args))
    for a in args:
        if isinstance(a, torch.Tensor):
            a.data.zero_()  # nothing ran: no output may be garbage

operators.start = lambda *a: None
for name, module in list(sys.modules.items()):
    if name.startswith("taichi_kernels.") and hasattr(module, "launch"):
        module.launch = launch
        if hasattr(module, "is_cuda"):
            module.is_cuda = lambda: True

def backward(output):
    output = output if isinstance(output, torch.Tensor) else sum(o.sum() for o in output if o.requires_grad)
    output.sum().backward()

def backward_twice(op, *inputs):
    (first,) = torch.autograd.grad(op(*inputs).square().sum(), inputs[:1], create_graph=True)
    first.sum().backward()

for dtype in (torch.float32, torch.float64):
    def new(*shape):
        return torch.zeros(*shape, dtype=dtype).requires_grad_()
    for n_dims in (2, 3):
        for n_features in (1, 2, 8):
            for interpolation in ("linear", "smoothstep"):
                config = tk.GridConfig(n_dims, 2, 4, 8, 8, n_features, interpolation=interpolation)
                table = new(config.n_entries, n_features)
                if n_features == 2:
                    backward_twice(lambda x, t: tk.grid_encode(x, t, config), new(5, n_dims), table)
                else:
                    backward(tk.grid_encode(new(5, n_dims), table, config))
    backward_twice(lambda x: tk.frequency_encode(x, 3), new(5, 2))
    for degree in (1, 4, 8):
        backward_twice(lambda d: tk.spherical_harmonics(d, degree), new(5, 3))
    with torch.no_grad():
        rays = (new(5, 3), new(5, 3))
        t_near, t_far = tk.intersect_aabb(*rays, (-1, -1, -1, 1, 1, 1))
        grid = torch.zeros(1, 512, dtype=dtype)
        tk.dilate_density(grid)
        bitfield = tk.pack_bits(grid, 0.5)
    samples = tk.march_rays(new(5, 3), new(5, 3), t_near, t_far, bitfield, capacity=8)
    backward(samples[:2])
    for Cw, Cs in ((5, 2), (17, 0)):
        info = torch.zeros(5, 2, dtype=torch.int32)
        backward(tk.composite(new(3), torch.zeros(3, dtype=dtype), new(3, Cw), new(3, Cs), info))
    with torch.no_grad():
        tk.render_rays(lambda s: (s.ts, s.positions, s.positions), *rays, t_near, t_far, bitfield)
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
    *("grad_table", "grad_positions"),
    *("evaluate", "gradient", "derivatives_along", "encode", "decode", "intersect", "dilate", "pack", "find", "write"),
    *("forward", "backward", "accumulate"),
}


@pytest.mark.skipif(shutil.which("gcc") is None or sys.platform != "linux", reason="needs gcc on Linux")
def test_every_kernel_compiles_for_cuda(tmp_path):
    subprocess.run(
        ["gcc", "-shared", "-fPIC", "-o", tmp_path / "libcuda.so", ROOT / "tests" / "stub_libcuda.c"], check=True
    )
    (tmp_path / "libcuda.so.1").symlink_to("libcuda.so")
    ptx = tmp_path / "ptx"
    ptx.mkdir()
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(RUN_EVERY_OP))
    environment = {k: v for k, v in os.environ.items() if not k.startswith("TI_")}
    environment |= {"PYTHONPATH": str(ROOT), "LD_LIBRARY_PATH": str(tmp_path), "STUB_PTX": str(ptx)}
    environment |= {"TI_SKIP_VERSION_CHECK": "ON"}
    result = subprocess.run([sys.executable, str(script)], env=environment, capture_output=True, text=True, timeout=400)
    assert result.returncode == 0, result.stdout + result.stderr
    code = [path.read_text() for path in ptx.iterdir()]
    entries = [name for text in code for name in re.findall(r"\.entry (\w+)", text)]
    missing = {name for name in KERNELS if not any(entry.startswith(f"{name}_c") for entry in entries)}
    assert not missing
    scatter = [text for text in code if re.search(r"\.entry grad_table_c\w*", text)]
    for number in ("f32", "u64"):  # of the variant for deterministic algorithms: integers
        assert any(re.search(rf"(atom|red)(\.global)?\.add\.{number}", text) for text in scatter), number
