"""Training parts of the CUDA check: quality in two precisions, steps with each setting off and on, graphs."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from statistics import median
from time import perf_counter

from ernerf_ti.experiments import device_measures as measures
from ernerf_ti.experiments.check_setup import Check, Settings, Switch, begin, take_steps
from ernerf_ti.experiments.check_table import Row, isolated
from ernerf_ti.train.config import STAGES
from ernerf_ti.train.trainer import Trainer

STEP_TARGET = 9.0
"""ms of a head step with 65,536 rays, data included."""
QUALITY_TARGET = -0.05
"""dB of PSNR: what the precision of the networks may cost."""
_QUALITY_SHARE = 0.36
"""Fraction of the whole time that the two trainings may take."""
_CHUNK = 20
"""Steps in a row of either training: as many as between two log lines."""
_AFTERWARDS = 100.0
"""Seconds that are kept for the parts after the one that times steps."""
_MANY = 10_000
"""Iterations of a stage of which only some steps are taken."""
_WARM_UP = 2
"""Turns before the timed ones: for frames that need more room for samples, graphs are recorded again."""
_SAME = 1e-3
"""Relative difference of losses that two kinds of the same computation may have over a few steps ..."""
_TIMES_NOISE = 10
"""... beside this many times the difference of two runs of one kind."""


def quality(check: Check) -> Iterator[Row]:
    """Trains the head in float32 and in the default precision in turns; PSNR of held-out frames.

    Both see the same frames, pixels and noise. If the time does not suffice, both stop after equally many steps.
    """
    n = check.sizes.quality_steps
    check.budget.need(20)
    end = check.budget.spent() + _QUALITY_SHARE * check.budget.seconds
    settings = {"float32": replace(check.default, precision="float32"), check.precision: check.default}
    trainers = {name: check.trainer(of, n) for name, of in settings.items()}
    seconds = dict.fromkeys(trainers, 0.0)
    done = 0
    while done < n and (done == 0 or check.budget.spent() < end):
        chunk = min(_CHUNK, n - done)
        for name, trainer in trainers.items():
            since = perf_counter()
            take_steps(trainer, chunk)
            measures.synchronize(check.device)
            seconds[name] += perf_counter() - since
        done += chunk
    steps_taken = f"{done} steps" + ("" if done == n else f" of {n}, then the time was over")
    psnr = {name: trainer.validate() for name, trainer in trainers.items()}
    for name in trainers:
        note = f"mean over {steps_taken}, compilation included"
        yield Row("quality", f"head step, {name}", 1000 * seconds[name] / done, unit="ms", note=note)
    for name in trainers:
        yield Row("quality", f"PSNR, {name}", psnr[name], unit="dB", note=f"held-out frames after {steps_taken}")
    yield Row(
        *("quality", f"PSNR, {check.precision} minus float32", psnr[check.precision] - psnr["float32"]),
        unit="dB",
        target=QUALITY_TARGET,
        at_most=False,
        judged=check.sizes.judged and done == n,
    )
    _save(check, trainers[check.precision])


def steps(check: Check) -> Iterator[Row]:
    """Steps of each stage: time, GPU busy time, host operations and memory; then each setting off and on."""
    check.budget.need(20)
    default = check.trainer(check.default, _MANY, continued=True)
    for stage in STAGES:
        yield from isolated("steps", f"{stage} step", partial(_stage, check, default, stage))
    _save(check, default)
    for switch in (*check.switches(), *check.training_switches()):
        yield from isolated("steps", switch.name, partial(compare_steps, check, default, switch))


def _stage(check: Check, trainer: Trainer, stage: str) -> Iterator[Row]:
    """The figures of a stage with the default settings."""
    yield from time_stage(check, trainer, stage, STEP_TARGET if stage == "head" else None)


def time_stage(check: Check, trainer: Trainer, stage: str, target: float | None, part: str = "steps") -> Iterator[Row]:
    """The figures of a stage for a part of the check."""
    check.budget.need(6)
    sizes, device = check.sizes, check.device
    begin(trainer, stage, sizes.warm_up)
    for _ in range(_WARM_UP):
        _turn(check, trainer)
    with measures.PeakMemory(device) as memory:
        turns = [measures.milliseconds(lambda: _turn(check, trainer), 1, device) for _ in range(sizes.n_turns)]
    duration = median(turns) / sizes.steps_per_turn
    n_samples = float(trainer.train_step().statistics.n_samples)
    note = f"{sizes.n_rays} rays, " + (f"{n_samples:.0f} samples, " if n_samples else "") + "data included"
    yield Row(part, f"{stage} step", duration, unit="ms", target=target, judged=sizes.judged, note=note)
    note = f"peak of torch's tensors; in use on the whole device {memory.device:.3g} GB"
    yield Row(part, f"{stage} step, memory", memory.torch, unit="GB", note=note)
    yield from isolated(part, f"{stage} step, profile", partial(_profile, check, trainer, stage, duration, part))


def _profile(check: Check, trainer: Trainer, stage: str, duration: float, part: str) -> Iterator[Row]:
    n = check.sizes.profiled_steps
    operations = measures.count_operations(trainer.train_step, n)
    waits = measures.count_waits(trainer.train_step, n, check.device)
    yield Row(part, f"{stage} step, host operations", operations, note="that reach torch's dispatcher")
    yield Row(part, f"{stage} step, waits of the host", waits, note="by torch's sync debug mode, on CUDA")
    trace = measures.trace(trainer.train_step, n, check.device)
    note = f"{trace.busy / duration:.0%} of the step's time; {trace.launches:.0f} launches"
    yield Row(part, f"{stage} step, device busy", trace.busy, unit="ms", note=note)


def compare_steps(
    check: Check, default: Trainer, switch: Switch, part: str = "steps", reserve: float = _AFTERWARDS
) -> Iterator[Row]:
    """Steps of each stage with a setting off and on, for a part of the check; `reserve` seconds are kept for others."""
    check.budget.need(10 + reserve)
    sizes = check.sizes
    trainers = {switch.other: check.trainer(switch.other, _MANY, continued=True), check.default: default}

    def turn(settings: Settings) -> None:
        with settings.in_use():
            _turn(check, trainers[settings])

    for stage in STAGES:
        check.budget.need(reserve)
        for settings, trainer in trainers.items():
            with settings.in_use():  # as graphs are recorded
                begin(trainer, stage, sizes.warm_up)
            for _ in range(_WARM_UP):
                turn(settings)
        of_other, of_default = partial(turn, switch.other), partial(turn, check.default)
        other, usual = measures.in_turns(of_other, of_default, 1, sizes.n_turns, check.device)
        off, on = (usual, other) if switch.is_on else (other, usual)
        n = sizes.steps_per_turn
        yield Row(part, f"{stage} step, {switch.name}", off=off / n, on=on / n, unit="ms")


def _turn(check: Check, trainer: Trainer) -> None:
    take_steps(trainer, check.sizes.steps_per_turn)


def graphs(check: Check) -> Iterator[Row]:
    """Losses of the first steps with and without CUDA graphs, beside those of two equal runs without."""
    check.budget.need(5)
    plain, n = replace(check.default, cuda_graphs="off"), check.sizes.compared_steps
    losses = []
    for settings in (plain, plain, check.default):
        trainer = check.trainer(settings, _MANY, continued=True)
        begin(trainer, "head")
        losses.append(take_steps(trainer, n).double().cpu())
    noise, difference = (float(((other - losses[0]) / losses[0]).abs().max()) for other in losses[1:])
    note = f"largest relative difference of {n} losses"
    yield Row("graphs", "two runs without graphs", noise, note=note)
    allowed = _SAME + _TIMES_NOISE * noise
    fits = difference <= allowed
    note += "" if fits else f"; failed: expected at most {allowed:.2g}"
    yield Row("graphs", "with and without graphs", difference, note=note, failed=not fits)


def _save(check: Check, trainer: Trainer) -> None:
    """Leave the trainer's portrait to the parts that follow."""
    trainer.save()
    check.run = trainer.folder
