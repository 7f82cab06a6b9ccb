"""Who may import whom: the boundaries between the parts, read from the sources."""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
OURS = {"taichi_kernels", "ernerf_ti", "tools", "tests"}


def parts(*names: str) -> set[str]:
    return {f"ernerf_ti.{name}" for name in names}


# Folder: (packages of ours that it may import, and third-party packages; None for any).
ALLOWED = {
    "taichi_kernels": ({"taichi_kernels"}, {"taichi", "torch"}),
    "ernerf_ti/audio": (parts("audio"), None),
    "ernerf_ti/data": (parts("data", "audio", "files", "batch", "camera"), None),
    "ernerf_ti/preprocess": (parts("preprocess", "data", "audio", "files", "video"), None),
    "ernerf_ti/synthetic": ({"taichi_kernels", *parts("synthetic", "data", "audio", "files", "video")}, None),
    "ernerf_ti/model": ({"taichi_kernels", *parts("model", "batch")}, None),
    "ernerf_ti/render": ({"taichi_kernels", *parts("render", "batch", "camera")}, None),
    # Training needs neither the trackers nor the synthetic person.
    "ernerf_ti/train": (
        parts("train", "config", "checkpoint", "portrait", "data", "render", "batch", "camera", "files"),
        None,
    ),
    # Neither the kernels nor the fields: a portrait is judged by its pictures.
    "ernerf_ti/evaluation": (
        parts("evaluation", "synthesis", "synthesis_video", "portrait", "checkpoint", "config", "train")
        | parts("data", "audio", "preprocess", "camera", "files", "prefetch", "video"),
        None,
    ),
    "ernerf_ti/official": (
        {
            "taichi_kernels",
            *parts(
                "official", "config", "checkpoint", "portrait", "train", "data", "render", "batch", "audio", "files"
            ),
        },
        None,
    ),
    "ernerf_ti/viewer": (
        {
            "taichi_kernels",
            *parts("viewer", "synthesis", "synthesis_video", "train", "config", "model", "render", "data", "audio"),
            *parts("batch", "camera", "files", "video"),
        },
        None,
    ),
    "tools": (
        {"taichi_kernels", "ernerf_ti", "tests.reference"},
        None,
    ),  # the benchmark times kernels against the twins
}


def imports(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.add(node.module)
    return names


def violations(path: Path, ours: set[str], others: set[str] | None) -> list[str]:
    found = []
    for name in imports(path):
        top = name.split(".")[0]
        if top in OURS:
            fits = any(name == allowed or name.startswith(allowed + ".") for allowed in ours)
        else:
            fits = others is None or top in others or top in sys.stdlib_module_names
        if not fits:
            found.append(name)
    return found


@pytest.mark.parametrize("folder", ALLOWED)
def test_import_order(folder):
    for path in sorted((ROOT / folder).rglob("*.py")):
        assert violations(path, *ALLOWED[folder]) == [], path


def test_only_preprocessing_needs_its_extra():
    # mediapipe has no wheel for the newest Python and holds numpy back.
    plots = ROOT / "ernerf_ti" / "ablation_report.py"  # matplotlib alone is easy to have
    for path in sorted((ROOT / "ernerf_ti").rglob("*.py")):
        used = {name.split(".")[0] for name in imports(path)} & {"mediapipe", "matplotlib"}
        assert not used or path.parent.name == "preprocess" or (path == plots and used == {"matplotlib"}), path


def test_kernel_modules_form_layers():
    # A module imports only modules of lower layers, so that each can be read after those above it.
    layers = [
        {"runtime"},
        {"checks"},
        {"grid_config"},
        {"morton", "frequency_encoding", "spherical_harmonics", "grid_encoding", "ray_aabb", "compositing"},
        {"triplane_encoding", "occupancy_grid", "ray_marching"},
        {"inference"},
        {"__init__"},
    ]
    rank = {name: i for i, layer in enumerate(layers) for name in layer}
    modules = {p.stem: p for p in (ROOT / "taichi_kernels").glob("*.py")}
    assert set(modules) == set(rank)
    for name, path in modules.items():
        for imported in imports(path):
            if imported.startswith("taichi_kernels."):
                assert rank[imported.split(".")[1]] < rank[name], f"{name} imports {imported}"


def test_a_violation_is_seen(tmp_path):
    path = tmp_path / "module.py"
    path.write_text(
        "import numpy\nfrom ernerf_ti.config import x\nimport os.path\nfrom taichi_kernels.checks import y\n"
    )
    assert sorted(violations(path, *ALLOWED["taichi_kernels"])) == ["ernerf_ti.config", "numpy"]
