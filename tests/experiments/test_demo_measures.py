"""Measures of the demo, on true pictures."""

import dataclasses

import numpy as np
import pytest

from ernerf_ti.data.synthetic.synthetic_portrait import SyntheticPortrait
from ernerf_ti.experiments.demo_measures import LidMeter, lid_aperture
from ernerf_ti.experiments.demo_pictures import beside, contact_sheet


@pytest.fixture(scope="module")
def person(device):
    return SyntheticPortrait(60, 160, seed=3, device=device)


@pytest.mark.parametrize("k", [0, 25, 50])
def test_lid_apertures_of_true_pictures(person, k):
    """At closures between those that the meter is calibrated on."""
    state = person.state(k)
    meter = LidMeter(person, state)
    for closure in (0.15, 0.7, 0.9):
        frame = person.render_state(dataclasses.replace(state, blink=closure))
        assert meter(frame.image) == pytest.approx(lid_aperture(frame.landmarks), abs=0.04), closure


def test_an_iris_that_shines_through_closed_lids_is_seen(person):
    state = person.state(10)
    meter = LidMeter(person, state)
    opened, closed = (person.render_state(dataclasses.replace(state, blink=b)).image.astype(float) for b in (0.0, 1.0))
    ghost = np.round(0.7 * closed + 0.3 * opened).astype(np.uint8)
    assert meter.openness(closed.astype(np.uint8)) == pytest.approx(0, abs=0.01)
    assert meter.openness(ghost) == pytest.approx(0.3, abs=0.03)
    assert meter(ghost) > meter.true_apertures[0] + 0.04
    # Skin that is a little too bright is no open eye.
    assert meter.openness(np.clip(closed + 6, 0, 255).astype(np.uint8)) == pytest.approx(0, abs=0.02)


def test_a_contact_sheet_shows_evenly_chosen_pairs_under_their_captions():
    pairs = [
        (f"frame {k}", beside(np.full((64, 64, 3), 10 * k, np.uint8), np.zeros((64, 64, 3), np.uint8)))
        for k in range(9)
    ]
    sheet = contact_sheet([("one", pairs), ("two", pairs)], rows=3)
    assert sheet.shape == (30 + 24 + 3 * (64 + 24), 2 * 128, 3)
    assert [int(sheet[54 + 88 * row + 20, 20, 0]) for row in range(3)] == [0, 40, 80]
