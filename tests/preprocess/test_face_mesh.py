import sys

import cv2
import numpy as np
import pytest

from ernerf_ti.preprocess import face_mesh
from ernerf_ti.preprocess.face_mesh import (
    choose_face,
    crop_spread,
    ibug_landmarks,
    invalid_reason,
    jittered_crops,
    mesh_yaw,
    to_frame,
    track_face,
)
from tests.preprocess.synthetic_face import face_shape


def mesh(yaw: float = 0) -> np.ndarray:
    """[478, 3] px, a face 200 px high."""
    turn = np.radians(yaw)
    rotation = np.array([[np.cos(turn), 0, np.sin(turn)], [0, 1, 0], [-np.sin(turn), 0, np.cos(turn)]])
    return face_shape() @ rotation.T * (1200, -1200, -1200) + (256, 256, 0)


def drawn_face(size: int = 256) -> np.ndarray:
    """[size, size, 3] uint8: a cartoon that the detector recognizes as a face."""
    image = np.full((size, size, 3), (90, 120, 150), np.uint8)

    def ellipse(x, y, width, height, color):
        center, axes = (int(x * size / 256), int(y * size / 256)), (int(width * size / 256), int(height * size / 256))
        cv2.ellipse(image, center, axes, 0, 0, 360, color, -1, cv2.LINE_AA)

    ellipse(128, 110, 72, 90, (70, 45, 30))
    ellipse(128, 135, 58, 78, (225, 180, 150))
    for x in (104, 152):
        ellipse(x, 122, 13, 6, (250, 250, 250))
        ellipse(x, 122, 6, 6, (60, 40, 30))
        ellipse(x, 107, 16, 4, (70, 45, 30))
    ellipse(128, 148, 10, 7, (205, 155, 125))
    ellipse(128, 132, 5, 20, (235, 195, 165))
    for x in (122, 134):
        ellipse(x, 152, 3, 2, (120, 70, 60))
    ellipse(128, 178, 22, 7, (180, 80, 80))
    ellipse(128, 178, 18, 2, (110, 40, 40))
    return cv2.GaussianBlur(image, (0, 0), 1.5 * size / 256)


def test_crop_round_trip():
    box = np.array([300.0, 200, 120])
    matrices = jittered_crops(box)
    assert matrices.shape == (4, 2, 3)
    points = mesh()
    for matrix in matrices:
        scale = np.sqrt(np.linalg.det(matrix[:, :2]))
        cropped = np.column_stack((points[:, :2] @ matrix[:, :2].T + matrix[:, 2], points[:, 2] * scale))
        np.testing.assert_allclose(to_frame(cropped, matrix), points, atol=1e-9)
    # Every crop contains the whole box, and on average the crops are neither shifted, scaled nor rotated.
    corners = box[:2] + box[2] / 2 * np.array([(-1, -1), (-1, 1), (1, -1), (1, 1)])
    inside = corners @ np.swapaxes(matrices[..., :2], 1, 2) + matrices[:, None, :, 2]
    assert inside.min() > 0 and inside.max() < 384
    np.testing.assert_allclose(inside.mean((0, 1)), 192, atol=3)
    assert len(np.unique(matrices.round(3), axis=0)) == 4


def test_crops_are_deterministic():
    np.testing.assert_array_equal(jittered_crops(np.ones(3)), jittered_crops(np.ones(3)))


def test_largest_face_is_tracked():
    boxes = np.array([[100.0, 100, 50], [300, 100, 60], [200, 200, 20]])
    np.testing.assert_array_equal(choose_face(boxes, None), boxes[1])
    np.testing.assert_array_equal(choose_face(boxes, np.array([110.0, 105, 50])), boxes[0])
    # A small face is not tracked, however near.
    np.testing.assert_array_equal(choose_face(boxes, np.array([200.0, 200, 20])), boxes[0])


def test_spread_by_hand():
    # Two crops 2 px apart in x: each 1 px from their mean. Depth is ignored.
    crops = np.stack((mesh(), mesh() + (2, 0, 9)))
    assert crop_spread(crops) == pytest.approx(1)
    assert np.isnan(crop_spread(np.empty((0, 478, 3))))


def test_yaw():
    for yaw in (-70, -20, 0, 35, 80):
        assert abs(mesh_yaw(mesh(yaw))) == pytest.approx(abs(yaw), abs=1e-6)
    assert mesh_yaw(np.stack((mesh(), mesh(10)))).shape == (2,)


def test_reasons():
    assert invalid_reason(mesh(), 0.5, 4) == ""
    assert invalid_reason(mesh(40), 0.5, 4) == ""
    assert invalid_reason(mesh() * np.nan, np.nan, 0) == "no face"
    assert invalid_reason(mesh(), 0.5, 2) == "mesh in 2 of 4 crops"
    assert invalid_reason(mesh(-70), 0.5, 4).startswith("profile: yaw")
    assert invalid_reason(mesh(), 7.0, 4) == "crops differ by 7.0 px"


def test_ibug_order():
    landmarks = ibug_landmarks(np.stack((mesh(), mesh())))
    assert landmarks.shape == (2, 68, 2)
    assert len(np.unique(face_mesh.IBUG_POINTS)) == 68
    np.testing.assert_array_equal(landmarks[0, [27, 30, 8]], mesh()[[168, 4, 152], :2])
    np.testing.assert_array_equal(landmarks[0, [36, 39, 42, 45]], mesh()[[33, 133, 362, 263], :2])
    # From left to right in the image.
    assert (np.diff(landmarks[0, [0, 36, 39, 27, 42, 45, 16], 0]) > 0).all()


def test_without_mediapipe(monkeypatch):
    for name in ("mediapipe", "mediapipe.python", "mediapipe.python.solutions"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError) as error:
        track_face([drawn_face()])
    assert str(error.value) == (
        "preprocessing needs the package mediapipe 0.10.21; with Python 3.12 or older, "
        "pip install 'ernerf-ti[preprocess]'"
    )


class TestWithMediapipe:
    @pytest.fixture(autouse=True)
    def mediapipe(self):
        pytest.importorskip("mediapipe")

    def test_a_drawn_face(self, capfd):
        empty = np.zeros((256, 256, 3), np.uint8)
        moved = np.roll(drawn_face(), 24, axis=1)
        track = track_face(iter([drawn_face(), empty, moved]), 3)
        assert capfd.readouterr().err == ""
        assert track.points.shape == (3, 478, 3) and track.points.dtype == np.float32
        np.testing.assert_array_equal(track.valid, [True, False, True])
        np.testing.assert_array_equal(track.n_faces, [1, 0, 1])
        assert track.reasons == ("", "no face", "")
        assert np.isnan(track.points[1]).all() and np.isnan(track.spread[1])
        # Mirror symmetry: the nose is on the axis, the outer corners of the eyes are 74 px apart.
        np.testing.assert_allclose(track.points[0, 4, :2], (128, 148), atol=8)
        np.testing.assert_allclose(track.points[0, 263, 0] - track.points[0, 33, 0], 74, atol=8)
        np.testing.assert_allclose(track.points[2, :468, :2] - track.points[0, :468, :2], [[24, 0]] * 468, atol=4)
        assert 0 < track.spread[0] < 2

    def test_same_twice(self):
        first, second = (track_face([drawn_face(200)] * 2) for _ in range(2))
        np.testing.assert_array_equal(first.points, second.points)
        np.testing.assert_array_equal(first.points[0], first.points[1])

    def test_two_faces(self):
        both = np.full((256, 384, 3), (90, 120, 150), np.uint8)
        both[:, :256] = drawn_face()
        both[64:192, 256:] = drawn_face(128)
        track = track_face([both])
        assert track.n_faces[0] == 2
        assert abs(track.points[0, 4, 0] - 128) < 8

    def test_large_images(self):
        large, small = track_face([drawn_face(1600)]), track_face([drawn_face(400)])
        assert large.valid.all()
        np.testing.assert_allclose(large.points[0, :, :2] / 4, small.points[0, :, :2], atol=3)

    def test_messages(self):
        with pytest.raises(ValueError) as error:
            track_face([np.zeros((64, 64, 3), np.uint8)] * 2)
        assert str(error.value).startswith("video: no face found in 2 frames; use a video of one person")
        with pytest.raises(ValueError) as error:
            track_face([])
        assert str(error.value) == "frames: expected at least one, got none; decode the video first"
        with pytest.raises(ValueError) as error:
            track_face([drawn_face(), drawn_face(100)])
        assert str(error.value) == (
            "frame 1: expected [H, W, 3] uint8 RGB of one size, got (100, 100, 3) uint8; decode the video to rgb24"
        )
