import threading

import pytest
import torch

from ernerf_ti.process.parts import in_parts


@pytest.mark.parametrize("n_threads", [1, 2, 3])
@pytest.mark.parametrize("n", [0, 1, 7, 8, 100])
def test_each_point_is_evaluated_once(n, n_threads):
    before = torch.get_num_threads()
    counts, used, evaluators = torch.zeros(n), set(), []

    def evaluator():
        evaluators.append(threading.get_ident())

        def evaluate(part):
            assert part.stop - part.start <= 7 and threading.get_ident() in evaluators
            assert not torch.is_grad_enabled()
            counts[part] += 1
            used.add((threading.get_ident(), torch.get_num_threads()))

        return evaluate

    in_parts(evaluator, n, 7, n_threads)
    assert (counts == 1).all()
    assert len(evaluators) == min(n_threads, -(-n // 7))
    others = {n_own for thread, n_own in used if thread != threading.get_ident()}
    assert others <= {1} and torch.get_num_threads() == before


@pytest.mark.parametrize("n_threads", [1, 2])
def test_an_error_in_a_part_is_raised(n_threads):
    def evaluate(part):
        if part.start == 10:
            raise ValueError("part 10")

    with pytest.raises(ValueError, match="part 10"):
        in_parts(lambda: evaluate, 50, 5, n_threads)
    in_parts(lambda: lambda part: None, 50, 5, n_threads)


def test_two_threads_work_at_once():
    meeting = threading.Barrier(2, timeout=20)
    in_parts(lambda: lambda part: meeting.wait(), 2, 1, 2)
