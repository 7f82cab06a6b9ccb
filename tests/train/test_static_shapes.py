"""Training in fixed shapes, as on CUDA, against training in shapes that depend on the samples."""

import dataclasses

import pytest
import torch

from ernerf_ti.portrait.render.static_shapes import static_shapes_on_cpu
from ernerf_ti.train.config import STAGES
from ernerf_ti.train.trainer import Trainer


def steps_of(trainer, stage, n):
    """Loss terms, and gradients of all parameters, of n steps of a stage."""
    trainer.start_stage(stage)
    results = []
    for _ in range(n):
        report = trainer.train_step()
        parameters = trainer.stages[stage].parameters()
        gradients = {name: p.grad.clone() for name, p in parameters.items() if p.grad is not None}
        results.append((report, gradients))
    return results


@pytest.mark.parametrize("stage", STAGES)
def test_steps_are_the_same(stage, capture, config, tmp_path, device):
    results = []
    for static in (False, True):
        trainer = Trainer(capture, config, tmp_path, device)
        if static:
            with static_shapes_on_cpu():
                results.append(steps_of(trainer, stage, 2))
        else:
            results.append(steps_of(trainer, stage, 2))
    for (dynamic, gradients), (static, static_gradients) in zip(*results, strict=True):
        assert dynamic.terms.keys() == static.terms.keys()
        for name, term in dynamic.terms.items():
            torch.testing.assert_close(
                static.terms[name], term, rtol=1e-4, atol=1e-7, msg=lambda m, n=name: f"{n}: {m}"
            )
        assert gradients.keys() == static_gradients.keys() and gradients
        for name, gradient in gradients.items():
            scale = max(float(gradient.abs().max()), 1e-8)
            error = float((static_gradients[name] - gradient).abs().max()) / scale
            assert error < 2e-3, f"{name}: {error}"


def test_too_little_room_is_told_once_and_then_fits(capture, config, tmp_path, device, capsys):
    config = dataclasses.replace(config, head=dataclasses.replace(config.head, iterations=6, n_rays=1024))
    with static_shapes_on_cpu():
        trainer = Trainer(capture, config, tmp_path, device)
        capacity = trainer.stages["head"]._capacities["pixels"]
        capacity.fit(100)
        sizes = []
        trainer.run(("head",), on_step=lambda report: sizes.append(capacity.size(2**20)))
    assert sizes[:2] == [4096, 4096] and min(sizes[2:]) > 4096
    written = capsys.readouterr()
    assert (written.out + written.err).count("samples per step, room for 4,096") == 1


def test_first_updates_evaluate_all_cells(capture, config, tmp_path, device):
    trainer = Trainer(capture, config, tmp_path, device)
    grid = trainer.portrait.head_grid
    n_seen, evaluated = int((grid.density_grid >= 0).sum()), []
    densities = trainer.portrait.head.densities

    def counted(positions, *inputs):
        evaluated.append(len(positions))
        return densities(positions, *inputs)

    trainer.portrait.head.densities = counted
    for step in (0, 15 * config.grid_update_every, 16 * config.grid_update_every, None):
        evaluated.clear()
        trainer.stages["head"].update_grid(torch.Generator().manual_seed(0), step)
        is_whole = step is None or step < 16 * config.grid_update_every
        expected = n_seen if is_whole else 2 * -(-n_seen * grid.config.fraction // 2)
        assert sum(evaluated) == expected, step
