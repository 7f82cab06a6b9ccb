import json
import zipfile

import cv2
import numpy as np
import pytest

from ernerf_ti.media.files import read_arrays, read_image, read_json, replacing, write_arrays, write_image, write_json

RNG = np.random.default_rng(3)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_replacing_appears_at_the_end(tmp_path):
    path = tmp_path / "a.txt"
    with replacing(path) as temporary:
        temporary.write_text("new")
        assert not path.exists()
        assert temporary.suffix == ".txt"
        assert temporary.parent == tmp_path
    assert path.read_text() == "new"
    assert names(tmp_path) == ["a.txt"]


def test_replacing_keeps_the_old_file_after_an_error(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def interrupted():
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_json(tmp_path):
    path = tmp_path / "a.json"
    value = {"fps": 25.0, "frames": [1, 2], "name": "Zoë"}
    write_json(path, value)
    assert read_json(path) == value
    assert names(tmp_path) == ["a.json"]


def test_json_that_can_not_be_written_leaves_the_old_one(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, [1])
    with pytest.raises(TypeError):
        write_json(path, [object()])
    assert read_json(path) == [1]
    assert names(tmp_path) == ["a.json"]


def test_no_json(tmp_path):
    path = tmp_path / "a.json"
    with pytest.raises(FileNotFoundError) as error:
        read_json(path)
    assert f"{path}: expected a JSON file, got no such file; see whether" in str(error.value)
    path.write_text(json.dumps({"a": [1, 2]})[:-2])
    with pytest.raises(ValueError) as error:
        read_json(path)
    assert f"{path}: expected JSON, got Expecting" in str(error.value)
    assert str(error.value).endswith("; write the file again")


def test_arrays(tmp_path):
    arrays = {"points": RNG.standard_normal((3, 2)).astype(np.float32), "valid": np.array([True, False])}
    for name in ("a.npz", "b.npz"):
        write_arrays(tmp_path / name, **arrays)
    found = read_arrays(tmp_path / "a.npz")
    assert list(found) == ["points", "valid"]
    for key, value in arrays.items():
        assert found[key].dtype == value.dtype and np.array_equal(found[key], value)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    with zipfile.ZipFile(tmp_path / "a.npz") as file:  # no time of writing, that would differ in a later run
        assert {entry.date_time for entry in file.infolist()} == {(1980, 1, 1, 0, 0, 0)}
    assert names(tmp_path) == ["a.npz", "b.npz"]


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 3), (5, 7, 4)])
def test_png_round_trip(shape, tmp_path):
    image = RNG.integers(0, 256, shape, np.uint8)
    write_image(tmp_path / "a.png", image)
    found = read_image(tmp_path / "a.png")
    expected = np.repeat(image[..., None], 3, 2) if image.ndim == 2 else image
    assert found.dtype == np.uint8 and np.array_equal(found, expected)
    assert names(tmp_path) == ["a.png"]


def test_png_is_rgb_on_disk(tmp_path):
    write_image(tmp_path / "a.png", np.full((2, 2, 3), [255, 0, 10], np.uint8))
    assert cv2.imread(str(tmp_path / "a.png"))[0, 0].tolist() == [10, 0, 255]


def test_jpg_keeps_color_edges(tmp_path):
    # One pixel of red beside one of blue: chroma at half resolution would mix them.
    image = np.zeros((16, 16, 3), np.uint8)
    image[:, ::2, 0] = image[:, 1::2, 2] = 200
    write_image(tmp_path / "a.jpg", image)
    assert np.abs(read_image(tmp_path / "a.jpg").astype(int) - image).max() < 12


def test_no_picture(tmp_path):
    path = tmp_path / "a.png"
    with pytest.raises(FileNotFoundError) as error:
        read_image(path)
    assert f"{path}: expected a picture, got no such file" in str(error.value)
    path.write_text("no picture")
    with pytest.raises(ValueError) as error:
        read_image(path)
    assert f"{path}: expected a picture of 8 bits a channel, got a file that is not one" in str(error.value)
    cv2.imwrite(str(path), np.zeros((4, 4, 3), np.uint16))
    with pytest.raises(ValueError, match="expected a picture of 8 bits a channel"):
        read_image(path)


def test_image_without_a_folder(tmp_path):
    path = tmp_path / "none" / "a.png"
    with pytest.raises(OSError) as error:
        write_image(path, np.zeros((4, 4, 3), np.uint8))
    assert f"{path}: expected to write the image, got a refusal" in str(error.value)
