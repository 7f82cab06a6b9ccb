import pytest
import torch

from ernerf_ti.portrait.render.sample_capacity import SampleCapacity

MOST = 2**20


def capacity_after(*found):
    capacity = SampleCapacity()
    for n in found:
        capacity.fit(n)
    return capacity


@pytest.mark.parametrize("guess", [0, 1, 4096, 4097, 12_345, 300_000, 2**20])
def test_sizes_are_few_and_fit(guess):
    size = SampleCapacity(guess).size(MOST)
    assert size % 4096 == 0 and guess <= size <= max(4096, 1.19 * guess + 4096)


def test_a_geometric_sequence_of_sizes():
    sizes = {SampleCapacity(n).size(2**24) for n in range(4096, 2**20, 4096)}
    assert len(sizes) < 33  # a quarter of an octave apart


def test_unmeasured_there_is_room_for_all_within_reason():
    assert SampleCapacity().size(65_536 * 16) == 65_536 * 16
    assert SampleCapacity().size(65_536 * 1024) == 2**21


def test_never_more_than_rays_can_have():
    assert capacity_after(500_000).size(8192) == 8192


def test_measured_there_is_headroom():
    size = capacity_after(300_000).size(MOST)
    assert 1.15 * 300_000 <= size < 1.4 * 300_000


def test_too_many_samples_are_told_and_then_fit():
    capacity = SampleCapacity(10_000)
    assert capacity.size(MOST) == 12_288
    for n in (9000, 20_000, 11_000):
        capacity.observe(torch.tensor(n))
    note = capacity.adjust()
    assert note is not None and "20,000" in note and "12,288" in note
    assert capacity.size(MOST) >= 23_000 and f"{capacity.size(MOST):,}" in note
    capacity.observe(torch.tensor(20_000))
    assert capacity.adjust() is None


def test_nothing_observed_changes_nothing():
    capacity = SampleCapacity(10_000)
    assert capacity.adjust() is None and capacity.size(MOST) == 12_288


def test_observing_keeps_no_reference():
    """The number may lie in memory that the next step overwrites."""
    capacity, n = SampleCapacity(), torch.tensor(50_000)
    capacity.observe(n)
    n.zero_()
    capacity.adjust()
    assert capacity.size(MOST) >= 50_000


def test_nearly_full_grows():
    capacity = capacity_after(100_000)
    size = capacity.size(MOST)
    capacity.fit(size - 100)
    assert capacity.size(MOST) > size


def test_shrinks_only_when_long_much_too_large():
    capacity = capacity_after(400_000)
    size = capacity.size(MOST)
    for _ in range(15):
        capacity.fit(100_000)
        assert capacity.size(MOST) == size
    capacity.fit(100_000)
    capacity.fit(100_000)
    assert 115_000 <= capacity.size(MOST) < 140_000
    # A little too large is not worth a change.
    size = capacity.size(MOST)
    for _ in range(40):
        capacity.fit(80_000)
    assert capacity.size(MOST) == size


def test_a_rare_large_frame_keeps_its_room():
    capacity = capacity_after(400_000)
    size = capacity.size(MOST)
    for i in range(64):
        capacity.fit(400_000 if i % 10 == 0 else 100_000)
    assert capacity.size(MOST) == size
