"""Durations from logs, those of version 0.1.0 too."""

import json

import pytest

from ernerf_ti.run.folder import RunFolder
from ernerf_ti.train.training_log import clear_log, rewind_log, training_seconds

OLD = [
    {"stage": "head", "step": 20, "seconds": 5.0},
    {"stage": "head", "step": 40, "seconds": 9.0},
    {"stage": "head", "step": 40, "validation_psnr": 20.0},
    {"stage": "head", "step": 40, "seconds": 4.0},  # resumed from step 20; seconds start anew
    {"stage": "head", "step": 60, "seconds": 6.5},
    {"stage": "fine", "step": 20, "seconds": 3.0},
]


def write(path, lines) -> None:
    path.write_text("\n".join(map(json.dumps, lines)) + "\n")


def test_each_step_counts_once(tmp_path):
    log = tmp_path / "log.jsonl"
    write(log, OLD)
    assert training_seconds(log) == {"head": 11.5, "finetune": 3.0}
    slower = [OLD[0], OLD[1], {"stage": "head", "step": 40, "seconds": 10.0}]
    write(log, slower)
    assert training_seconds(log) == {"head": 15.0}
    cumulative = [OLD[0], OLD[1], {"stage": "head", "step": 60, "seconds": 14.0}]
    write(log, cumulative)
    assert training_seconds(log) == {"head": 14.0}


def test_unknown_durations(tmp_path):
    assert training_seconds(tmp_path / "log.jsonl") is None
    (tmp_path / "log.jsonl").write_text('{"stage": "head", "step": 1, "loss": 0.1}\n')
    assert training_seconds(tmp_path / "log.jsonl") is None


def test_rewinding_makes_old_durations_cumulative(tmp_path):
    folder = RunFolder(tmp_path)
    write(folder.log, OLD)
    with folder.log.open("a") as log:
        log.write('{"stage": "fine", "st')  # cut off by a crash
    rewind_log(folder, "head", 60)
    lines = [json.loads(line) for line in folder.log.read_text().splitlines()]
    assert [(line["step"], line["seconds"]) for line in lines] == [(20, 5.0), (40, 9.0), (60, 11.5)]
    with folder.log.open("a") as log:
        log.write('{"stage": "head", "step": 80, "seconds": 15.0}\n')
    assert training_seconds(folder.log) == {"head": 15.0}
    rewind_log(RunFolder(tmp_path / "none"), "head", 60)


def test_a_log_of_something_else_is_not_removed(tmp_path):
    folder = RunFolder(tmp_path)
    folder.tensorboard.mkdir()
    (folder.tensorboard / "events.out.tfevents.1").touch()
    (folder.tensorboard / "notes.txt").touch()
    with pytest.raises(ValueError, match="the folder of a run, got one with tensorboard of something else; choose"):
        clear_log(folder)
    folder.config.touch()
    clear_log(folder)
    assert [path.name for path in folder.tensorboard.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize(
    "line", ['["head"]', '{"stage": ["head"], "step": 1}', '{"stage": "head", "step": "x"}', "\x00"]
)
def test_damaged_lines_are_left_out(tmp_path, line):
    log = tmp_path / "log.jsonl"
    write(log, OLD[:1])
    log.write_text(f"{line}\n{log.read_text()}")
    assert training_seconds(log) == {"head": 5.0}
