"""Every kernel compiles for CUDA, to one CUDA kernel, on a machine without a GPU.

A stub of the CUDA driver lets Taichi generate the code of the CUDA variants. What they compute is tested on the CPU by
the fixture `variant_for_cuda`, and on a GPU by `pytest --device cuda`.
"""

import importlib.util
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
import os
import sys
import torch
import taichi_kernels as tk
from taichi_kernels import operators, runtime

ti = runtime.taichi()
ti.init(arch=ti.cuda, enable_fallback=False, offline_cache=False, log_level=ti.ERROR)
assert ti.cfg.arch == ti.cuda

def launch(kernel, *args):
    tensors = [a for a in args if isinstance(a, torch.Tensor)]
    dtype = next((a.dtype for a in tensors if a.is_floating_point() and a.dtype != torch.float16), torch.int32)
    name = f"{kernel.__module__}.{kernel.__name__}-{dtype}".replace("taichi_kernels.", "").replace("torch.", "")
    os.environ["STUB_PTX"] = os.path.join(os.path.dirname(os.environ["STUB_PTX"]), name)
    kernel(*runtime._flat(args))
    for a in tensors:
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
    *("grid_kernels.encode", "grid_kernels.grad_table", "grid_kernels.grad_positions"),
    *("frequency_encoding.encode", "frequency_encoding.gradient"),
    *(f"spherical_harmonics.{name}" for name in ("evaluate", "gradient", "derivatives_along")),
    *("occupancy_grid.dilate", "occupancy_grid.pack", "ray_aabb.intersect"),
    *("ray_marching.find", "ray_marching.write", "ray_marching.gradient"),
    *("compositing.forward", "compositing.backward", "compositing.accumulate"),
}
ON_INTEGERS = {"morton.encode", "morton.decode"}
OLDEST = 75
"""The compute capability that the code is generated for, times ten: newer ones run it too."""


@pytest.fixture(scope="module")
def generated(tmp_path_factory) -> dict[str, Path]:
    """Files with the code of each instance of each kernel, by names that begin with MODULE.KERNEL-DTYPE-."""
    if shutil.which("gcc") is None or sys.platform != "linux":
        pytest.skip("needs gcc on Linux")
    folder = tmp_path_factory.mktemp("cuda")
    subprocess.run(
        ["gcc", "-shared", "-fPIC", "-o", folder / "libcuda.so", ROOT / "tests" / "stub_libcuda.c"], check=True
    )
    (folder / "libcuda.so.1").symlink_to("libcuda.so")
    script = folder / "script.py"
    script.write_text(textwrap.dedent(RUN_EVERY_OP))
    environment = {k: v for k, v in os.environ.items() if not k.startswith("TI_")}
    environment |= {"PYTHONPATH": str(ROOT), "LD_LIBRARY_PATH": str(folder), "TI_SKIP_VERSION_CHECK": "ON"}
    environment |= {"STUB_PTX": str(folder / "taichi"), "STUB_CAPABILITY": str(OLDEST)}
    result = subprocess.run([sys.executable, str(script)], env=environment, capture_output=True, text=True, timeout=400)
    assert result.returncode == 0, result.stdout + result.stderr
    return {path.stem: path for path in sorted(folder.glob("*.ptx")) if not path.stem.startswith("taichi-")}


def test_every_kernel_compiles_for_cuda(generated):
    expected = {f"{name}-{dtype}" for name in KERNELS for dtype in ("float32", "float64")}
    expected |= {f"{name}-int32" for name in ON_INTEGERS}
    assert {name.rsplit("-", 1)[0] for name in generated} == expected
    scatter = [path.read_text() for name, path in generated.items() if name.startswith("grid_kernels.grad_table-")]
    for number in ("f32", "f64", "u64"):  # of the variant for deterministic algorithms: integers
        assert any(re.search(rf"(atom|red)(\.global)?\.add\.{number}", text) for text in scatter), number


def test_a_kernel_is_one_cuda_kernel_that_reads_its_arguments_only(generated):
    for name, path in generated.items():
        code = path.read_text()
        entries = re.findall(r"\.entry (\w+)", code)
        assert len(entries) == 1, f"{name}: {entries}"
        assert reads_of_context(code, entries[0]) == {""}, name
        assert ".extern" not in code, name


def reads_of_context(code: str, entry: str) -> set[str]:
    """Offsets ("" for none) at which a kernel reads the struct that is its one parameter.

    Its first field is the address of the buffer with the kernel's arguments, the second that of Taichi's runtime.
    """
    parameters = re.findall(rf"\.param \.align 8 \.b8 {entry}_param_(\d+)\[\d+\]", code)
    assert parameters == ["0"], f"{entry}: {parameters}"
    places, offsets = {f"{entry}_param_0"}, set()
    body = re.search(rf"\.entry {entry}\(.*?\n\{{\n(.*?)\n\}}", code, re.DOTALL)
    assert body, entry
    for line in body[1].splitlines():
        instruction = line.split("//")[0].strip()
        if not places & set(re.findall(r"[%\w]+", instruction)):
            continue
        if copy := re.fullmatch(r"mov\.[bu]64\s+(%rd\d+), [%\w]+;", instruction):
            places.add(copy[1])
        else:
            load = re.fullmatch(r"ld\.param\.\w+\s+[%\w]+, \[[%\w]+(\+\d+)?\];", instruction)
            assert load, f"{entry}: {instruction}"
            offsets.add(load[1] or "")
    return offsets


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


@pytest.mark.parametrize("capability", [75, 86, 90, 100])
def test_code_assembles_without_spills(capability, generated):
    ptxas = find_ptxas()
    if ptxas is None:
        pytest.skip("needs ptxas, from CUDA's toolkit or the package nvidia-cuda-nvcc")
    largest = {}  # instance of each kernel and dtype
    for name, path in sorted(generated.items(), key=lambda item: item[1].stat().st_size):
        largest[name.rsplit("-", 1)[0]] = path
    for name, path in largest.items():
        registers, spilled = resources(ptxas, path, capability)
        assert 0 < registers <= 255 and spilled == 0, name
