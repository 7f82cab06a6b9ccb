"""The rendering scale against a machine whose speed is known."""

import pytest

from ernerf_ti.viewer.scale_control import ScaleControl


def settle(control: ScaleControl, rate: float, per_pixel: float, around: float, n: int = 60) -> list[float]:
    scales = []
    for _ in range(n):
        scale = control.choose(rate)
        n_pixels = round(control.n_pixels * scale**2)
        control.observe(n_pixels, n_pixels * per_pixel, around)
        scales.append(scale)
    return scales


@pytest.mark.parametrize("milliseconds", [10, 40, 100, 300, 700])
def test_rate_is_kept(milliseconds):
    control = ScaleControl(256 * 256)
    scales = settle(control, 10.0, milliseconds / 1000 / 256**2, 0.02)
    assert len(set(scales[-20:])) == 1  # it does not swing
    took = milliseconds / 1000 * scales[-1] ** 2 + 0.02
    assert took <= 0.1 + 1e-9
    larger = scales[-1] + 2 / 16
    assert larger > 1 or milliseconds / 1000 * larger**2 + 0.02 > 0.1  # and no pixels are given away


def test_scale_has_a_floor():
    assert settle(ScaleControl(100), 25.0, 1.0, 0.0)[-1] == 0.25


def test_a_slower_machine_and_back():
    control = ScaleControl(256 * 256)
    fast, slow = 0.05 / 256**2, 0.4 / 256**2
    before = settle(control, 10.0, fast, 0.02)[-1]
    assert before == 1.0
    assert settle(control, 10.0, slow, 0.02)[-1] < 0.5
    assert settle(control, 10.0, fast, 0.02)[-1] == before
