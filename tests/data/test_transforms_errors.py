"""What is said about transforms files that are incomplete or inconsistent."""

import json
import math

import pytest

from tests.data.test_capture_errors import message_of


@pytest.mark.parametrize("content", ["[]", "{}", '{"frames": []}', "3"])
def test_transforms_without_frames(capture, content):
    capture.paths.transforms("train").write_text(content)
    assert "transforms_train.json: expected a list of frames, got none; track" in message_of(capture.folder)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda frame: frame.pop("img_id"), "got KeyError('img_id')"),
        (lambda frame: frame.pop("transform_matrix"), "got KeyError('transform_matrix')"),
        (lambda frame: frame["transform_matrix"].pop(), "expected img_id, aud_id and a 4x4 transform_matrix"),
    ],
)
def test_incomplete_frame(capture, change, words):
    capture.change_json(capture.paths.transforms("train"), lambda content: change(content["frames"][3]))
    message = message_of(capture.folder)
    assert "transforms_train.json: expected img_id, aud_id and a 4x4 transform_matrix in each frame, got" in message
    assert words in message


def test_poses_of_another_shape(capture):
    def cut(content):
        for frame in content["frames"]:
            frame["transform_matrix"].pop()

    capture.change_json(capture.paths.transforms("train"), cut)
    assert "expected a 4x4 transform_matrix in each frame, got [3, 4]; track" in message_of(capture.folder)


@pytest.mark.parametrize("value", [1.5, math.nan])
def test_no_rotation(capture, value):
    def spoil(content):
        for k in (4, 6):
            content["frames"][k]["transform_matrix"][0][0] = value

    capture.change_json(capture.paths.transforms("train"), spoil)
    message = message_of(capture.folder)
    assert "got something else in 2 of 10 frames (first: img_id 4); track" in message
    assert "expected each transform_matrix to be a rotation and a translation of at most 100 m" in message


def test_mirrored_pose(capture):
    def mirror(content):
        for row in content["frames"][2]["transform_matrix"][:3]:
            row[0] = -row[0]

    capture.change_json(capture.paths.transforms("train"), mirror)
    assert "got something else in 1 of 10 frames (first: img_id 2)" in message_of(capture.folder)


@pytest.mark.parametrize(("row", "value"), [(3, 0.5), (0, 101.0), (2, -1e9)])
def test_other_entries_of_a_pose(capture, row, value):
    def spoil(content):
        content["frames"][7]["transform_matrix"][row][3] = value

    capture.change_json(capture.paths.transforms("train"), spoil)
    assert "got something else in 1 of 10 frames (first: img_id 7)" in message_of(capture.folder)


@pytest.mark.parametrize(("key", "value"), [("img_id", 3), ("img_id", -1), ("aud_id", -1)])
def test_frame_numbers(capture, key, value):
    capture.change_json(capture.paths.transforms("train"), lambda content: content["frames"][4].update({key: value}))
    message = message_of(capture.folder)
    assert (
        "transforms_train.json: expected non-negative img_id and aud_id and each img_id once, got negative" in message
    )


def test_a_frame_in_both_splits(capture):
    capture.change_json(capture.paths.transforms("val"), lambda content: content["frames"][0].update(img_id=3))
    message = message_of(capture.folder)
    assert (
        "transforms_val.json: expected frames that are not in transforms_train.json, got 1 of them (first: img_id 3)"
        in (message)
    )


def test_audio_beyond_the_end(capture):
    capture.change_json(capture.paths.transforms("train"), lambda content: content["frames"][4].update(aud_id=99))
    message = message_of(capture.folder)
    assert "expected more than 99 frames (the largest img_id or aud_id), got n_frames 12" in message


def test_no_focal_length(capture):
    capture.change_json(capture.paths.transforms("train"), lambda content: content.pop("focal_len"))
    assert "expected a focal length (focal_len, fl_x or camera_angle_x), got none" in message_of(capture.folder)


@pytest.mark.parametrize("value", [0, -3, math.inf, math.nan, "70", [70]])
@pytest.mark.parametrize("key", ["focal_len", "cx", "h"])
def test_camera_values(capture, key, value):
    capture.change_json(capture.paths.transforms("train"), lambda content: content.update({key: value}))
    message = message_of(capture.folder)
    assert f"transforms_train.json: expected a positive number for {key}, got {value!r}; track" in message


@pytest.mark.parametrize("w", [{}, {"w": None}])
def test_no_size(capture, w):
    def strip(content):
        for key in ("cx", "w"):
            content.pop(key)
        content.update(w)

    capture.change_json(capture.paths.transforms("train"), strip)
    assert "expected cx and cy, or w and h, got neither; track" in message_of(capture.folder)


def test_both_transforms_are_checked(capture):
    for split in ("train", "val"):
        capture.paths.transforms(split).write_text(json.dumps({"frames": []}))
    message = message_of(capture.folder)
    assert "2 problems with this capture" in message
    assert message.count("expected a list of frames, got none") == 2
