import dataclasses
import subprocess

import pytest
import torch

from ernerf_ti.evaluation import run_facts
from ernerf_ti.evaluation.run_facts import commit, machine, model_size, versions
from ernerf_ti.portrait.portrait import Portrait
from ernerf_ti.train.config import PRESETS


def test_model_size(tmp_path):
    small = PRESETS["small"].portrait
    portrait = Portrait(
        dataclasses.replace(small, head_grid=dataclasses.replace(small.head_grid, resolution=32)), 42, 5
    )
    torch.save(portrait.state_dict(), tmp_path / "checkpoint.pt")
    found = model_size(portrait, tmp_path / "checkpoint.pt")
    n = sum(p.numel() for p in portrait.parameters())
    parts = found["parameters"]
    assert parts["all"] == n == parts["head"] + parts["torso"] + parts["appearance embeddings"]
    embeddings = sum(module.appearance.embeddings.numel() for module in (portrait.head, portrait.torso))
    assert parts["appearance embeddings"] == embeddings > 0
    assert min(parts["head"], parts["torso"]) > 1000
    assert found["megabytes"] == 4e-6 * n
    assert found["checkpoint_megabytes"] * 1e6 == pytest.approx((tmp_path / "checkpoint.pt").stat().st_size)


def test_commit_of_this_tree_only(tmp_path, monkeypatch):
    package = tmp_path / "ernerf_ti" / "evaluation"
    package.mkdir(parents=True)
    (tmp_path / "ernerf_ti" / "__init__.py").write_text("")
    monkeypatch.setattr(run_facts, "__file__", str(package / "run_facts.py"))
    assert commit() is None  # no tree

    def git(*arguments):
        settings = ("-c", "user.name=a", "-c", "user.email=a@b.c")
        done = subprocess.run(["git", *settings, *arguments], cwd=tmp_path, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    git("init", "-q")
    (tmp_path / "other").write_text("")
    git("add", "other")
    git("commit", "-qm", "another project's tree, with the package in an ignored folder of it")
    assert commit() is None
    git("add", "ernerf_ti")
    git("commit", "-qm", "the package")
    assert commit() == git("rev-parse", "HEAD")
    (tmp_path / "other").write_text("changed")
    assert commit() == git("rev-parse", "HEAD") + "+"


def test_machine_and_versions():
    assert machine("cpu")["device"]
    assert machine("cpu")["threads"] == torch.get_num_threads()
    assert versions()["torch"].split("+")[0] == torch.__version__.split("+")[0]  # builds differ in what follows
