"""Errors and signals of a command end in one line."""

import errno
import importlib.util
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import torch

from ernerf_ti.__main__ import main as program
from ernerf_ti.cli.running import Terminated, one_line, run_reporting_errors
from ernerf_ti.media.whole_files import DiskFullError
from ernerf_ti.preprocess.pipeline import StageError


def raises(error):
    def work():
        raise error

    return work


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("a:\n  expected b"), "a: expected b"),
        (ImportError("no lpips"), "no lpips"),
        (FileNotFoundError("x.wav: expected speech"), "x.wav: expected speech"),
        (PermissionError(13, "Permission denied", "/a/b"), "/a/b: Permission denied"),
        (torch.OutOfMemoryError("CUDA out of memory"), "CUDA out of memory"),
        (RuntimeError("PytorchStreamReader failed"), "PytorchStreamReader failed"),
        (MemoryError(), "MemoryError"),
        (EOFError(), "EOFError"),
    ],
)
def test_expected_errors_are_one_line(error, line, capsys):
    assert run_reporting_errors(raises(error)) == 1
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == ("", line + "\n")


def test_errors_of_libraries_are_one_line(tmp_path, capsys):
    (tmp_path / "a.mp4").write_bytes(b"nothing")
    assert run_reporting_errors(lambda: av.open(str(tmp_path / "a.mp4"))) == 1
    assert run_reporting_errors(lambda: cv2.resize(np.zeros((0, 0)), (3, 3))) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2 and "a.mp4" in lines[0] and "resize" in lines[1]


def test_faults_of_the_program_say_where(monkeypatch, capsys):
    assert run_reporting_errors(raises(KeyError("x"))) == 1
    line = capsys.readouterr().err
    assert line.startswith("internal error: KeyError: 'x' (running.py:") and line.count("\n") == 1
    assert "ERNERF_TI_TRACEBACK=1" in line
    monkeypatch.setenv("ERNERF_TI_TRACEBACK", "1")
    for error in (ValueError("bad"), KeyError("bad")):
        with pytest.raises(type(error), match="bad"):
            run_reporting_errors(raises(error))


def test_a_full_disk_in_a_library(capsys):
    assert run_reporting_errors(raises(OSError(errno.ENOSPC, "No space left on device", "/a/log.jsonl"))) == 1
    assert run_reporting_errors(raises(OSError(errno.ENOSPC, "No space left on device"))) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("/a/log.jsonl: the disk is full (") and lines[1].startswith("the disk is full (")


def test_a_full_disk_is_said_once(capsys):
    def work():
        try:
            raise DiskFullError("/a/1.jpg: the disk is full: 5 bytes are free; make room and run the command again")
        except OSError as error:
            raise StageError(f"stage frames: {error}") from error

    assert run_reporting_errors(work) == 1
    shown = capsys.readouterr().err
    assert shown == "stage frames: /a/1.jpg: the disk is full: 5 bytes are free; make room and run the command again\n"


PRINTS = """
import os, sys
from ernerf_ti.cli.running import run_reporting_errors
sys.exit(run_reporting_errors(lambda: print(sys.argv[1])))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no such shell")
@pytest.mark.parametrize(
    ("redirection", "status", "shown"),
    [
        (">&-", 0, b""),
        (">&- 2>&- <&-", 0, b""),
        (">/dev/full", 1, b"the disk is full ("),
        (">/dev/full 2>/dev/full", 1, b""),
        ("", 0, b"caf\xff.wav\n"),
        ("2>&1 | cat", 0, b"caf\xff.wav\n"),
    ],
)
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_any_standard_streams_and_names(redirection, status, shown, unbuffered, monkeypatch):
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)  # "" is as none
    command = [b"sh", b"-c", f'"$0" -c "$1" "$2" {redirection}'.encode(), os.fsencode(sys.executable), PRINTS.encode()]
    done = subprocess.run([*command, b"caf\xff.wav"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert done.returncode == status
    assert done.stdout.startswith(shown) and done.stdout.count(b"\n") <= 1


def test_interruptions(capsys):
    assert run_reporting_errors(raises(KeyboardInterrupt()), "stopped; nothing was written") == 130
    assert run_reporting_errors(raises(Terminated()), "stopped; nothing was written") == 143
    assert capsys.readouterr().err == "stopped; nothing was written\n" * 2


def test_the_first_of_several_processes_says_that_they_were_interrupted(monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in ("1", "0"):
        monkeypatch.setenv("RANK", rank)
        assert run_reporting_errors(raises(KeyboardInterrupt()), f"stopped by {rank}") == 130
    assert capsys.readouterr().err == "stopped by 0\n"


def test_sigterm_runs_what_must_be_run(tmp_path):
    before = signal.getsignal(signal.SIGTERM)

    def work():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            signal.pause()
        finally:
            (tmp_path / "cleaned").touch()

    assert run_reporting_errors(work) == 143
    assert (tmp_path / "cleaned").exists()
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.skipif(sys.platform == "win32", reason="no such signals")
def test_a_signal_that_taichi_would_swallow_comes_again(ctrl_c_raises):
    source = "def _inside_class(send):\n    try:\n        send()\n    except:\n        pass\n"
    module = Path(importlib.util.find_spec("taichi").origin).parent / "lang" / "kernel_impl.py"
    assert "def _inside_class(" in module.read_text(encoding="utf-8")
    scope = {}
    exec(compile(source, str(module), "exec"), scope)

    def work():
        scope["_inside_class"](lambda: os.kill(os.getpid(), signal.SIGINT))
        time.sleep(10)

    assert run_reporting_errors(work) == 130
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_ctrl_c_before_the_command_line_and_at_the_exit(monkeypatch, capsys, ctrl_c_raises):
    monkeypatch.setattr("ernerf_ti.cli.main.main", raises(KeyboardInterrupt()))
    assert program() == 130
    assert signal.getsignal(signal.SIGINT) is signal.SIG_DFL
    assert capsys.readouterr().err == "interrupted\n"


def test_status():
    assert run_reporting_errors(lambda: None) == 0
    assert run_reporting_errors(lambda: 130) == 130
    assert one_line(OSError("no space")) == "no space"


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGPIPE")
def test_a_reader_that_leaves_is_no_error(tmp_path):
    program = textwrap.dedent("""
        import sys
        from ernerf_ti.cli.running import run_reporting_errors
        def work():
            for i in range(100_000):
                print(i)
        sys.exit(run_reporting_errors(work))
    """)
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout.readline() == b"0\n"
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait() == 141
