"""Train a portrait on a capture.

    ernerf-ti train captures/speaker runs/speaker
    ernerf-ti train captures/speaker runs/speaker --preset small --head.iterations 5000

Ctrl-C saves the state and stops; the same command continues.

Several GPUs train one portrait together, each with a part of the rays of every step (see docs/several_devices.md):

    torchrun --nproc-per-node 4 -m ernerf_ti train captures/speaker runs/speaker

Presets: `paper` has the published settings and is meant for a GPU; `small` is a smaller portrait with a shorter
schedule, meant for a CPU; `released` has the shape of the checkpoints that ER-NeRF's authors published. `auto` is
`paper` on CUDA and `small` on a CPU. Options given beside a preset override its values. The help lists the values of
the preset that is given, else of `small`.
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from ernerf_ti.cli.frame_options import BARE_VALUES, FrameOptions
from ernerf_ti.cli.options import Command, Device, Flat, Positional, option_value
from ernerf_ti.cli.paths import capture_folder, output_folder
from ernerf_ti.cli.running import UsageError
from ernerf_ti.process.device import (
    CudaGraphs,
    resolve_device,
    started_by_torchrun,
    use_deterministic_algorithms,
    use_own_device,
)
from ernerf_ti.process.interruption import StopRequest
from ernerf_ti.run.folder import RunFolder
from ernerf_ti.run.serialization import config_from_dict, config_to_dict, old_option_names
from ernerf_ti.train.config import PRESETS, TrainConfig, default_preset, limit_visits

if TYPE_CHECKING:
    import torch

    from ernerf_ti.process.ranks import Ranks


@dataclass(frozen=True)
class TrainOptions:
    """Options of `ernerf-ti train`."""

    capture: Positional[Path]
    """Capture folder, made by `ernerf-ti preprocess` or by the tools of ER-NeRF."""
    run: Positional[Path]
    """Run folder, which gets the checkpoint, settings, log and validation images."""
    preset: Literal["auto", "paper", "released", "small"] = "auto"
    """Settings to start from, as explained above."""
    device: Device = "auto"
    """Device to train on; auto is CUDA if torch can use it, else the CPU."""
    stages: tuple[Literal["head", "finetune", "torso"], ...] = ("head", "finetune", "torso")
    """Stages to train, always in this order: one that is left out before a later one can't be trained afterwards."""
    features: str | None = None
    """Audio features to train on, if the capture has several; by default those of the run, or of the capture's last
    preprocessing."""
    resume: bool = False
    """Continue the run with the settings that it was started with, whatever they are."""
    frame_memory_gb: float | None = None
    """GB of memory on the device for decoded frames; the others are decoded again each time they are used. By default
    2.1 on the CPU, and on CUDA half of what training leaves, which is counted with 4.3."""
    cuda_graphs: CudaGraphs = "auto"
    """Repeat recorded work on CUDA, which takes less time to launch: auto, off, or parts (without our kernels)."""
    view: bool = False
    """Watch the training in a window; closing it saves and stops."""
    deterministic: bool = False
    """Train to the same bits each time on CUDA, more slowly; with the same GPU and versions. On the CPU one thread
    (OMP_NUM_THREADS=1) does that without the option."""
    frames: Flat[FrameOptions] = field(default_factory=FrameOptions)
    config: Flat[TrainConfig] = field(default_factory=TrainConfig)
    arguments: Annotated[tuple[str, ...], tyro.conf.Fixed] = ()
    """The command line, read again once the device's preset or the settings of an existing run are known."""


def _defaults(arguments: list[str]) -> Mapping[str, Any]:
    preset = option_value(arguments, "preset")
    # Without a preset, the device decides; values shown by --help are those for a CPU unless CUDA is asked for.
    device = option_value(arguments, "device") or "cpu"
    config = PRESETS.get(preset or "", PRESETS[default_preset("cuda" if device.startswith("cuda") else "cpu")])
    return {"config": config, "arguments": tuple(arguments)}


def _check(options: TrainOptions) -> None:
    _frame_memory(options.frame_memory_gb)
    options.frames.selection()


def _train(options: TrainOptions) -> int | None:
    capture, run = capture_folder(options.capture), output_folder(options.run)
    if options.resume and not RunFolder(run).checkpoint.is_file():
        raise FileNotFoundError(
            f"{RunFolder(run).checkpoint}: expected a checkpoint to resume from, got no such file; "
            "leave --resume out to start a run"
        )
    if options.deterministic:
        use_deterministic_algorithms()
    if options.view and started_by_torchrun():
        raise UsageError("--view: expected one process, got several by torchrun; leave --view out, or torchrun")
    use_own_device()
    device = resolve_device(options.device)
    preset = default_preset(device.type) if options.preset == "auto" else options.preset
    config = main.parse(list(options.arguments), config=PRESETS[preset]).config

    from ernerf_ti.process.ranks import Ranks
    from ernerf_ti.train.trainer import trained_alone

    with Ranks.joined(device) as ranks, trained_alone(run, ranks):
        return _train_with(ranks, replace(options, capture=capture, run=run), config, device, f"preset {preset}")


def _train_with(
    ranks: "Ranks", options: TrainOptions, config: TrainConfig, device: "torch.device", settings: str
) -> int | None:
    from ernerf_ti.data.capture import open_capture
    from ernerf_ti.run.checkpoint import load_checkpoint
    from ernerf_ti.train.trainer import Trainer

    run, features, frame_memory = options.run, options.features, _frame_memory(options.frame_memory_gb)
    resumes = RunFolder(run).checkpoint.is_file()
    if resumes:
        path = RunFolder(run).checkpoint
        content = load_checkpoint(path)
        kept = config_from_dict(TrainConfig, content["train_config"], f"{path}: config")
        features = features or content["capture"]["extractor"]
        asked = main.parse(list(options.arguments), config=kept).config if options.resume else config
        _check_same(run, kept, limit_visits(asked, content["capture"]["n_train"])[0])
    capture = open_capture(options.capture, features, options.frames.selection())
    ranks.wait()  # none may find a checkpoint that another has written since
    arguments = (capture, run, device, frame_memory, options.cuda_graphs)
    if resumes:
        trainer = Trainer.resume(*arguments, ranks=ranks)
    else:
        trainer = Trainer(capture, config, *arguments[1:], ranks=ranks)
    if ranks.is_first:
        settings = "settings of the run" if options.resume else settings
        together = f", {ranks.count} processes" if ranks.count > 1 else ""
        print(
            f"{'continuing' if resumes else 'training'} {run}: {settings}, device {device}{together}", file=sys.stderr
        )
        for note in trainer.notes:
            print(note, file=sys.stderr)
    if options.view:
        from ernerf_ti.viewer.app import watch_training

        watch_training(trainer, options.stages)
        return None
    with StopRequest() as stop:
        finished = trainer.run(options.stages, stop)
    if not finished:
        if ranks.is_first:
            print(f"stopped at stage {trainer.stage}, step {trainer.step}; the same command continues", file=sys.stderr)
        return stop.exit_status
    if ranks.is_first:
        print(run)
    return None


def _frame_memory(gb: float | None) -> int | None:
    """Bytes. Raises ValueError for less than 0."""
    if gb is None:
        return None
    if not 0 <= gb <= 1e9:
        raise ValueError(f"frame-memory-gb: expected 0 or more, got {gb:g}; pass 0 to keep no frame in memory")
    return int(gb * 1e9)


def _check_same(run: Path, kept: TrainConfig, asked: TrainConfig) -> None:
    """Raises ValueError, naming the differences, if a run would not be continued with the settings asked for."""
    if asked.finetune.perceptual == "auto":  # resolved when the run was started
        asked = replace(asked, finetune=replace(asked.finetune, perceptual=kept.finetune.perceptual))
    kept_values, asked_values = _leaves(config_to_dict(kept)), _leaves(config_to_dict(asked))
    names = sorted(set(kept_values) | set(asked_values))
    different = [
        f"--{name.replace('_', '-')} ({kept_values.get(name)} there, {asked_values.get(name)} here)"
        for name in names
        if kept_values.get(name) != asked_values.get(name)
    ]
    if different:
        raise ValueError(
            f"{run}: expected the settings that this run was started with, got others for {', '.join(different)}; "
            "pass --resume alone to continue with the settings of the run, or another run folder"
        )


def _leaves(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    leaves: dict[str, Any] = {}
    for name, value in values.items():
        leaves |= _leaves(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return leaves


main = Command(
    "train",
    TrainOptions,
    _train,
    __doc__,
    important=(
        *("capture", "run", "preset", "device", "stages", "features", "resume", "view"),
        *("precision", "deterministic", "seed"),
        *("head.iterations", "finetune.iterations", "torso.iterations", "finetune.perceptual"),
    ),
    renamed=old_option_names(TrainConfig) | {"settings-help": "help-all"},
    bare_values=BARE_VALUES,
    check=_check,
    defaults=_defaults,
    interrupted="interrupted; the same command continues from the last saved state",
)
