"""Batches on a Ray cluster of two nodes in this machine; skipped where Ray is not installed."""

import contextlib
import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from ernerf_ti.batch.local import run_local
from ernerf_ti.batch.ray_engine import Request, run_ray
from ernerf_ti.batch.row import read_record
from ernerf_ti.batch.sources import open_output
from ernerf_ti.batch.summary import Summary
from ernerf_ti.cli.main import main

ALL = ["preprocess", "train", "synthesize", "evaluate"]
REQUEST = Request(cpus=1, gpus=0, memory_gb=0.1)
pytestmark = pytest.mark.filterwarnings("default")  # Ray's own


@pytest.fixture(scope="module")
def cluster():
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
    ray.init(address=cluster.address, log_to_driver=False, logging_level="error")
    yield cluster
    ray.shutdown()
    cluster.shutdown()


def run(batch, stop=lambda: False):
    speakers = batch.speakers()
    summary = Summary(open_output(str(batch.output)), speakers)
    run_ray(speakers, batch.work(), None, REQUEST, stop, lambda n: None, summary.add)
    return {record["name"]: record for record in summary.write()}


def running(batch, names) -> list[int]:
    """Processes of rows that are running."""
    found = []
    for name in names:
        path = batch.output / name / "starts.txt"
        for line in path.read_text().splitlines() if path.is_file() else []:
            status = Path(f"/proc/{line.split()[1]}/status")
            if status.is_file() and "zombie" not in status.read_text():
                found.append(int(line.split()[1]))
    return found


def test_a_broken_row_and_a_dead_node_cost_no_other_row(cluster, batch):
    contents = {name: f"steady {name}" for name in "abcde"} | {"f": "broken"}
    batch.write(contents)
    node = cluster.add_node(num_cpus=2)
    cluster.wait_for_nodes()
    killed = []

    def kill_node():
        # Four rows train at once, two of them on the second node.
        files = [batch.output / name / "progress.txt" for name in "abcd"]
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and not all(f.is_file() and f.stat().st_size >= 3 for f in files):
            time.sleep(0.02)
        cluster.remove_node(node, allow_graceful=False)
        killed.append(True)

    killer = threading.Thread(target=kill_node)
    killer.start()
    records = run(batch)
    killer.join()
    assert killed
    states = {name: record["status"] for name, record in records.items()}
    assert states == dict.fromkeys("abcde", "done") | {"f": "failed"}
    assert records["f"]["message"] == "train: exit status 1: the face is never seen"
    starts = {name: batch.starts(name) for name in "abcde"}
    assert sum(names.count("train") for names in starts.values()) > 5, "no row had been on the dead node"
    assert all(names.count("preprocess") == 1 for names in starts.values())
    # Each step was made once: rows went on from what was saved.
    assert {(batch.output / name / "progress.txt").read_text() for name in "abcde"} == {"x" * 20}

    again = run(batch)
    assert [again[name] for name in "abcde"] == [records[name] for name in "abcde"]
    assert {name: batch.starts(name) for name in "abcde"} == starts
    assert batch.starts("f") == ["preprocess", "train", "train"]

    there = batch.output
    batch.output = batch.folder / "local"
    run_local(batch.speakers(), batch.work(), [{}] * 6, lambda: False, lambda n: None, lambda record: None)
    for name in "abcde":
        for file in ("run/weights.txt", "videos/hello.mp4", "evaluation/result.txt"):
            assert (there / name / file).read_bytes() == (batch.output / name / file).read_bytes()


def test_a_cancelled_batch_saves_and_leaves_nothing_running(cluster, batch):
    batch.write({"a": "slow", "b": "slow", "c": "one"})
    files = [batch.output / name / "progress.txt" for name in "ab"]
    records = run(batch, lambda: all(file.exists() for file in files))
    assert {record["status"] for record in records.values()} == {"interrupted"}
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and running(batch, "abc"):
        time.sleep(0.05)
    assert running(batch, "abc") == []
    assert [file.read_text() for file in files] == ["x", "x"]
    assert read_record(open_output(str(batch.output)), "a")["stages"][1]["status"] == "interrupted"
    assert {record["status"] for record in run(batch).values()} == {"done"}
    assert batch.starts("a") == ["preprocess", "train", *ALL[1:]]


def test_two_rows_share_a_gpu(cluster, batch, monkeypatch):
    node = cluster.add_node(num_cpus=2, num_gpus=1)  # by what Ray is told; no row computes on it
    cluster.wait_for_nodes()
    monkeypatch.setattr(sys.modules[__name__], "REQUEST", Request(cpus=1, gpus=0.5, memory_gb=0.1))
    batch.write({"a": "steady", "b": "steady", "c": "one"})
    together = []
    records = run(batch, lambda: together.append(len(running(batch, "abc"))))
    cluster.remove_node(node)
    assert {record["status"] for record in records.values()} == {"done"}
    assert max(together) == 2
    gpus = [(batch.output / name / "gpus.txt").read_text().splitlines() for name in "abc"]
    assert gpus == 3 * [4 * ["0"]]


def test_a_row_whose_worker_keeps_dying_is_given_up(cluster, batch, monkeypatch):
    batch.write({"a": "steady", "b": "one"})
    stopped = threading.Event()

    def kill_workers():
        while not stopped.wait(0.1):
            for pid in running(batch, "a"):
                with contextlib.suppress(OSError):
                    parent = Path(f"/proc/{pid}/stat").read_text().split()[3]
                    if Path(f"/proc/{parent}/cmdline").read_text().startswith("ray::"):
                        os.kill(int(parent), signal.SIGKILL)

    monkeypatch.setattr(sys.modules[__name__], "REQUEST", Request(cpus=1, gpus=0, memory_gb=0.1, retries=0))
    killer = threading.Thread(target=kill_workers)
    killer.start()
    try:
        records = run(batch)
    finally:
        stopped.set()
        killer.join()
    assert (records["a"]["status"], records["b"]["status"]) == ("failed", "done")
    assert "worker" in records["a"]["message"]


def test_without_ray_the_error_says_what_to_install(batch, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    batch.write({"a": "one"})
    assert main(["batch", str(batch.table), str(batch.output), "--engine", "ray"]) == 1
    assert "pip install 'ernerf-ti[ray]'" in capsys.readouterr().err
