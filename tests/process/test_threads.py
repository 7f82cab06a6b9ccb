"""Choice of the number of CPU threads, with a simulated machine."""

import contextlib
import subprocess
import sys

import pytest
import torch

from ernerf_ti.process.threads import ThreadTuner, adaptive_threads, one_torch_thread


class Machine:
    """A clock, and work whose time depends on the number of threads."""

    def __init__(self, seconds: dict[int, float]):
        self.seconds, self.now, self.threads = seconds, 0.0, max(seconds)
        self.changes: list[int] = []
        self.done = {n: 0 for n in seconds}

    def available(self) -> int:
        return max(self.seconds)

    def set(self, n: int) -> None:
        self.threads = n
        self.changes.append(n)

    def work(self, factor: float = 1.0) -> None:
        self.now += factor * self.seconds[self.threads]
        self.done[self.threads] += 1

    def clock(self) -> float:
        return self.now

    def tuner(self, device_type: str = "cpu") -> ThreadTuner:
        return ThreadTuner(device_type, self, self.clock)


def run(tuner: ThreadTuner, machine: Machine, n: int) -> None:
    for _ in range(n):
        with tuner:
            machine.work()


@pytest.mark.parametrize(("one", "two"), [(0.07, 0.058), (0.058, 0.07)])
def test_the_faster_is_used(one, two):
    machine = Machine({1: one, 2: two})
    run(machine.tuner(), machine, 100)
    faster = 1 if one < two else 2
    assert machine.threads == faster
    assert machine.done[3 - faster] <= 12


def test_compilation_of_the_first_units_does_not_count():
    machine = Machine({1: 0.05, 2: 0.06})
    tuner = machine.tuner()
    with tuner:
        machine.work(100)
    run(tuner, machine, 60)
    assert machine.threads == 1


def test_a_busy_machine_costs_little():
    """As measured: 3.5 s a step with all threads, 0.067 s with one."""
    machine = Machine({1: 0.067, 2: 3.5})
    run(machine.tuner(), machine, 5000)
    assert machine.threads == 1
    assert machine.now < 1.1 * 5000 * 0.067


def test_it_is_measured_again_when_the_rate_falls():
    machine = Machine({1: 0.067, 2: 0.05})
    tuner = machine.tuner()
    run(tuner, machine, 100)
    assert machine.threads == 2
    machine.seconds = {1: 0.067, 2: 3.5}  # the machine gets busy
    before = machine.done[2]
    run(tuner, machine, 60)
    assert machine.threads == 1
    assert machine.done[2] - before <= 4


def test_it_is_measured_again_now_and_then():
    machine = Machine({1: 0.067, 2: 3.5})
    tuner = machine.tuner()
    run(tuner, machine, 100)
    assert machine.threads == 1
    machine.seconds = {1: 0.067, 2: 0.05}  # the machine gets free, which one thread can't notice
    begin = machine.now
    while machine.threads == 1 or machine.now - begin < 20:
        run(tuner, machine, 1)
        assert machine.now - begin < 200
    run(tuner, machine, 50)
    assert machine.threads == 2


def test_single_slow_units_change_nothing():
    """Every 16th step updates the grid."""
    machine = Machine({1: 0.03, 2: 0.02})
    tuner = machine.tuner()
    for i in range(600):
        with tuner:
            machine.work(4.0 if i % 16 == 0 else 1.0)
    assert machine.threads == 2
    assert machine.changes.count(1) <= 2 * 2  # two measurements at most


def test_many_cores_have_a_middle():
    machine = Machine({1: 1.0, 4: 0.3, 8: 0.6})
    run(machine.tuner(), machine, 40)
    assert machine.threads == 4


@pytest.mark.parametrize(("device_type", "seconds"), [("cuda", {1: 1.0, 2: 0.5}), ("cpu", {1: 1.0})])
def test_nothing_to_choose(device_type, seconds):
    machine = Machine(seconds)
    tuner = machine.tuner(device_type)
    run(tuner, machine, 50)
    tuner.release()
    assert not tuner.is_active and machine.changes == []


def test_an_error_is_no_measurement():
    machine = Machine({1: 0.05, 2: 0.04})
    tuner = machine.tuner()
    for _ in range(20):
        with pytest.raises(KeyError), tuner:
            raise KeyError
    assert set(machine.changes) == {2}


def test_release_restores_the_threads():
    machine = Machine({1: 0.04, 2: 0.05})
    tuner = machine.tuner()
    run(tuner, machine, 50)
    tuner.release()
    assert machine.threads == 2
    run(tuner, machine, 1)
    assert machine.threads == 1


def test_items_pass_through():
    assert list(adaptive_threads(iter("abc"))) == ["a", "b", "c"]
    assert list(adaptive_threads([])) == []


@pytest.mark.parametrize("name", ["OMP_NUM_THREADS", "MKL_NUM_THREADS", None])
def test_torch_threads(name):
    """In a process of its own: the number of threads belongs to the process."""
    code = """
import torch
torch.set_num_threads(2)
from ernerf_ti.process.threads import ThreadTuner, adaptive_threads
seen = [torch.get_num_threads() for _ in adaptive_threads(range(12))]
print(ThreadTuner().is_active, sorted(set(seen)), torch.get_num_threads())
"""
    import os

    environment = {key: value for key, value in os.environ.items() if not key.endswith("_NUM_THREADS")}
    if name is not None:
        environment[name] = "2"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.stdout.strip() == ("False [2] 2" if name else "True [1, 2] 2"), done.stderr


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("error", [None, ZeroDivisionError])
def test_one_torch_thread(n, error):
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        with contextlib.suppress(ZeroDivisionError), one_torch_thread() as n_before:
            assert (n_before, torch.get_num_threads()) == (n, 1)
            if error is not None:
                raise error
        assert torch.get_num_threads() == n
    finally:
        torch.set_num_threads(before)
