"""Code of kernels for CUDA that was compiled when the package was built.

Taichi compiles each kernel when it is first called, anew in every process. `release/compile_kernels.py` does it ahead,
for the kernels that the presets use, and writes :data:`FILE`, which a wheel then carries. The launcher takes the code
from there if it was compiled from these sources by this Taichi with these options; if not, Taichi compiles as ever.
"""

import functools
import gzip
import hashlib
import json
import zlib
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

from taichi_kernels.ptx import KernelCode

FILE = Path(__file__).with_name("ready_made_kernels.json.gz")
OLDEST_CAPABILITY = (7, 5)
"""The compute capability that the code is compiled for; newer devices run it too."""

# What of Taichi's configuration changes the code.
_OPTIONS = (
    *("advanced_optimization", "check_out_of_bound", "debug", "default_fp", "default_gpu_block_dim", "default_ip"),
    *("fast_math", "half2_vectorization", "max_block_dim", "opt_level"),
)

_Kernels = TypeVar("_Kernels")


def kernel_factory(make: Callable[..., _Kernels]) -> Callable[..., _Kernels]:
    """Decorates a function that makes a kernel or a tuple of them: makes each once, and names it by the arguments.

    The arguments are positional, hashable, and all that the code depends on.
    """

    @functools.cache
    def factory(*args: Any) -> _Kernels:
        made = make(*args)
        kernels: tuple[Any, ...] = made if isinstance(made, tuple) else (made,)
        for kernel in kernels:
            kernel.instance = f"{kernel.__module__}.{kernel.__name__}{args!r}"
        return made

    return functools.wraps(make)(factory)


def options(config: Any) -> dict[str, str]:
    """What of the configuration of Taichi's program the code depends on."""
    return {name: str(getattr(config, name, None)) for name in _OPTIONS}


def load(options: Mapping[str, str]) -> dict[str, KernelCode]:
    """The code by the names of kernels; none if there is no file, or one of other sources, Taichi or options.

    Args:
        options: of the program that is running, see :func:`options`.
    """
    try:
        content = json.loads(gzip.decompress(FILE.read_bytes()))
        if content["stamp"] != _stamp(options):
            return {}
        return {name: KernelCode(*fields) for name, fields in content["kernels"].items()}
    except (OSError, EOFError, zlib.error, ValueError, KeyError, TypeError):  # not there, or not whole
        return {}


def save(codes: Mapping[str, KernelCode], options: Mapping[str, str], file: Path) -> None:
    """Write the code that :func:`load` reads; the same code gives the same bytes."""
    content = json.dumps({"stamp": _stamp(options), "kernels": dict(sorted(codes.items()))})
    file.write_bytes(gzip.compress(content.encode(), mtime=0))


def _stamp(options: Mapping[str, str]) -> str:
    digest = hashlib.sha256(json.dumps([version("taichi"), sorted(options.items())]).encode())
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()
