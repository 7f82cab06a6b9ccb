"""Code of kernels for CUDA that was compiled before: when the package was built, or by an earlier process.

Taichi compiles each kernel when it is first called, anew in every process. `release/compile_kernels.py` does it ahead,
for the kernels that the presets use, and writes :data:`FILE`, which a wheel then carries. What is not in it a process
keeps in Taichi's cache (:class:`KeptCode`), for the next one. The launcher takes code that was compiled from these
sources by this Taichi with these options; if there is none, Taichi compiles as ever.
"""

import contextlib
import functools
import gzip
import hashlib
import json
import os
import secrets
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
    return _read(FILE, _stamp(options))


def save(codes: Mapping[str, KernelCode], options: Mapping[str, str], file: Path) -> None:
    """Write the code that :func:`load` reads; the same code gives the same bytes."""
    _write(codes, _stamp(options), file)


def _read(file: Path, stamp: str) -> dict[str, KernelCode]:
    try:
        content = json.loads(gzip.decompress(file.read_bytes()))
        if content["stamp"] != stamp:
            return {}
        return {name: KernelCode(*fields) for name, fields in content["kernels"].items()}
    except (OSError, EOFError, zlib.error, ValueError, KeyError, TypeError):  # not there, or not whole
        return {}


def _write(codes: Mapping[str, KernelCode], stamp: str, file: Path) -> None:
    content = json.dumps({"stamp": stamp, "kernels": dict(sorted(codes.items()))})
    unfinished = file.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        unfinished.write_bytes(gzip.compress(content.encode(), mtime=0))
        os.replace(unfinished, file)
    finally:
        unfinished.unlink(missing_ok=True)


class KeptCode:
    """Code that a process compiled, one file for each kernel in Taichi's cache, for other processes.

    A file of other sources is replaced, so that the folder does not grow from version to version.

    Args:
        config: of Taichi's program. Nothing is kept or found if its cache is off.
        capability: compute capability of the device that Taichi compiles for.
    """

    def __init__(self, config: Any, capability: tuple[int, int]):
        self._stamp = _stamp(options(config) | {"capability": "{}.{}".format(*capability)})
        self._folder: Path | None = None
        if getattr(config, "offline_cache", False) and getattr(config, "offline_cache_file_path", ""):
            self._folder = Path(config.offline_cache_file_path) / "code_by_value" / "sm_{}{}".format(*capability)

    def load(self, name: str) -> KernelCode | None:
        """The code of a kernel; None if there is none."""
        return None if self._folder is None else _read(self._file(name), self._stamp).get(name)

    def save(self, name: str, code: KernelCode) -> None:
        """Keep the code of a kernel, if the folder can be written."""
        if self._folder is None:
            return
        with contextlib.suppress(OSError):
            self._folder.mkdir(parents=True, exist_ok=True)
            _write({name: code}, self._stamp, self._file(name))

    def _file(self, name: str) -> Path:
        assert self._folder is not None
        return self._folder / f"{hashlib.sha256(name.encode()).hexdigest()[:32]}.json.gz"


def _stamp(options: Mapping[str, str]) -> str:
    digest = hashlib.sha256(json.dumps([version("taichi"), sorted(options.items())]).encode())
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()
