"""Items that are made before they are used; more on `ahead` in tests/synthesis/test_robustness.py."""

import threading

import pytest

from ernerf_ti.process.prefetch import ahead, in_flight


@pytest.mark.parametrize(("n", "expected"), [(1, "aAbBcCdD"), (3, "abcAdBCD"), (9, "abcdABCD")])
def test_items_in_flight(n, expected):
    events = []

    def made():
        for name in "abcd":
            events.append(name)
            yield name

    for name in in_flight(made(), n):
        events.append(name.upper())
    assert "".join(events) == expected


def test_a_generator_is_closed_in_the_thread_that_ran_it():
    closed_in = []

    def endless():
        try:
            while True:
                yield 0
        finally:
            closed_in.append(threading.current_thread().name)

    items = ahead(endless(), 2)
    next(items)
    items.close()
    assert closed_in == ["ahead"]
