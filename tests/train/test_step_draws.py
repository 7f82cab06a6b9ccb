"""Frames and random numbers of steps."""

import dataclasses

import numpy as np
import torch

from ernerf_ti.train.step_draws import StepDraws
from ernerf_ti.train.training_frames import TrainingFrames


def draws(capture, config, stage="head", **changes) -> StepDraws:
    return StepDraws(dataclasses.replace(config, **changes), stage, TrainingFrames(capture, capture.train))


def test_epochs_visit_all_frames_in_random_orders(capture, config):
    steps = draws(capture, config)
    n = len(capture.train)
    epochs = [[steps.frame(epoch * n + i) for i in range(n)] for epoch in range(3)]
    for order in epochs:
        assert sorted(order) == list(range(n))
    assert epochs[0] != epochs[1] != epochs[2]
    again = draws(capture, config)
    assert [again.frame(2 * n + i) for i in range(n)] == epochs[2]
    assert [draws(capture, config, seed=1).frame(i) for i in range(n)] != epochs[0]
    assert [draws(capture, config, "torso").frame(i) for i in range(n)] != epochs[0]


def test_rare_frames_are_drawn_more_often_if_asked(capture, config):
    closures = np.zeros_like(capture.eye_closures)
    closures[capture.train.frame_ids[7]] = 1.0
    capture = dataclasses.replace(capture, eye_closures=closures)
    steps, n = draws(capture, config, rare_frames_fraction=0.75), len(capture.train)
    rarity = TrainingFrames(capture, capture.train).rarity
    assert rarity[7] == rarity.max() > 3 / n
    found = np.bincount([steps.frame(step) for step in range(4000)], minlength=n) / 4000
    np.testing.assert_allclose(found, 0.75 * rarity + 0.25 / n, atol=0.03)
    torso = draws(capture, config, "torso", rare_frames_fraction=0.75)
    assert [torso.frame(step) for step in range(n)] == [draws(capture, config, "torso").frame(i) for i in range(n)]


def test_coming_frames_are_those_of_the_next_steps(capture, config):
    balanced = draws(capture, config, rare_frames_fraction=0.5)
    for steps in (draws(capture, config), balanced):
        assert steps.coming(2, 4) == [steps.frame(step) for step in (3, 4, 5, 6)]
        assert steps.coming(config.head.iterations - 2, 4) == [steps.frame(config.head.iterations - 1)]


def test_random_numbers_depend_on_the_step_alone(capture, config, device):
    steps = StepDraws(config, "head", TrainingFrames(capture, capture.train, device))

    def numbers(step: int) -> tuple[torch.Tensor, torch.Tensor]:
        host, generator = steps.generators(step)
        assert generator.device.type == device.type and host.device.type == "cpu"
        return torch.rand(4, generator=host), torch.rand(4, generator=generator, device=device)

    first = numbers(5)
    assert not torch.equal(numbers(6)[1], first[1])
    for a, b in zip(numbers(5), first, strict=True):
        assert torch.equal(a, b)
