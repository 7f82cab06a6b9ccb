import cv2
import numpy as np
import pytest


@pytest.fixture(scope="module")
def tool(load_tool):
    return load_tool("fit_image")


def test_fits_the_synthetic_picture(tool, device, tmp_path, capsys):
    output = tmp_path / "new" / "fit.png"
    options = ["--size", "96", "--steps", "150", "--batch", "4096", "--device", device.type]
    assert tool.main(["-o", str(output), *options]) == 0
    words = capsys.readouterr().out.split()
    assert words[0] == "PSNR"
    assert float(words[1]) > 30  # 34 to 35 measured; the mean color gives 13
    picture = cv2.imread(str(output)).astype(float)
    assert picture.shape == (96, 3 * 96, 3)
    target, result, difference = np.split(picture, 3, axis=1)
    np.testing.assert_allclose(np.abs(result - target), difference, atol=1)
    assert target.std() > 30
    assert not list(output.parent.glob("*.tmp"))


def test_fits_a_file(tool, device, tmp_path):
    photo, output = tmp_path / "photo.jpg", tmp_path / "fit.png"
    assert cv2.imwrite(str(photo), np.full((100, 200, 3), (255, 0, 0), np.uint8))
    options = ["--size", "50", "--steps", "40", "--device", device.type]
    assert tool.main([str(photo), "-o", str(output), *options]) == 0
    picture = cv2.imread(str(output))
    assert picture.shape == (25, 150, 3)
    assert (picture[:, 50:100, 0] > 200).all()  # blue, not red: channels keep their order
    assert (picture[:, 50:100, 2] < 50).all()


def test_same_seed_same_picture(tool, device, tmp_path):
    if device.type != "cpu":
        pytest.skip("atomics add in any order on CUDA")
    pictures = []
    for name in ("a.png", "b.png"):
        assert tool.main(["-o", str(tmp_path / name), "--size", "32", "--steps", "20", "--batch", "500"]) == 0
        pictures.append((tmp_path / name).read_bytes())
    assert pictures[0] == pictures[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.png"], "image: expected a picture file, got missing.png, which does not exist; check the path"),
        (["{text}"], "image: expected a picture that OpenCV reads, got"),
        (["--steps", "0"], "--steps: expected at least 1, got 0; pass a larger number"),
        (["--size", "4"], "--size: expected at least 8, got 4; pass a larger number"),
    ],
)
def test_bad_arguments(tool, arguments, message, tmp_path, capsys):
    text = tmp_path / "text.png"
    text.write_text("not a picture")
    with pytest.raises(SystemExit) as exit_info:
        tool.main([a.format(text=text) for a in arguments])
    assert exit_info.value.code == 2
    assert message in capsys.readouterr().err
