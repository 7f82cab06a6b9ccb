"""The check of a GPU: rehearsed on the CPU, and what it does when a part fails or the time is over."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from ernerf_ti.cli.main import main
from ernerf_ti.experiments import check_cuda, check_setup, check_training
from ernerf_ti.experiments.check_setup import REHEARSAL, Check, Sizes
from ernerf_ti.experiments.check_table import Budget, OutOfTimeError, Row, as_table, isolated

CPU = torch.device("cpu")


def run(**parts):
    """The report and the table of these parts alone, and what was saved after each."""
    saved = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(check_cuda, "PARTS", parts)
        report, table = check_cuda.run(CPU, REHEARSAL, 100, "command", lambda report: saved.append(json.dumps(report)))
    return report, table, saved


def test_a_rehearsal_runs_every_part(tmp_path, capsys):
    path = tmp_path / "new" / "check.json"
    assert main(["bench", "cuda", "--device", "cpu", "--quick", "--minutes", "30", "-o", str(path)]) == 0
    report, table = json.loads(path.read_text()), capsys.readouterr().out
    rows = {(row["part"], row["what"]): row for row in report["rows"]}
    assert report["failed"] == 0 and report["device"] == "cpu" and report["torch"] == torch.__version__
    assert list(dict.fromkeys(part for part, _ in rows)) == list(check_cuda.PARTS)
    for stage in ("head", "finetune", "torso"):
        assert rows["steps", f"{stage} step"]["value"] > 0
        assert rows["steps", f"{stage} step, host operations"]["value"] > 100
        assert rows["steps", f"{stage} step, device busy"]["value"] > 0
        for switch in ("networks in bfloat16", "CUDA graphs", "frames stay on the device", "deterministic"):
            row = rows["steps", f"{stage} step, {switch}"]
            assert row["off"] > 0 and row["on"] > 0 and row["ratio"] == row["off"] / row["on"]
    precisions = [rows["quality", f"PSNR, {name}"]["value"] for name in ("float32", "bfloat16")]
    difference = rows["quality", "PSNR, bfloat16 minus float32"]
    assert difference["value"] == pytest.approx(precisions[1] - precisions[0])
    assert 0 < abs(difference["value"]) < 0.5
    targets = {
        part: {
            row["what"]: row["target"] for row in report["rows"] if row["target"] is not None and row["part"] == part
        }
        for part in check_cuda.PARTS
    }
    assert targets.pop("launcher") == {
        "head step": 5,
        "head frame": 2.6,
        "frames on the host": 300,
        "frames into an .mp4": 150,
        "first step": 3,
        "first step, again": 3,
    }
    assert {what: target for of_part in targets.values() for what, target in of_part.items()} == {
        "PSNR, bfloat16 minus float32": -0.05,
        "head step": 9,
        "head frame": 5,
        "frames on the host": 150,
        "frames into an .mp4": 100,
    }
    assert not any(row["met"] is not None for row in report["rows"])  # the sizes are not those of the targets
    for what in ("head frame", "frames on the host", "head step"):
        assert rows["launcher", what]["value"] > 0
    for what in ("head step, whole graphs", "torso step, whole graphs", "frame on the host, whole graphs"):
        assert rows["launcher", what]["off"] > 0 and rows["launcher", what]["on"] > 0
    assert rows["launcher", "first step"]["value"] > 1 and rows["launcher", "first step, again"]["value"] > 1
    for what in ("launch of a kernel", "composite, driver against Taichi"):
        assert rows["launcher", what]["note"] == "skipped: needs CUDA"
    # On the CPU there are no graphs, and one thread gives the same bits each time.
    assert rows["graphs", "two runs without graphs"]["value"] == rows["graphs", "with and without graphs"]["value"] == 0
    assert " passed" in rows["tests", "kernel tests"]["note"]
    skipped = [row for row in report["rows"] if "skipped" in row["note"] and "hardware" not in row["what"]]
    assert all(row["note"] == "skipped: needs CUDA" and row["part"] == "launcher" for row in skipped)
    assert table.count("\n| ") == len(rows) + 1 and str(path) in table
    assert "\n- steps, head step: " in table and " ms, at most 9 ms\n" in table
    assert [entry.name for entry in path.parent.iterdir()] == ["check.json"]


def test_a_part_that_fails_leaves_a_row_and_the_others_go_on():
    def broken(check):
        yield Row("broken", "before", 1.0)
        raise RuntimeError("CUDA error:\nan illegal address")

    def exits(check):
        raise SystemExit("op: expected the twin's result")
        yield

    def fine(check):
        yield Row("fine", "figure", 2.0)

    report, table, saved = run(broken=broken, exits=exits, fine=fine)
    assert report["failed"] == 2
    rows = [row for row in report["rows"] if row["what"] != "time of this part"]
    assert [(row["part"], row["value"], row["failed"]) for row in rows] == [
        *(("broken", 1.0, False), ("broken", None, True), ("exits", None, True), ("fine", 2.0, False))
    ]
    assert rows[1]["note"] == "failed: RuntimeError: CUDA error: an illegal address"
    assert rows[2]["note"] == "failed: SystemExit: op: expected the twin's result"
    assert "failed: SystemExit" in table
    assert [json.loads(text)["failed"] for text in saved] == [1, 2, 2]


def test_a_graph_that_can_not_be_used_is_a_failure():
    def noted(check):
        yield Row("noted", "step", 1.0)
        check.notes += ["CUDA graph of f: why"] * 2

    report, *_ = run(noted=noted, fine=lambda check: iter(()))
    assert [row["note"] for row in report["rows"] if row["failed"]] == ["failed: CUDA graph of f: why"]


def test_failed_rows_are_the_exit_status(tmp_path, monkeypatch, capsys):
    def broken(check):
        raise ValueError("wrong")

    monkeypatch.setattr(check_cuda, "PARTS", {"broken": broken})
    path = tmp_path / "check.json"
    assert main(["bench", "cuda", "--device", "cpu", "--quick", "-o", str(path)]) == 1
    assert "1 of 2 rows failed; see the table" in capsys.readouterr().err
    assert json.loads(path.read_text())["failed"] == 1


def test_what_no_longer_fits_is_skipped():
    report, table = check_cuda.run(CPU, REHEARSAL, 0, "command", lambda report: None)
    notes = [row["note"] for row in report["rows"] if row["note"].startswith("skipped")]
    # The timing of ops begins with the memory, and then has no time for an op.
    assert len(notes) == len(check_cuda.PARTS) + 1
    assert report["failed"] == 0 and "s, 0 s are left" in notes[0] and "skipped: needs about" in table


def test_parts_without_what_they_need_say_so():
    report, *_ = run(steps=check_cuda.PARTS["steps"], frames=check_cuda.PARTS["frames"])
    assert [row["note"] for row in report["rows"] if row["failed"]] == [
        "failed: RuntimeError: no capture: the part that makes it has failed",
        "failed: RuntimeError: no portrait: the parts that train one have failed",
    ]


def test_switches_reach_trainer_and_portrait(monkeypatch, tmp_path):
    trainers, portraits = [], []

    def trainer(capture, config, folder, device, **options):
        options["tell"](f"CUDA graph of {config.precision}")
        trainers.append((config.precision, options["cuda_graphs"], options["frame_memory"]))

    def graphs(setting, device, tell, precision):
        return setting

    monkeypatch.setattr(check_setup, "Trainer", trainer)
    monkeypatch.setattr(check_setup, "cuda_graphs", graphs)
    monkeypatch.setattr(check_setup, "load_portrait", lambda *arguments: portraits.append(arguments[2:]))
    check = Check(CPU, REHEARSAL, Budget(100), tmp_path, capture="a capture", run=tmp_path)
    for switch in (*check.switches(), *check.training_switches()):
        check.trainer(switch.other, 10)
        check.trained(switch.other)
        with switch.other.in_use():
            assert torch.are_deterministic_algorithms_enabled() is switch.is_on is (switch.name == "deterministic")
    assert not torch.are_deterministic_algorithms_enabled()
    assert trainers == [
        *(("float32", "auto", None), ("bf16", "off", None), ("bf16", "auto", 0), ("bf16", "auto", None)),
    ]
    assert portraits[:2] == [(torch.float32, "auto"), (torch.bfloat16, "off")]
    assert check.notes == ["CUDA graph of float32"] + ["CUDA graph of bf16"] * 3


class _Frames:
    """Two frames, in whose place nothing is read."""

    def __init__(self, log):
        self.log = log

    def __len__(self):
        return 2

    def announce(self, frames):
        self.log.append(("announced", frames))

    def frame(self, i):
        self.log.append(("read", i))


class _Trainer:
    """Notes what is asked of it in place of training."""

    def __init__(self):
        self.log, self.device, self.config = [], CPU, SimpleNamespace(grid_update_every=16)
        self.frames = _Frames(self.log)
        self.stages = {"head": SimpleNamespace(adjust=lambda: self.log.append("adjusted"))}

    def start_stage(self, stage):
        self.stage, self.step = stage, 0

    def train_step(self):
        self.log.append(self.step)
        self.step += 1
        return SimpleNamespace(loss=torch.zeros(()))


def test_a_stage_begins_past_its_first_updates_and_after_the_warm_up():
    trainer = _Trainer()
    check_setup.begin(trainer, "head", warm_up=2)
    assert trainer.log == [
        *(("announced", [0, 1]), ("read", 0), ("read", 1)),
        *(512, 513, "adjusted", 528, 529, "adjusted"),
    ]
    assert trainer.step == 512
    assert check_setup.begin(other := _Trainer(), "head") is None
    assert len(other.log) == 3 and other.step == 512


def test_steps_of_the_deterministic_setting_are_so_from_the_warm_up_on(monkeypatch, tmp_path):
    """Graphs that were recorded before would repeat other algorithms."""
    seen = []

    def noted(trainer, *arguments):
        seen.append((trainer, torch.are_deterministic_algorithms_enabled()))

    monkeypatch.setattr(check_training, "begin", noted)
    monkeypatch.setattr(check_training, "take_steps", noted)
    monkeypatch.setattr(Check, "trainer", lambda *arguments, **options: "other")
    check = Check(CPU, REHEARSAL, Budget(1000), tmp_path)
    (switch,) = (switch for switch in check.training_switches() if switch.name == "deterministic")
    rows = list(check_training.compare_steps(check, "default", switch))
    assert [row.what for row in rows] == [f"{stage} step, deterministic" for stage in ("head", "finetune", "torso")]
    assert set(seen) == {("other", True), ("default", False)}


def test_settings_of_steps_leave_time_for_the_other_parts(tmp_path):
    check = Check(CPU, REHEARSAL, Budget(100), tmp_path)
    with pytest.raises(OutOfTimeError):
        list(check_training.compare_steps(check, "default", check.switches()[0]))


@pytest.mark.parametrize(
    ("outcome", "note", "failed"),
    [
        (subprocess.CompletedProcess([], 0, "...\n==== 3 passed in 2.10s ====\n", ""), "3 passed in 2.10s", False),
        (
            subprocess.CompletedProcess([], 1, "F\nFAILED tests/a.py::b - assert 1\n1 failed in 2s\n", ""),
            "1 failed in 2s; FAILED tests/a.py::b - assert 1",
            True,
        ),
        (subprocess.CompletedProcess([], 4, "", "ImportError: torch\n"), "ImportError: torch", True),
        (
            subprocess.TimeoutExpired([], 9),
            "stopped after the 95 s that were left: 0 passed and 0 failed so far",
            False,
        ),
        (
            subprocess.TimeoutExpired([], 9, b"4 workers [90 items]\n....s.F..x [ 12%]\n...\nFiles ..."),
            "stopped after the 95 s that were left: 10 passed and 1 failed so far",
            True,
        ),
        (None, "skipped: not a checkout, its tests are not here", False),
    ],
)
def test_outcomes_of_the_kernel_tests(outcome, note, failed, monkeypatch, tmp_path):
    commands = []

    def called(command, **_):
        commands.append(command)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    monkeypatch.setattr(check_cuda.subprocess, "run", called)
    if outcome is None:
        monkeypatch.setattr(check_cuda, "ROOT", tmp_path)
    (row,) = check_cuda.kernel_tests(Check(CPU, REHEARSAL, Budget(100), tmp_path))
    assert row.note.startswith(note) and row.failed is failed
    for command in commands:
        assert command[:3] == [sys.executable, "-m", "pytest"] and "--device" in command
        assert Path(command[-1]).is_file()


def test_kernel_tests_need_their_tools(monkeypatch, tmp_path):
    monkeypatch.setattr(check_cuda.importlib.util, "find_spec", lambda name: None if name == "hypothesis" else name)
    (row,) = check_cuda.kernel_tests(Check(CPU, REHEARSAL, Budget(100), tmp_path))
    assert row.note == "skipped: not installed: hypothesis" and not row.failed


@pytest.mark.parametrize(("free_gb", "n_cores", "workers"), [(70, 16, 8), (70, 4, 2), (5, 16, 2), (0.5, 1, 1)])
def test_workers_of_the_kernel_tests_on_a_gpu(free_gb, n_cores, workers, monkeypatch, tmp_path):
    commands = []

    def called(command, **_):
        commands.append(command)
        return subprocess.CompletedProcess(command, 0, "1 passed in 1s\n", "")

    monkeypatch.setattr(check_cuda.subprocess, "run", called)
    monkeypatch.setattr(check_cuda.os, "cpu_count", lambda: n_cores)
    monkeypatch.setattr(check_cuda.importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (int(free_gb * 2**30), 80 * 2**30))
    (row,) = check_cuda.kernel_tests(Check(torch.device("cuda", 0), REHEARSAL, Budget(100), tmp_path))
    assert row.note == "1 passed in 1s"
    assert commands[0][commands[0].index("--device") + 1] == "cuda"
    assert commands[0][commands[0].index("-n") + 1] == str(workers)


@pytest.mark.parametrize("driver", ["580.1", None])
def test_facts_of_a_gpu(driver, monkeypatch):
    called = subprocess.run

    def run(command, **options):
        if command[0] != "nvidia-smi":
            return called(command, **options)
        if driver is None:
            raise FileNotFoundError("nvidia-smi")
        return subprocess.CompletedProcess(command, 0, f"{driver}\n", "")

    card = SimpleNamespace(major=9, minor=0, total_memory=80 * 2**30)
    monkeypatch.setattr(check_cuda.subprocess, "run", run)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_: "NVIDIA H100")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: card)
    facts = check_cuda.machine(torch.device("cuda", 0))
    assert (facts["name"], facts["driver"]) == ("NVIDIA H100", driver or "unknown")
    assert (facts["compute_capability"], facts["memory_gb"]) == ("9.0", 80)
    json.dumps(facts)


def test_table_of_rows():
    rows = [
        Row("steps", "head step", 8.123456, unit="ms", target=9.0),
        Row("frames", "into | mp4", 91.26, unit="frames/s", target=100.0, at_most=False),
        Row("steps", "rehearsed", 8.0, unit="ms", target=9.0, judged=False),
        Row("steps", "graphs", off=20.0, on=12345.6, unit="ms", note="why"),
    ]
    assert [row.met for row in rows] == [True, False, None, None]
    assert as_table(rows).splitlines()[2:] == [
        "| steps | head step | 8.123 ms |  |  |  | at most 9 ms: met |  |",
        "| frames | into / mp4 | 91.26 frames/s |  |  |  | at least 100 frames/s: not met |  |",
        "| steps | rehearsed | 8 ms |  |  |  | at most 9 ms |  |",
        "| steps | graphs |  | 20 ms | 12346 ms | 0.00 |  | why |",
    ]
    assert rows[3].as_json()["ratio"] == pytest.approx(20 / 12345.6)
    diverged = Row("quality", "PSNR", float("nan"), target=-0.05, at_most=False)
    assert diverged.as_json()["value"] is None and diverged.met is False
    json.dumps([row.as_json() for row in (*rows, diverged)], allow_nan=False)


def test_interruption_is_no_failure_of_a_part():
    def interrupted():
        raise KeyboardInterrupt
        yield

    with pytest.raises(KeyboardInterrupt):
        list(isolated("part", "what", interrupted))


def test_the_rehearsal_is_small_and_the_check_is_that_of_the_targets():
    full, small = Sizes(), REHEARSAL
    assert (full.image, full.n_rays, full.quality_steps, full.judged) == (512, 65_536, 2000, True)
    numbers = [f.name for f in dataclasses.fields(Sizes) if f.type in (int, float)]
    assert len(numbers) >= 10 and all(getattr(small, name) <= getattr(full, name) for name in numbers)
    assert not small.judged


def test_the_cpu_is_for_rehearsals_only(capsys):
    assert main(["bench", "cuda", "--device", "cpu"]) == 2
    assert capsys.readouterr().err == (
        "--device: expected cuda, got cpu; pass --quick with it to rehearse the check without a GPU\n"
    )
    if not torch.cuda.is_available():
        assert main(["bench", "cuda"]) == 1
        assert "device: expected CUDA, got " in capsys.readouterr().err
