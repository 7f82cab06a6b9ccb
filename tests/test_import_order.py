"""Who may import whom: the boundaries between the parts, read from the sources."""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
OURS = {"taichi_kernels", "ernerf_ti", "tools", "tests"}


ROOMS = {
    # Each room may import the rooms above it that are named here, and itself.
    "process": "",
    "media": "process",
    # Consent, signatures and notes in files.
    "media/provenance": "media",
    "audio": "media",
    # Rendering knows neither captures nor runs.
    "portrait": "process",
    # A stored head in place of most of its networks.
    "bake": "portrait process",
    "data": "portrait audio media",
    "data/synthetic": "data audio media",
    "preprocess": "data audio media process",
    "run": "bake portrait audio media",
    # What renders a trained portrait needs nothing of training.
    "synthesis": "run bake portrait data audio media process",
    # So does what renders it while the sound arrives.
    "live": "synthesis run bake portrait data audio media process",
    # Options and protocol load no torch, for the command line.
    "live_server": "live synthesis audio media process",
    # Training needs neither the trackers nor the synthetic person.
    "train": "run portrait data audio media process",
    "interop": "train run portrait data audio media",
    "evaluation": "synthesis train run portrait preprocess data audio media process",
    "viewer": "synthesis train run portrait data audio media process",
    "experiments": "live viewer evaluation train synthesis run portrait preprocess data/synthetic data audio media "
    "process",
    # Starts the commands in processes of their own, and knows their files.
    "batch": "data media process",
    "cli": "batch experiments viewer evaluation interop train live_server live synthesis run bake portrait preprocess "
    "data/synthetic data audio media process",
}
"""Folders of ernerf_ti in their order."""
USE_KERNELS = {"data/synthetic", "portrait", "bake", "viewer", "interop", "experiments"}


def ours(room: str) -> set[str]:
    """Packages of ours that a room may import."""
    names = {f"ernerf_ti.{name.replace('/', '.')}" for name in [room, *ROOMS[room].split()]}
    return names | ({"taichi_kernels"} if room in USE_KERNELS else set())


def files(room: str) -> list[Path]:
    """Modules of a room, without those of the rooms in it."""
    inner = [ROOT / "ernerf_ti" / name for name in ROOMS if name.startswith(room + "/")]
    paths = sorted((ROOT / "ernerf_ti" / room).rglob("*.py"))
    return [path for path in paths if not any(folder in path.parents for folder in inner)]


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
        if name == "ernerf_ti":  # the package itself has only the version
            continue
        if top in OURS:
            fits = any(name == allowed or name.startswith(allowed + ".") for allowed in ours)
        else:
            fits = others is None or top in others or top in sys.stdlib_module_names
        if not fits:
            found.append(name)
    return found


@pytest.mark.parametrize("room", ROOMS)
def test_import_order(room):
    above = list(ROOMS)[: list(ROOMS).index(room)]
    assert set(ROOMS[room].split()) <= set(above), "a room imports only rooms above it"
    for path in files(room):
        assert violations(path, ours(room), None) == [], path


def test_every_module_lies_in_a_room():
    modules = {path.name for path in (ROOT / "ernerf_ti").glob("*.py")}
    assert modules == {"__init__.py", "__main__.py"}
    folders = {path.name for path in (ROOT / "ernerf_ti").iterdir() if any(path.rglob("*.py"))}
    assert folders == {room for room in ROOMS if "/" not in room}
    assert len(folders) <= 18


def test_kernels_import_torch_and_taichi_alone():
    for path in sorted((ROOT / "taichi_kernels").rglob("*.py")):
        assert violations(path, {"taichi_kernels"}, {"taichi", "torch"}) == [], path
    for path in sorted((ROOT / "taichi_kernels" / "reference").glob("*.py")):
        assert violations(path, {"taichi_kernels.reference", "taichi_kernels.grid_config"}, {"torch"}) == [], path


def test_only_preprocessing_needs_its_extra():
    # mediapipe has no wheel for the newest Python and holds numpy back.
    plots = ROOT / "ernerf_ti" / "experiments" / "ablation_report.py"  # matplotlib alone is easy to have
    for path in sorted((ROOT / "ernerf_ti").rglob("*.py")):
        used = {name.split(".")[0] for name in imports(path)} & {"mediapipe", "matplotlib"}
        assert not used or path.parent.name == "preprocess" or (path == plots and used == {"matplotlib"}), path


def test_kernel_modules_form_layers():
    # A module imports only modules of lower layers, so that each can be read after those above it.
    layers = [
        {"cuda_driver", "kernel_cache", "process_environment", "ptx", "step_alphas"},
        {"cuda_launcher", "ready_made"},
        {"runtime"},
        {"checks", "parallel_loops"},
        {"grid_config", "operators", "grid_kernels"},
        {"morton", "frequency_encoding", "spherical_harmonics", "grid_encoding", "ray_aabb", "compositing", "layers"},
        {"lattice", "pixel_tiles"},
        {"grid_images", "triplane_encoding", "baked_grid", "occupancy_grid", "ray_marching", "ray_passes"},
        {"inference", "plane_tiles"},
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
        "import numpy\nfrom ernerf_ti.train.config import x\nimport os.path\nfrom taichi_kernels.checks import y\n"
    )
    assert sorted(violations(path, {"taichi_kernels"}, {"taichi", "torch"})) == ["ernerf_ti.train.config", "numpy"]
