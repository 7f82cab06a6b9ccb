"""Code of kernels that a wheel carries: made on a stub of the driver, and taken instead of compiling where it fits."""

import gzip
import itertools
import json
import re
import subprocess
import sys

import pytest
import torch

import taichi_kernels as tk
from ernerf_ti.portrait.portrait import Portrait
from ernerf_ti.train.config import PRESETS
from taichi_kernels import ready_made
from taichi_kernels.ptx import KernelCode
from tests.cuda_stub import ROOT, needs_stub, run_on_stub

OPTIONS = {"fast_math": "False"}


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("made") / "kernels.json.gz"
    command = [sys.executable, ROOT / "release" / "compile_kernels.py", "--output", path]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert printed.endswith(f" kernels, {path.stat().st_size} bytes: {path}\n")
    return path


LAUNCH = """
import importlib
kernels = importlib.import_module("taichi_kernels.frequency_encoding")._kernels(torch.float32, True)
args = torch.zeros(6), 2, 3, 1, torch.zeros(18)
"""


@needs_stub
def test_first_launch_compiles_nothing(file, tmp_path):
    result = run_on_stub(
        tmp_path,
        LAUNCH
        + """
now.device, now.stream = 1, Stream(5)
runtime.launch(kernels.encode, *args)
events_ = [e if isinstance(e, str) else (e.context, e.stream, e.buffer, e.shape) for e in events()]
assert events_[-2:] == [(2, 5, None, ("4x1x1", "128x1x1")), "pop 0x2"], events_
assert [e.split()[0] for e in events_[:-2]] == ["push", "load", "pop", "push"], events_
print(runtime._session.driver_kernels[kernels.encode]._code.text, end="")
""",
        TAICHI_KERNELS_CUDA_LAUNCHER="driver",
        STUB_READY_MADE=str(file),
    )
    (tmp_path / "again").mkdir()
    again = run_on_stub(
        tmp_path / "again",
        LAUNCH
        + """
runtime.launch(kernels.encode, *args)
assert [e.buffer is None for e in events() if not isinstance(e, str)] == [False]  # Taichi's launch, which compiles
print(runtime._session.driver_kernels[kernels.encode]._code.text, end="")
""",
        TAICHI_KERNELS_CUDA_LAUNCHER="driver",
    )
    taken, compiled = (re.sub(r"encode_c\d+_", "encode_", done.stdout) for done in (result, again))  # a running number
    assert taken == compiled and ".entry" in taken


@needs_stub
@pytest.mark.parametrize("change", [{"TI_FAST_MATH": "1"}, {"STUB_CAPABILITY": "70"}])
def test_other_code_is_compiled(change, file, tmp_path):
    run_on_stub(
        tmp_path,
        LAUNCH
        + """
runtime.launch(kernels.encode, *args)
assert [e.buffer is None for e in events() if not isinstance(e, str)] == [False]
""",
        TAICHI_KERNELS_CUDA_LAUNCHER="driver",
        STUB_READY_MADE=str(file),
        **change,
    )


@needs_stub
def test_kernels_of_the_presets_are_there(file):
    names = json.loads(gzip.decompress(file.read_bytes()))["kernels"]
    for config in PRESETS.values():
        portrait = Portrait(config.portrait, 44, 3)
        encodings = [m for m in portrait.modules() if isinstance(m, (tk.GridEncoding, tk.TriplaneEncoding))]
        assert len(encodings) == 2
        for encoding in encodings:
            grid = encoding.config
            n_planes = 3 if isinstance(encoding, tk.TriplaneEncoding) else 1
            grids = f"({grid.n_dims}, {n_planes}, {grid.n_features}, {grid.interpolation!r}, {grid.align_corners}, "
            for kernel in ("encode", "grad_table", "grad_positions"):
                name = f"taichi_kernels.grid_kernels.{kernel}{grids}torch.float32, torch.float32, False, True, False)"
                assert name in names
        degree = config.portrait.head.direction_degree
        assert f"taichi_kernels.spherical_harmonics.evaluate({degree}, torch.float32, True)" in names


LAUNCH_ONCE = (
    LAUNCH
    + """
runtime.launch(kernels.encode, *args)
(launched,) = [e for e in events() if not isinstance(e, str)]
print("taken" if launched.buffer is None else "compiled")  # Taichi's launch, which compiles, has a buffer
print(runtime._session.driver_kernels[kernels.encode]._code.text, end="")
"""
)


@needs_stub
def test_compiled_code_is_kept_for_other_processes(tmp_path):
    cache, numbers = tmp_path / "cache", itertools.count()

    def run(**environment):
        folder = tmp_path / str(next(numbers))
        folder.mkdir()
        shared = {"TI_OFFLINE_CACHE": "1", "TI_OFFLINE_CACHE_FILE_PATH": str(cache)}
        environment = shared | {"TAICHI_KERNELS_CUDA_LAUNCHER": "driver"} | environment
        how, code = run_on_stub(folder, LAUNCH_ONCE, **environment).stdout.split("\n", 1)
        assert ".entry" in code
        return how, code

    def kept():
        return {path: path.read_bytes() for path in cache.rglob("code_by_value/**/*") if path.is_file()}

    assert run(TI_OFFLINE_CACHE="0")[0] == "compiled" and not kept()
    how, code = run()
    ((file, whole),) = kept().items()
    assert how == "compiled" and run() == ("taken", code) and kept() == {file: whole}
    file.write_bytes(whole[:-9])
    assert run()[0] == "compiled" and kept().keys() == {file}
    assert run(TI_FAST_MATH="1")[0] == "compiled" and kept().keys() == {file}  # replaced
    assert run(STUB_CAPABILITY="80")[0] == "compiled" and len(kept()) == 2


@needs_stub
def test_a_cache_that_cannot_be_written_is_no_error(tmp_path):
    cache = tmp_path / "cache"
    (cache / "code_by_value").parent.mkdir()
    (cache / "code_by_value").write_text("in the way")
    environment = {"TI_OFFLINE_CACHE": "1", "TI_OFFLINE_CACHE_FILE_PATH": str(cache)}
    done = run_on_stub(tmp_path, LAUNCH_ONCE, TAICHI_KERNELS_CUDA_LAUNCHER="driver", **environment)
    assert done.stdout.startswith("compiled\n")


@pytest.fixture
def saved(tmp_path, monkeypatch):
    monkeypatch.setattr(ready_made, "FILE", tmp_path / "kernels.json.gz")
    codes = {"b": KernelCode("text", "entry", 128, True), "a": KernelCode("other", "entry", 1, False)}
    ready_made.save(codes, OPTIONS, ready_made.FILE)
    return codes


def test_load_gives_what_was_saved(saved):
    assert ready_made.load(OPTIONS) == saved
    assert ready_made.load({"fast_math": "True"}) == {}


def test_code_of_another_taichi_is_not_taken(saved, monkeypatch):
    monkeypatch.setattr(ready_made, "version", lambda name: "1.7.5")
    assert ready_made.load(OPTIONS) == {}


def test_code_of_other_sources_is_not_taken(saved, monkeypatch, tmp_path):
    (tmp_path / "ready_made.py").write_text("")
    monkeypatch.setattr(ready_made, "__file__", str(tmp_path / "ready_made.py"))
    assert ready_made.load(OPTIONS) == {}


@pytest.mark.parametrize(
    "content", [None, b"", b"{}", "half", gzip.compress(b"[]", mtime=0), gzip.compress(b"{}", mtime=0)]
)
def test_a_file_that_is_not_whole_is_as_none(saved, content):
    if content is None:
        ready_made.FILE.unlink()
    else:
        whole = ready_made.FILE.read_bytes()
        ready_made.FILE.write_bytes(whole[: len(whole) // 2] if content == "half" else content)
    assert ready_made.load(OPTIONS) == {}


def test_kernels_are_made_once_and_named_by_arguments():
    made = []

    @ready_made.kernel_factory
    def make(*args):
        def kernel(): ...

        made.append(args)
        return (kernel,)

    (kernel,) = make(2, "linear", torch.float32)
    assert make(2, "linear", torch.float32) == (kernel,) and make(3)[0] is not kernel and len(made) == 2
    assert kernel.instance == f"{__name__}.kernel(2, 'linear', torch.float32)"
