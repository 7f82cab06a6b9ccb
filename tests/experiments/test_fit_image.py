import cv2
import numpy as np
import pytest

from ernerf_ti.cli.main import main


def fit_image(arguments):
    return main(["fit-image", *arguments])


def test_fits_the_synthetic_picture(device, tmp_path, capsys):
    output = tmp_path / "new" / "fit.png"
    options = ["--size", "96", "--steps", "150", "--batch", "4096", "--device", device.type]
    assert fit_image(["-o", str(output), *options]) == 0
    words = capsys.readouterr().out.split()
    assert words[0] == "PSNR"
    assert float(words[1]) > 30  # 34 to 35 measured; the mean color gives 13
    picture = cv2.imread(str(output)).astype(float)
    assert picture.shape == (96, 3 * 96, 3)
    target, result, difference = np.split(picture, 3, axis=1)
    np.testing.assert_allclose(np.abs(result - target), difference, atol=1)
    assert target.std() > 30
    assert [path.name for path in output.parent.iterdir()] == ["fit.png"]


def test_fits_a_file(device, tmp_path):
    photo, output = tmp_path / "photo.jpg", tmp_path / "fit.png"
    assert cv2.imwrite(str(photo), np.full((100, 200, 3), (255, 0, 0), np.uint8))
    options = ["--size", "50", "--steps", "40", "--device", device.type]
    assert fit_image([str(photo), "-o", str(output), *options]) == 0
    picture = cv2.imread(str(output))
    assert picture.shape == (25, 150, 3)
    assert (picture[:, 50:100, 0] > 200).all()  # blue, not red: channels keep their order
    assert (picture[:, 50:100, 2] < 50).all()


def test_same_seed_same_image(device, tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # the order of additions depends on it
    if device.type != "cpu":
        pytest.skip("atomics add in any order on CUDA")
    pictures = []
    for name in ("a.png", "b.png"):
        options = ["--size", "32", "--steps", "20", "--batch", "500", "--device", "cpu"]
        assert fit_image(["-o", str(tmp_path / name), *options]) == 0
        pictures.append((tmp_path / name).read_bytes())
    assert pictures[0] == pictures[1]


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["missing.png"], 1, "missing.png: expected an image, got no such file; check the path"),
        (["{text}"], 1, "text.png: not an image, or a damaged one"),
        (["--steps", "0"], 2, "--steps: expected 1 to 1073741824, got 0; pass another value"),
        (["--size", "4"], 2, "--size: expected 8 to 8192, got 4; pass another value"),
        (["--seed", str(1 << 80)], 2, "--seed: expected 0 or more, below 2^62, got"),
    ],
)
def test_bad_arguments(arguments, status, message, tmp_path, capsys):
    text = tmp_path / "text.png"
    text.write_text("not a picture")
    assert fit_image([*(a.format(text=text) for a in arguments), "-o", str(tmp_path / "fit.png")]) == status
    assert not (tmp_path / "fit.png").exists()
    assert message in capsys.readouterr().err
