"""Audio of recordings in detail, and the mesh."""

import sys

import numpy as np
import pytest
import torch

from ernerf_ti.media.sound import read_sound
from ernerf_ti.portrait.config import OccupancyGridConfig
from ernerf_ti.portrait.render.head_occupancy import OccupancyGrid
from ernerf_ti.viewer.mesh_export import export_mesh
from ernerf_ti.viewer.recording import SessionRecording

SCREEN = np.zeros((32, 32, 3), np.uint8)


def record(path, clip, places: list[tuple[float, float | None]]) -> np.ndarray:
    """(time, place) of each screen -> the sound that was written, before its compression."""
    recording = SessionRecording(path, 0.0)
    for now, place in places:
        recording.add(SCREEN, now, clip, place)
    recording.finish()
    return recording.sound


def test_jitter_of_the_clock_leaves_no_gaps(clip, tmp_path):
    jitter = np.random.default_rng(0).uniform(-0.03, 0.03, 6)
    sound = record(tmp_path / "a.mp4", clip, [(k / 25, k / 25 + d if k else 0.0) for k, d in enumerate(jitter)])
    assert np.array_equal(sound, clip.samples)
    assert len(read_sound(tmp_path / "a.mp4")) == pytest.approx(len(sound), abs=1100)


def test_a_seek_is_heard(clip, tmp_path):
    sound = record(tmp_path / "a.mp4", clip, [(0.0, 0.0), (0.04, 0.2), (0.08, None), (0.12, 0.04)])
    expected = np.concatenate(
        (clip.samples[:640], clip.samples[3200:3840], np.zeros(640, np.float32), clip.samples[640:1280])
    )
    assert np.array_equal(sound, expected)


def test_slow_screens_are_repeated_with_the_sound_before(clip, tmp_path):
    sound = record(tmp_path / "a.mp4", clip, [(0.0, 0.0), (0.16, 0.16)])
    assert np.array_equal(sound, clip.samples[: 5 * 640])


@pytest.fixture
def grid() -> OccupancyGrid:
    return OccupancyGrid(OccupancyGridConfig(resolution=16))


class Ball:
    """A ball of density at the capture's (0.05, 0, 0), red on the right; a small one floats far above."""

    def densities(self, positions):
        ball = 0.3 - (positions - torch.tensor([0, 0, 0.2])).norm(dim=1)
        speck = 0.1 - (positions - torch.tensor([0.7, 0, 0.2])).norm(dim=1)
        return 20 * torch.maximum(ball, speck).clamp(min=-1) + 10

    def __call__(self, positions, directions):
        assert torch.equal(directions[0], torch.tensor([0.0, -1, 0]))
        reds = (positions[:, 2] > 0.2).float()
        return type("Output", (), {"rgbs": torch.stack((reds, 1 - reds, 0 * reds), 1)})


@pytest.mark.parametrize("suffix", [".ply", ".obj", ".glb", ".stl"])
def test_mesh(grid, tmp_path, suffix):
    pytest.importorskip("skimage")
    trimesh = pytest.importorskip("trimesh")
    path = tmp_path / f"head{suffix}"
    n_vertices, n_faces = export_mesh(Ball(), grid, path, resolution=64)
    mesh = trimesh.load(path, force="mesh")
    assert len(mesh.faces) == n_faces and (suffix == ".stl" or len(mesh.vertices) == n_vertices)
    assert np.allclose(mesh.bounds.mean(0), (0.05, 0, 0), atol=2e-3)
    assert np.allclose(mesh.extents, 0.6 / 4, atol=4e-3)
    if suffix == ".ply":
        assert mesh.is_watertight
        assert mesh.volume == pytest.approx(4 / 3 * np.pi * 0.075**3, rel=0.03)  # positive: faces look outwards
        right = mesh.vertices[:, 0] > 0.06
        assert (mesh.visual.vertex_colors[right, :3] == (255, 0, 0)).all()


def test_empty_cells_have_no_surface(grid, tmp_path):
    pytest.importorskip("skimage")
    pytest.importorskip("trimesh")
    grid.set_bitfield(torch.zeros_like(grid.bitfield))
    with pytest.raises(ValueError, match="mesh: expected a surface of density 10, got none"):
        export_mesh(Ball(), grid, tmp_path / "head.ply", resolution=32)


def test_mesh_without_its_libraries(grid, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "skimage.measure", None)
    monkeypatch.setitem(sys.modules, "trimesh", None)
    with pytest.raises(ImportError, match=r"pip install 'ernerf-ti\[viewer\]'"):
        export_mesh(Ball(), grid, tmp_path / "head.ply")
    with pytest.raises(ValueError, match=r"head.dae: expected .ply, .obj, .glb, .stl, got '.dae'"):
        export_mesh(Ball(), grid, tmp_path / "head.dae")
    assert not list(tmp_path.iterdir())
