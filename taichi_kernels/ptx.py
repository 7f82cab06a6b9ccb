"""The code that Taichi compiles for CUDA: how to get at it, and how to have it take its arguments by value.

In Taichi's code the one parameter of a kernel is a structure that starts with the address of a buffer in device
memory, which holds the arguments. It would have to be allocated and filled for each launch, and kept for as long as a
captured graph may launch again. :func:`pass_by_value` rewrites the loads from the buffer into loads from the parameter,
which then is the buffer.
"""

import ctypes
import os
import re
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

_CLONE_FS = 0x200


class UnsuitableKernel(Exception):
    """Why a kernel can't be launched without Taichi's runtime; the words go on after "because"."""


class KernelCode(NamedTuple):
    """PTX of a kernel whose parameter is the buffer of its arguments."""

    text: str
    entry: str
    n_threads: int
    """In a block."""
    is_loop: bool
    """Any number of blocks computes all of it; if not, one block does."""


def ptx_of(launch: Callable[[], None], config: Any) -> list[str]:
    """Run the first launch of a kernel, in which Taichi compiles it, and return the PTX; one call at a time.

    Args:
        launch: runs in another thread, while this one waits. What it raises is raised here.
        config: of Taichi's program.
    """
    errors: list[BaseException] = []

    def run() -> None:
        try:
            # Taichi writes to the working folder. That of this thread alone is changed where the system allows it
            # (Linux; some containers don't), else that of the process, while the kernel compiles.
            if sys.platform == "linux":
                ctypes.CDLL(None).unshare(_CLONE_FS)
            previous = Path.cwd()
            os.chdir(folder)
            config.print_kernel_asm = True
            try:
                launch()
            finally:
                config.print_kernel_asm = False
                os.chdir(previous)
        except BaseException as error:
            errors.append(error)

    with tempfile.TemporaryDirectory(prefix="taichi_kernels_ptx_") as folder:
        thread = threading.Thread(target=run, name="taichi_kernels: compile")
        thread.start()
        thread.join()
        if errors:
            raise errors[0]
        return [path.read_text().rstrip("\0") for path in sorted(Path(folder).glob("*.ptx"))]


_REGISTER = r"%rd\d+"
_LOAD = re.compile(
    rf"(?P<head>\s*(?:@!?%p\d+\s+)?ld)(?:\.global)?(?:\.nc)?(?P<type>(?:\.v[24])?\.[usbf]\d+)\s+"
    rf"(?P<to>[^\[]+),\s*\[(?P<base>{_REGISTER})(?:\+(?P<offset>-?\d+))?\];"
)


def pass_by_value(ptx: str, n_bytes: int) -> KernelCode:
    """Rewrite the code of a kernel, so that its parameter is the buffer of arguments and not its address.

    Args:
        ptx: what Taichi compiled.
        n_bytes: size of the buffer.

    Raises UnsuitableKernel if the code is not of one kernel that reads nothing else of what Taichi passes to it.
    """
    entries = re.findall(r"\.entry\s+([\w$.]+)", ptx)
    if len(entries) != 1:
        raise UnsuitableKernel(f"Taichi makes {len(entries)} CUDA kernels of it")
    (entry,) = entries
    if re.search(r"^\s*\.extern\b", ptx, re.MULTILINE):
        raise UnsuitableKernel("it calls functions of the driver, as printing and assertions do")
    block = re.search(r"\.maxntid\s+(\d+),\s*1,\s*1", ptx)
    parameter = f"{entry}_param_0"
    text, n_declarations = re.subn(
        rf"\.param\s+\.align\s+\d+\s+\.b8\s+{re.escape(parameter)}\[\d+\]",
        f".param .align 16 .b8 {parameter}[{n_bytes}]",
        ptx,
    )
    if block is None or n_declarations != 1 or f"{entry}_param_1" in text:
        raise UnsuitableKernel("its code does not look like that of Taichi 1.7")
    is_loop = "%nctaid.x" in text
    if not is_loop and "%ctaid.x" in text:
        raise UnsuitableKernel("its loop does not stride by the size of the launch")
    return KernelCode(_with_loads_from(parameter, text), entry, int(block[1]), is_loop)


def _with_loads_from(parameter: str, text: str) -> str:
    lines = text.splitlines()
    name = re.escape(parameter)
    load_of_address = re.compile(
        rf"\s*ld\.param\.u64\s+(?P<to>{_REGISTER}),\s*\[(?P<base>{name}|{_REGISTER})(?:\+0)?\];"
    )
    copy = re.compile(
        rf"\s*(?:cvta\.to\.global\.u64|mov\.u64|mov\.b64)\s+(?P<to>{_REGISTER}),\s*(?P<base>{name}|{_REGISTER});"
    )
    sum_ = re.compile(rf"\s*add\.s64\s+(?P<to>{_REGISTER}),\s*(?P<base>{_REGISTER}),\s*(?P<offset>-?\d+);")
    # Registers that hold an address in the two, and its offset there.
    of_parameter, of_buffer = {parameter: 0}, dict[str, int]()
    writing: set[int] = set()  # the lines that write these registers
    n_known = -1
    while n_known < len(writing):
        n_known = len(writing)
        for number, line in enumerate(lines):
            for match, bases, results in (
                (copy.match(line), of_parameter, of_parameter),
                (load_of_address.match(line), of_parameter, of_buffer),
                (copy.match(line), of_buffer, of_buffer),
                (sum_.match(line), of_buffer, of_buffer),
            ):
                if match is not None and match["base"] in bases:
                    offset = bases[match["base"]] + int(match.groupdict().get("offset", 0))
                    if results.setdefault(match["to"], offset) != offset:
                        raise UnsuitableKernel("its code does more with its arguments than load them")
                    writing.add(number)
    result = []
    for number, line in enumerate(lines):
        if number in writing:
            continue
        load, used = _LOAD.match(line), set(re.findall(rf"{_REGISTER}|\b{name}\b", line))
        if load is not None and load["base"] in of_buffer and not _registers(load["to"]) & of_buffer.keys():
            offset = of_buffer[load["base"]] + int(load["offset"] or 0)
            line = f"{load['head']}.param{load['type']} \t{load['to']}, [{parameter}+{offset}];"
        elif used & of_buffer.keys():
            raise UnsuitableKernel("its code does more with its arguments than load them")
        elif used & of_parameter.keys() and ".param .align" not in line:
            raise UnsuitableKernel("it uses Taichi's runtime, as random numbers, assertions and temporary memory do")
        result.append(line)
    return "\n".join(result) + "\n"


def _registers(text: str) -> set[str]:
    return set(re.findall(_REGISTER, text))
