"""Batches on this machine, with a stand-in for the commands."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from ernerf_ti.batch.local import Machine, run_local
from ernerf_ti.batch.plan import keys
from ernerf_ti.batch.sources import open_output
from ernerf_ti.batch.summary import Summary
from tests.batch.conftest import PREFIX

ALL = ["preprocess", "train", "synthesize", "evaluate"]


def run(batch, output=None, workers=2, stop=lambda: False):
    """Records of the rows by name, and how many stages were over."""
    stages = []
    speakers = batch.speakers()
    summary = Summary(open_output(output or str(batch.output)), speakers)
    run_local(speakers, batch.work(output), [{}] * workers, stop, stages.append, summary.add)
    return {record["name"]: record for record in summary.write()}, sum(stages)


def test_the_page_shows_rows_that_are_not_over_yet(batch, monkeypatch):
    monkeypatch.setattr("ernerf_ti.batch.summary._INTERVAL", 0.0)
    batch.write({"a": "one", "b": "broken"})
    speakers, pages = batch.speakers(), []
    output = open_output(str(batch.output))
    summary = Summary(output, speakers)

    def over(record):
        summary.add(record)
        pages.append((batch.output / "index.html").read_text())

    run_local(speakers, batch.work(None), [{}], lambda: False, lambda n: None, over)
    assert "1 done" in pages[0] and "1 unfinished" in pages[0] and "interrupted" not in pages[0].split("<body>")[1]
    assert "1 failed" in pages[1] and "unfinished" not in pages[1]


def test_rows_are_isolated_and_nothing_is_done_twice(batch):
    batch.write({"a": "one", "b": "broken", "c": "killed", "d": "two"})
    records, stages = run(batch)
    assert stages == 16
    assert {name: record["status"] for name, record in records.items()} == {
        **dict.fromkeys("ad", "done"),
        **dict.fromkeys("bc", "failed"),
    }
    assert batch.starts("a") == batch.starts("d") == ALL
    assert batch.starts("b") == ["preprocess", "train"]
    assert records["b"]["message"] == "train: exit status 1: the face is never seen"
    assert records["c"]["message"].startswith("train: ended by signal SIGKILL, as the system does when memory runs out")
    log = batch.output / "b" / records["b"]["stages"][1]["log"]
    assert log.read_text() == "train begins\nthe face is never seen\n"
    kept = (batch.output / "a" / "row.json").stat().st_mtime_ns
    again, stages = run(batch)
    assert stages == 16
    assert again["a"] == records["a"]
    assert batch.starts("a") == ALL and (batch.output / "a" / "row.json").stat().st_mtime_ns == kept
    assert batch.starts("b") == ["preprocess", "train", "train"]
    summary = json.loads((batch.output / "summary.json").read_text())
    assert [summary[state] for state in ("done", "failed", "interrupted")] == [2, 2, 0]
    page = (batch.output / "index.html").read_text()
    assert "the face is never seen" in page and 'href="b/logs/train.txt"' in page


def test_changed_options_run_their_stage_and_what_follows(batch):
    batch.write({"a": "one"})
    run(batch)
    batch.write({"a": "one"}, train="--seed 5")
    records, _ = run(batch)
    assert records["a"]["status"] == "done"
    assert batch.starts("a") == [*ALL, *ALL[1:]]
    assert batch.weights("a") == "one --seed 5"
    assert (batch.output / "a" / "run_before_1" / "weights.txt").read_text() == "one "
    batch.write({"a": "another"}, train="--seed 5")  # the same name, another recording
    run(batch)
    assert batch.starts("a")[-4:] == ALL


def test_the_capture_of_another_video_is_kept(batch):
    batch.write({"a": "one"})
    run(batch)
    capture = batch.output / "a" / "capture"
    (capture / "preprocess").mkdir()
    source = {"name": "a.mp4", "sha256": hashlib.sha256(b"one").hexdigest()}
    (capture / "preprocess" / "crop.json").write_text(json.dumps({"source": source}))
    batch.write({"a": "another"})
    records, _ = run(batch)
    assert records["a"]["status"] == "done"
    assert (batch.output / "a" / "capture_before_1" / "preprocess" / "crop.json").is_file()
    assert [path.name for path in capture.iterdir()] == ["result.txt"]


def test_a_missing_result_is_made_again(batch):
    batch.write({"a": "one"})
    run(batch)
    (batch.output / "a" / "videos" / "hello.mp4").unlink()
    run(batch)
    assert batch.starts("a") == [*ALL, "synthesize"]


def test_a_capture_is_not_preprocessed_and_checks_may_be_left_out(batch):
    (batch.folder / "capture").mkdir()
    (batch.folder / "capture" / "transforms_train.json").write_text("{}")
    batch.table.write_text("name,video,checks\na,capture,no\n")
    records, _ = run(batch)
    assert batch.starts("a") == ["train"]
    assert records["a"]["status"] == "done"


def test_stopping_lets_rows_save_and_the_same_batch_continues(batch):
    batch.write({"a": "slow", "b": "slow", "c": "one"})
    files = [batch.output / name / "progress.txt" for name in "ab"]
    records, _ = run(batch, stop=lambda: all(file.exists() for file in files))
    assert {record["status"] for record in records.values()} == {"interrupted"}
    assert [file.read_text() for file in files] == ["x", "x"]
    assert batch.starts("c") == []
    assert records["a"]["stages"][1]["exit_status"] == 130
    records, _ = run(batch)
    assert {record["status"] for record in records.values()} == {"done"}
    assert batch.starts("a") == ["preprocess", "train", *ALL[1:]]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_batch_that_ends_leaves_no_process(batch, number):
    batch.write({"a": "slow", "b": "one"})
    script = f"""
        import sys
        from ernerf_ti.cli import batch
        batch._PREFIX = {PREFIX!r}
        sys.exit(batch.main(sys.argv[1:]))
    """
    command = [sys.executable, "-c", textwrap.dedent(script), str(batch.table), str(batch.output), "--workers", "1"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not (batch.output / "a" / "progress.txt").exists():
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.02)
    child = int((batch.output / "a" / "starts.txt").read_text().split()[-1])
    os.kill(process.pid, number)
    shown = process.communicate(timeout=60)[1]
    if number == signal.SIGINT:
        assert process.returncode == 130
        assert shown.endswith("interrupted; the same command continues\n")
        assert (batch.output / "a" / "progress.txt").read_text() == "x"
    while Path(f"/proc/{child}").exists() and "zombie" not in Path(f"/proc/{child}/status").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_results_behind_a_url_are_those_of_a_folder(batch):
    fsspec = pytest.importorskip("fsspec")
    memory = fsspec.filesystem("memory")
    memory.pipe("/inputs/a.mp4", b"one")
    memory.pipe("/inputs/b.mp4", b"broken")
    batch.write({"a": "one", "b": "broken"})
    expected, _ = run(batch)
    batch.table.write_text("name,video,sounds\n" + "".join(f"{n},memory://inputs/{n}.mp4,hello.wav\n" for n in "ab"))
    for output in ("memory://results", (batch.folder / "results").as_uri()):
        records, _ = run(batch, output)
        assert {name: row["status"] for name, row in records.items()} == {"a": "done", "b": "failed"}
        assert records["b"]["message"] == expected["b"]["message"]
        kept = open_output(output)
        for name in ("a/run/weights.txt", "a/videos/hello.mp4", "b/logs/train.txt", "a/starts.txt"):
            texts = kept.read(name).decode(), (batch.output / name).read_text()
            mine, theirs = ([word for word in text.split() if not word.isdigit()] for text in texts)
            assert mine == theirs
        started = kept.read("a/starts.txt")
        run(batch, output)
        assert kept.read("a/starts.txt") == started
        assert kept.read("b/starts.txt").decode().count("preprocess") == 1
        assert kept.read("index.html").startswith(b"<!DOCTYPE html>")


def test_keys_follow_content_not_place(batch):
    batch.write({"a": "one"})
    (before,) = map(keys, batch.speakers())
    (batch.folder / "moved.mp4").write_text("one")
    batch.table.write_text("name,video,sounds\na,moved.mp4,hello.wav\n")
    (after,) = map(keys, batch.speakers())
    assert before == after


@pytest.mark.parametrize(
    ("machine", "rows", "workers", "first"),
    [
        (Machine(8, 64, ()), 100, 8, {"OMP_NUM_THREADS": "1"}),
        (Machine(8, 13, ()), 100, 2, {"OMP_NUM_THREADS": "4"}),
        (Machine(8, 64, ()), 2, 2, {"OMP_NUM_THREADS": "4"}),
        (Machine(64, 500, ("3", "5")), 100, 2, {"CUDA_VISIBLE_DEVICES": "3"}),
        (Machine(1, 2, ()), 5, 1, {"OMP_NUM_THREADS": "1"}),
    ],
)
def test_workers_follow_the_machine(machine, rows, workers, first, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert machine.workers(rows, 6.0) == workers
    environments = machine.environments(workers)
    assert len(environments) == workers and environments[0] == first
