"""Training, synthesis and evaluation by several processes that torchrun starts: the same as by one, ended by Ctrl-C or
by the death of one."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from ernerf_ti.cli.main import main
from ernerf_ti.process.ranks import Ranks
from ernerf_ti.run.checkpoint import load_checkpoint
from ernerf_ti.train.trainer import Trainer

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs gloo and process groups")


@pytest.mark.parametrize("n", [1, 2, 7, 256])
@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_parts_are_all_rays_once(n, count):
    parts = [Ranks(k, count).part(n) for k in range(count)]
    assert [ray for part in parts for ray in range(n)[part]] == list(range(n))
    sizes = [part.stop - part.start for part in parts]
    assert max(sizes) - min(sizes) <= 1 and sizes[0] == max(sizes)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_every_frame_is_rendered_once_and_the_first_one_by_all(count):
    ranks = [Ranks(k, count) for k in range(count)]
    frames = [r.frames(7) for r in ranks]
    assert all(of_rank[0] == 0 for of_rank in frames)  # the range of depths is that of the first frame
    own = [of_rank if r.is_first else of_rank[1:] for r, of_rank in zip(ranks, frames, strict=True)]
    assert sorted(k for of_rank in own for k in of_rank) == list(range(7))
    assert all(r.frames(0) == [] for r in ranks)


def test_alone_nothing_changes():
    alone, x = Ranks(), torch.rand(3, requires_grad=True)
    (joined,) = alone.join(3, [x])
    assert joined is x and alone.once(x) is x and alone.is_first and alone.any(True) and not alone.any(False)
    assert alone.gather("x") == ["x"] and alone.of_first("x") == "x"


def arguments(config, capture, run, iterations):
    """The command line with the settings of the fixture `config`."""
    options = ["--preset", "small", "--device", "cpu", "--features", capture.extractor]
    options += [
        "--portrait.head-grid.resolution",
        "32",
        "--finetune.patch-size",
        "16",
        "--finetune.perceptual",
        "dssim",
    ]
    options += ["--rare-frames-fraction", "0", "--silence-fraction", "0", "--refine-cameras"]
    for name in ("grid-update-every", "save-every", "validate-every", "validation-frames", "log-every"):
        options += [f"--{name}", str(getattr(config, name.replace("-", "_")))]
    for stage, n in iterations.items():
        options += [f"--{stage}.iterations", str(n), f"--{stage}.n-rays", str(getattr(config, stage).n_rays)]
    return ["train", str(capture.folder), str(run), *options]


def start(*arguments, processes=2):
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(processes)]
    command += ["--master-port", "0", "--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0"]
    return subprocess.Popen(
        [*command, "-m", "ernerf_ti", *arguments],
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def stepped(config, capture, folder, iterations, **stop):
    """The same training by this process."""
    stages = {s: dataclasses.replace(getattr(config, s), iterations=n) for s, n in iterations.items()}
    trainer = Trainer(capture, dataclasses.replace(config, refine_cameras=True, **stages), folder)
    trainer.run(**{name: (lambda n=n: trainer.step >= n) for name, n in stop.items()})
    return trainer


def assert_same(state, expected):
    torch.testing.assert_close(state["portrait"], expected["portrait"], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(state["cameras"], expected["cameras"], rtol=1e-4, atol=1e-6)


def test_two_processes_train_as_one(config, capture, tmp_path):
    iterations = {"head": 20, "finetune": 4, "torso": 4}
    with start(*arguments(config, capture, tmp_path / "two", iterations)) as run:
        output = run.communicate(timeout=240)[0]
    assert run.returncode == 0, output
    assert output.count("2 processes") == 1 and output.rstrip().endswith(str(tmp_path / "two"))
    stepped(config, capture, tmp_path / "one", iterations)
    two, one = (load_checkpoint(tmp_path / name / "checkpoint.pt") for name in ("two", "one"))
    assert_same(two, one)
    assert two["cameras"]["rotations"].abs().max() > 0
    logs = ((tmp_path / name / "log.jsonl").read_text().splitlines() for name in ("two", "one"))
    for ours, expected in zip(*logs, strict=True):
        numbers, others = numbers_in(json.loads(ours)), numbers_in(json.loads(expected))
        assert numbers == pytest.approx(others, rel=1e-5)


def numbers_in(entry):
    """What a line of the log says that does not depend on the clock."""
    of_step = {"loss": entry.get("loss", 0), "step": entry["step"], entry["stage"]: 1}
    return of_step | {name: value for name, value in entry["statistics"].items() if name != "rays_per_second"}


def wait_for_steps(run, log, n):
    end = time.monotonic() + 120
    while not (log.is_file() and len(log.read_text().splitlines()) >= n):
        assert run.poll() is None and time.monotonic() < end, run.communicate()[0]
        time.sleep(0.05)


def second_child(run):
    """Process of the second rank."""
    children = Path(f"/proc/{run.pid}/task/{run.pid}/children")
    if not children.is_file():
        os.killpg(run.pid, signal.SIGKILL)
        pytest.skip("needs /proc")
    return int(children.read_text().split()[1])


def test_ctrl_c_and_another_number_of_processes(config, capture, tmp_path):
    iterations = {"head": 100_000, "finetune": 0, "torso": 0}
    with start(*arguments(config, capture, tmp_path / "run", iterations)) as run:
        wait_for_steps(run, tmp_path / "run" / "log.jsonl", 3)
        os.killpg(run.pid, signal.SIGINT)
        output = run.communicate(timeout=120)[0]
    assert run.returncode != 0 and output.count("the same command continues") == 1, output
    content = load_checkpoint(tmp_path / "run" / "checkpoint.pt")
    assert content["step"] >= 4
    alone = stepped(config, capture, tmp_path / "alone", iterations, should_stop=content["step"])
    assert_same(content, load_checkpoint(tmp_path / "alone" / "checkpoint.pt"))
    resumed = Trainer.resume(capture, tmp_path / "run")
    torch.testing.assert_close(resumed.train_step().loss, alone.train_step().loss, rtol=1e-4, atol=1e-6)


def test_the_death_of_one_ends_the_others_and_leaves_the_saved_state(config, capture, tmp_path):
    iterations = {"head": 100_000, "finetune": 0, "torso": 0}
    with start(*arguments(config, capture, tmp_path / "run", iterations)) as run:
        wait_for_steps(run, tmp_path / "run" / "log.jsonl", 3)
        os.kill(second_child(run), signal.SIGKILL)
        output = run.communicate(timeout=120)[0]
    assert run.returncode != 0
    assert "expected all of them to go on, but one has ended" in output, output
    assert Trainer.resume(capture, tmp_path / "run").step >= 3


@pytest.fixture(scope="module")
def trained_run(config, capture, tmp_path_factory):
    folder = tmp_path_factory.mktemp("several") / "run"
    return stepped(config, capture, folder, {"head": 2, "finetune": 0, "torso": 2}).folder


def test_two_processes_render_one_video(trained_run, capture, tmp_path):
    run, sound = trained_run, str(capture.folder / "aud.wav")

    def synthesize(name):
        return ["synthesize", str(run), "--audio", sound, "-o", str(tmp_path / name), "--device", "cpu"] + [
            *("--provenance", "off", "--background", "none")
        ]

    with start(*synthesize("two")) as together:
        output = together.communicate(timeout=240)[0]
    assert together.returncode == 0, output
    assert output.count(str(tmp_path / "two")) == 1
    assert main(synthesize("one")) == 0
    two, one = (sorted((tmp_path / name).iterdir()) for name in ("two", "one"))
    assert [path.name for path in two] == [path.name for path in one] and len(one) >= 22
    assert all(a.read_bytes() == b.read_bytes() for a, b in zip(two, one, strict=True))


def evaluation_of(run, output):
    return ["evaluate", str(run), "--output", str(output), "--device", "cpu"]


def test_two_processes_evaluate_as_one(trained_run, capture, tmp_path):
    speech = ["--cross-speaker-audio", str(capture.folder / "aud.wav"), "--max-seconds", "0.3", "--keep-frames"]
    with start(*evaluation_of(trained_run, tmp_path / "two"), *speech) as together:
        output = together.communicate(timeout=240)[0]
    assert together.returncode == 0, output
    assert output.count("evaluation.html") == 1 and output.count("PSNR frame (dB)") == 1, output
    assert main([*evaluation_of(trained_run, tmp_path / "one"), *speech]) == 0
    two, one = (json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("two", "one"))
    assert set(flat(two["speed"])) == set(flat(one["speed"]))
    assert {"head", "portrait", "truth", "cross_speaker", "silence"} <= set(one["settings"])
    assert list(two["settings"]) == list(one["settings"])
    found, expected = flat(two["settings"]), flat(one["settings"])
    assert list(found) == list(expected)
    for path, value in expected.items():
        assert found[path] == (pytest.approx(value, rel=1e-5) if isinstance(value, float) else value), path
    assert {path.name for path in (tmp_path / "two").iterdir()} == {"metrics.json", "evaluation.html", "frames"}
    frames = [sorted((tmp_path / name / "frames").rglob("*.png")) for name in ("two", "one")]
    assert [path.name for path in frames[0]] == [path.name for path in frames[1]] and frames[0]


def flat(content, path=""):
    """The values in nested lists and objects by their paths."""
    if not isinstance(content, dict | list):
        return {path: content}
    items = content.items() if isinstance(content, dict) else enumerate(content)
    return {place: value for key, inner in items for place, value in flat(inner, f"{path}/{key}").items()}


def test_the_death_of_one_ends_an_evaluation_which_leaves_nothing(trained_run, tmp_path):
    with start(*evaluation_of(trained_run, tmp_path / "out")) as run:
        end = time.monotonic() + 120
        while not any((tmp_path / "out").glob(".frames.*/head/00000.png")):
            assert run.poll() is None and time.monotonic() < end, run.communicate()[0]
            time.sleep(0.02)
        os.kill(second_child(run), signal.SIGKILL)
        output = run.communicate(timeout=120)[0]
    assert run.returncode != 0
    ends = [line for line in output.splitlines() if "no results were written" in line or "one has ended" in line]
    assert len(ends) == 1, output
    assert list((tmp_path / "out").iterdir()) == []
