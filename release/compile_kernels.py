"""Compile kernels for CUDA into the file that a wheel carries: `python release/compile_kernels.py`, before it is built.

It needs gcc on Linux, and no GPU: Taichi compiles on a stub of the CUDA driver. A wheel without the file is complete;
Taichi then compiles each kernel at its first call.
"""

import argparse
import functools
import importlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
STUB = Path(__file__).with_name("stub_libcuda.c")


def build_stub(folder: Path) -> None:
    """Build the stub of the driver, by the names that programs load it by."""
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", folder / "libcuda.so", STUB], check=True)
    (folder / "libcuda.so.1").symlink_to("libcuda.so")


def kernels() -> Iterator[Any]:
    """The kernels that the presets use on CUDA, for training and rendering in float32."""
    import torch

    def module(name: str) -> Any:  # some of the package's functions have the names of their modules
        return importlib.import_module(f"taichi_kernels.{name}")

    real, on_cuda = torch.float32, True
    for n_planes, n_features in ((3, 1), (3, 2), (1, 2)):
        grids = (2, n_planes, n_features, "linear", False, real, real, False, on_cuda)
        yield from module("grid_kernels").grid_kernels(*grids, False)
        yield module("grid_kernels").grid_kernels(*grids, True).grad_table  # for deterministic algorithms
    for n_weighted in (4, 5):
        yield from module("compositing")._kernels(n_weighted, 2, real, on_cuda)
    for degree in (2, 4):
        yield from module("spherical_harmonics")._kernels(degree, real, on_cuda)
    for name in ("frequency_encoding", "occupancy_grid", "ray_marching"):
        yield from module(name)._kernels(real, on_cuda)
    yield from module("morton")._kernels(on_cuda)
    yield module("ray_aabb")._kernel(real, on_cuda)


def any_value(annotation: Any) -> Any:
    """An argument to launch a kernel with on the stub, which computes nothing."""
    import torch
    from taichi.lang.util import to_pytorch_type

    if hasattr(annotation, "ndim"):
        return torch.zeros(1, dtype=to_pytorch_type(annotation.dtype))
    return 1 if annotation.to_string()[0] in "iu" else 1.0


def compile_on_stub(file: Path) -> None:
    """Compile all of them, in a process that finds the stub as its driver."""
    import torch

    from taichi_kernels import ready_made, runtime
    from taichi_kernels.cuda_launcher import argument_layout
    from taichi_kernels.ptx import KernelCode, pass_by_value, ptx_of

    class Properties:
        multi_processor_count = 4

    torch.cuda.get_device_properties = lambda index: Properties
    runtime.start(torch.device("cuda"))
    config = runtime._running_program().config()
    codes: dict[str, KernelCode] = {}
    for kernel in kernels():
        annotations = [argument.annotation for argument in kernel._primal.arguments]
        args = [any_value(annotation) for annotation in annotations]
        (code,) = ptx_of(functools.partial(kernel, *args), config)
        codes[kernel.instance] = pass_by_value(code, argument_layout(args, annotations).size)
    ready_made.save(codes, ready_made.options(config), file)
    print(f"{len(codes)} kernels, {file.stat().st_size} bytes: {file}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=ROOT / "taichi_kernels" / "ready_made_kernels.json.gz")
    parser.add_argument("--on-stub", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.on_stub:
        compile_on_stub(options.output)
        return
    with tempfile.TemporaryDirectory() as folder:
        build_stub(Path(folder))
        environment = {key: value for key, value in os.environ.items() if not key.startswith("TI_")}
        environment |= {
            "LD_LIBRARY_PATH": folder,
            "PYTHONPATH": str(ROOT),
            "STUB_PTX": os.path.join(folder, "code"),
            "STUB_CAPABILITY": "75",
            "TI_OFFLINE_CACHE": "0",
        }
        subprocess.run(
            [sys.executable, __file__, "--on-stub", "--output", options.output.resolve()],
            env=environment, cwd=folder, check=True,
        )  # fmt: skip


if __name__ == "__main__":
    main()
