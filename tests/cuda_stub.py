"""Run code on a machine without a GPU as if there were one: the driver is a stub, and torch's streams are made up.

Taichi compiles and launches as it does on a card, and nothing is computed. Tensors are torch's CPU tensors.
"""

import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from release.compile_kernels import build_stub

ROOT = Path(__file__).resolve().parents[1]

OLDEST_CAPABILITY = 75
"""The compute capability that code is generated for, times ten: newer ones run it too."""

needs_stub = pytest.mark.skipif(
    shutil.which("gcc") is None or sys.platform != "linux", reason="needs gcc on Linux, to build the stub"
)

START = """
import contextlib
import os
import torch
from pathlib import Path
from taichi_kernels import cuda_launcher, operators, ready_made, runtime

ready_made.FILE = Path(os.environ["STUB_READY_MADE"])

class Properties:
    multi_processor_count = 4

torch.cuda.get_device_properties = lambda index: Properties
torch.cuda.get_device_capability = lambda index: divmod(int(os.environ["STUB_CAPABILITY"]), 10)
ti = runtime.taichi()
runtime.start(torch.device("cuda"))
assert ti.cfg.arch == ti.cuda
operators.start = lambda *a: None  # which would refuse tensors on the CPU

class Stream:
    def __init__(self, handle):
        self.cuda_stream = handle

    def wait_stream(self, other):
        with open(os.environ["STUB_LOG"], "a") as log:
            print("wait", self.cuda_stream, other.cuda_stream, file=log)

class Torch:
    device, stream, default_stream, is_capturing = 0, Stream(0), Stream(0), False

now = Torch()
now.default_stream = now.stream
torch.cuda.device = lambda index: contextlib.nullcontext()
torch.cuda.current_stream = lambda index=None: now.stream
torch.cuda.default_stream = lambda index=None: now.default_stream
torch.cuda.is_current_stream_capturing = lambda: now.is_capturing
cuda_launcher.device_of = lambda args: now.device

class Launch:
    def __init__(self, entry, grid, block, shared, stream, context, parameter, buffer):
        self.entry, self.shape = entry, (grid, block)
        self.shared, self.stream, self.context = int(shared), int(stream), int(context)
        self.parameter, self.buffer = (None if b == "-" else bytes.fromhex(b) for b in (parameter, buffer))

def events():
    \"\"\"What the driver was asked since the last call: words, and launches.\"\"\"
    path = os.environ["STUB_LOG"]
    with open(path, "a+") as log:
        log.seek(0)
        lines = [line.split() for line in log]
        log.truncate(0)
    return [Launch(*words[1:]) if words[0] == "launch" else " ".join(words) for words in lines]

events()
"""


def run_on_stub(folder: Path, code: str, **environment: str) -> subprocess.CompletedProcess:
    """Run START and `code` in a new process; the code of the modules that the driver
    loads is in `folder`/ptx, in their order."""
    build_stub(folder)
    (folder / "ptx").mkdir()
    (folder / "elsewhere").mkdir()
    script = folder / "script.py"
    script.write_text(START + textwrap.dedent(code))
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("TI_", "TAICHI_KERNELS_"))}
    clean |= {"PYTHONPATH": str(ROOT), "LD_LIBRARY_PATH": str(folder), "TI_OFFLINE_CACHE": "0"}
    clean |= {
        "STUB_PTX": str(folder / "ptx" / "module"),
        "STUB_CAPABILITY": str(OLDEST_CAPABILITY),
        "STUB_LOG": str(folder / "log"),
        "STUB_READY_MADE": "there is none",
    }
    result = subprocess.run(
        [sys.executable, str(script)],
        env=clean | environment,
        cwd=folder / "elsewhere",
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert not list((folder / "elsewhere").iterdir())
    return result
