import numpy as np
import pytest

from ernerf_ti.evaluation.pixel_metrics import CROPS, Psnr, Ssim, cropped
from tests.evaluation.conftest import landmarks


def picture(seed, shape=(64, 64, 3)):
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def test_psnr_by_hand():
    truth = np.full((64, 64, 3), 100, np.uint8)
    shown = truth.copy()
    shown[:32] += 10
    # Half of the values are off by 10 of 255: -10 log10(50 / 255^2)
    assert Psnr("frame").of_frame(shown, truth, landmarks()) == pytest.approx(31.1411, abs=1e-4)


def test_differences_of_bytes_do_not_wrap():
    black, white = np.zeros((64, 64, 3), np.uint8), np.full((64, 64, 3), 255, np.uint8)
    assert Psnr("frame").of_frame(black, white, landmarks()) == pytest.approx(0)
    assert Psnr("frame").of_frame(white, black, landmarks()) == pytest.approx(0)


@pytest.mark.parametrize("kind", [Psnr, Ssim])
@pytest.mark.parametrize("crop", ["face", "lips"])
def test_metric_depends_on_its_crop_alone(kind, crop):
    truth, metric, mask = picture(0), kind(crop), np.zeros((64, 64, 1), bool)
    cropped(mask, landmarks(), crop)[:] = True
    shown = np.where(mask, truth, picture(1))
    same = metric.of_frame(truth, truth, landmarks())
    assert metric.of_frame(shown, truth, landmarks()) == same
    inside = np.where(mask, picture(1), truth)
    assert metric.of_frame(inside, truth, landmarks()) < same - 0.1


def test_crops():
    # The points span columns 12 to 52 and rows 26 to 52, the outer lips columns 26 to 38 and rows 36 to 48.
    boxes = {crop: cropped(np.zeros((64, 64, 3)), landmarks(), crop).shape[:2] for crop in CROPS}
    assert boxes == {"frame": (64, 64), "face": (26, 40), "lips": (12, 12), "eyes": (4, 20)}


def slow_ssim(a, b):
    """[Wang et al. 2004], window by window, in float64."""
    x = np.arange(11) - 5
    row = np.exp(-(x**2) / (2 * 1.5**2))
    weights = np.outer(row, row) / row.sum() ** 2
    a, b, values = a / 255.0, b / 255.0, []
    for i in range(a.shape[0] - 10):
        for j in range(a.shape[1] - 10):
            for c in range(3):
                p, q = a[i : i + 11, j : j + 11, c], b[i : i + 11, j : j + 11, c]
                m, n = (weights * p).sum(), (weights * q).sum()
                v, w = (weights * (p - m) ** 2).sum(), (weights * (q - n) ** 2).sum()
                both = (weights * (p - m) * (q - n)).sum()
                values.append((2 * m * n + 1e-4) * (2 * both + 9e-4) / ((m * m + n * n + 1e-4) * (v + w + 9e-4)))
    return np.mean(values)


def test_ssim_is_that_of_the_paper():
    truth = picture(3, (24, 20, 3))
    shown = np.clip(truth + np.random.default_rng(4).normal(0, 30, truth.shape), 0, 255).astype(np.uint8)
    found = Ssim("frame").of_frame(shown, truth, landmarks())
    assert found == pytest.approx(slow_ssim(shown, truth), abs=2e-5)
    assert 0.5 < found < 0.98
    assert Ssim("frame").of_frame(truth, truth, landmarks()) == pytest.approx(1, abs=1e-6)


def test_ssim_is_that_of_scikit_image():
    metrics = pytest.importorskip("skimage.metrics")
    truth, shown = picture(5), picture(6) // 2
    expected = metrics.structural_similarity(
        *(shown, truth),
        **{"channel_axis": 2, "gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "full": True},
    )[1][5:-5, 5:-5].mean()
    assert Ssim("frame").of_frame(shown, truth, landmarks()) == pytest.approx(expected, abs=2e-5)
