"""Which frames of a capture have a closed mouth."""

import numpy as np

from ernerf_ti.data.mouth import closed_mouths


def talking(n=400):
    """Openings of a mouth that is closed for 8 frames in every 40."""
    phase = np.arange(n) % 40
    return np.where(phase < 8, 0.002, 0.05 + 0.05 * np.sin(phase) ** 2), phase < 8


def test_closed_frames_are_found():
    openings, closed = talking()
    found = closed_mouths(openings)
    assert 40 <= len(found) and closed[found].all()
    assert list(found) == sorted(set(found))


def test_single_frames_do_not_count():
    openings, closed = talking()
    openings[[20, 100, 260]] = 0.0  # landmarks that err
    openings[closed] += 0.001 * np.random.default_rng(0).random(closed.sum())
    found = closed_mouths(openings)
    assert len(found) and closed[found].all()


def test_a_mouth_that_never_closes_gives_its_smallest_openings():
    openings = 0.08 + talking()[0]
    found = closed_mouths(openings)
    assert len(found) and openings[found].max() == openings.min()


def test_gradual_openings_give_a_tenth_of_the_frames_at_most():
    found = closed_mouths(np.linspace(0.0, 0.02, 300))
    assert 28 <= len(found) <= 31 and found.max() <= 31


def test_few_frames():
    assert list(closed_mouths(np.array([0.3]))) == [0]
    assert len(closed_mouths(np.array([0.3, 0.1]))) >= 1
