"""Training of a portrait: the stages head, finetune and torso, one after the other."""

import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial, reduce
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ernerf_ti.data.capture import Capture
from ernerf_ti.data.dials import read_dials
from ernerf_ti.media.files import write_json
from ernerf_ti.media.images import write_image
from ernerf_ti.media.provenance.consent import consent_in
from ernerf_ti.media.whole_files import holding
from ernerf_ti.portrait.portrait import Portrait
from ernerf_ti.process import graphs
from ernerf_ti.process.device import CudaGraphs
from ernerf_ti.process.precision import resolve_precision
from ernerf_ti.process.ranks import Ranks
from ernerf_ti.process.threads import ThreadTuner
from ernerf_ti.run.checkpoint import load_checkpoint, load_state, save_checkpoint, state_entry
from ernerf_ti.run.folder import RunFolder
from ernerf_ti.run.serialization import config_from_dict, config_to_dict
from ernerf_ti.run.trained_portrait import check_portrait
from ernerf_ti.train import losses
from ernerf_ti.train.camera_correction import CameraCorrection
from ernerf_ti.train.capture_in_run import identity, scene
from ernerf_ti.train.config import STAGES, TrainConfig, limit_visits
from ernerf_ti.train.frame_store import N_AHEAD, default_frame_memory
from ernerf_ti.train.head_stages import FinetuneStage, HeadStage
from ernerf_ti.train.optimizer import WeightAverage, set_learning_rates, stage_optimizer
from ernerf_ti.train.perceptual import resolve_perceptual
from ernerf_ti.train.silence import silence_of, silent_windows
from ernerf_ti.train.stage import Stage, StepLoss, StepStatistics
from ernerf_ti.train.stage_steps import StageSteps
from ernerf_ti.train.step_draws import StepDraws
from ernerf_ti.train.step_rates import StageClock, StepRates, summary
from ernerf_ti.train.torso_stage import TorsoStage
from ernerf_ti.train.training_frames import TrainingFrames
from ernerf_ti.train.training_log import TrainingLog, clear_log, rewind_log, training_seconds

_N_CODES = 256  # of frames all over the capture, whose mean is that of all within a few percent of their deviation
_CODES_AT_ONCE = 256


@contextmanager
def trained_alone(folder: Path, ranks: Ranks | None = None) -> Iterator[None]:
    """Hold a run folder for the one process, or the processes together, that train in it.

    To be entered before the run is read: a second trainer would go on from a state that the first one leaves behind,
    and replace what that one saves.

    Args:
        folder: the run folder; made if it does not exist, and removed if it is empty in the end.
        ranks: the processes that train together. None for this one alone.

    Raises:
        OSError: another process trains there, or the folder can't be made.
    """
    ranks = ranks or Ranks()
    with holding(Path(folder)) if ranks.is_first else nullcontext(True) as is_free:
        if ranks.any(not is_free):
            raise OSError(
                f"{folder}: expected a run that nothing else trains, got one that another process trains now; wait for "
                "it or stop it, or choose another run folder"
            )
        yield


class TrainingError(RuntimeError):
    """Training can't go on; the message names the step and the state that is left."""


@dataclass(frozen=True)
class StepReport:
    """A training step that was taken."""

    stage: str
    step: int
    """Steps of the stage so far."""
    loss: Tensor
    """[], the sum of the terms."""
    terms: dict[str, Tensor]
    """Weighted loss terms [] by name."""
    statistics: StepStatistics


class Trainer:
    """Trains a portrait of a capture in a run folder.

    The random numbers of a step depend on the seed, the stage and the step alone, so that a run that is resumed
    continues as if it had not been interrupted: to the same bits with one CPU thread
    (OMP_NUM_THREADS=1; see :mod:`ernerf_ti.process.threads`).

    Constructing a trainer starts a new run; nothing is written before :meth:`run` or :meth:`save`. `notes` are lines
    about its configuration that a command should print. :func:`trained_alone` keeps other processes out of the folder.

    Args:
        capture: training data.
        config: training configuration.
        folder: the run folder; created if it does not exist. Logs of an earlier run in it are removed.
        device: where to train.
        frame_memory: bytes for the frames that stay in memory on the device; None for
            :func:`ernerf_ti.train.frame_store.default_frame_memory`.
        cuda_graphs: "auto", "parts" or "off", see :func:`ernerf_ti.process.graphs.cuda_graphs`.
        tell: gets lines about CUDA graphs that can't be used; None to write them to standard error.
        silence: [P, L, steps, C] windows of silence to train on, of the run that is resumed; None to extract them.
        ranks: the processes that train together, each with a trainer of the same arguments. The first one writes the
            run folder. None for this one alone.
    """

    def __init__(
        self,
        capture: Capture,
        config: TrainConfig,
        folder: Path,
        device: torch.device | str = "cpu",
        frame_memory: int | None = None,
        cuda_graphs: CudaGraphs = "auto",
        tell: Callable[[str], None] | None = None,
        silence: Tensor | None = None,
        ranks: Ranks | None = None,
    ):
        self.ranks = ranks or Ranks()
        self.config, self.notes = limit_visits(config, len(capture.train))
        self.config, note = resolve_perceptual(self.config)
        self.notes += [note] if note else []
        self.capture, self.folder, self.device = capture, Path(folder), torch.device(device)
        self.consent = capture.consent
        if frame_memory is None:
            frame_memory = default_frame_memory(self.device)
        needs_regions = config.random_background_fraction > 0
        dial_names = config.portrait.head.dial_names
        dials = read_dials(capture.folder, dial_names, capture.eye_closures) if dial_names else None
        values = None if dials is None else dials.values
        self.frames = TrainingFrames(capture, capture.train, self.device, frame_memory, needs_regions, values)
        self.held_out = TrainingFrames(capture, capture.val, self.device, dials=values)
        self._silence = silence
        if silence is None and config.silence_fraction:
            self._silence, note = silent_windows(capture)
            self.notes += [note] if note else []
        if self._silence is not None:
            self.frames.add_silence(self._silence)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.portrait = Portrait(config.portrait, capture.audio_windows.shape[2], len(self.frames))
            self.cameras = CameraCorrection(len(self.frames))
        if config.standardize_audio:
            self.portrait.head.audio_encoder.standardize(self.frames.own_windows())
        if dials is not None:
            assert self.portrait.head.dials is not None  # by its configuration
            self.portrait.head.dials.boxes.copy_(torch.from_numpy(dials.boxes))
        self.portrait.to(self.device)
        self.cameras.to(self.device)
        self.portrait.set_precision(resolve_precision(config.precision, self.device))
        tell = tell or partial(tqdm.write, file=sys.stderr)
        self._graphs = graphs.cuda_graphs(cuda_graphs, self.device, tell, self.portrait.precision)
        # Gradients of float16 networks would underflow without a factor; otherwise it does nothing.
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.portrait.precision == torch.float16)
        self.portrait.head_grid.mark_unseen_cells(self.frames.poses, tuple(capture.intrinsics))
        self.stages: dict[str, Stage] = {
            kind.name: kind(
                self.config, self.portrait, self.cameras, self.frames, self.held_out, self._graphs, self.ranks
            )
            for kind in (HeadStage, FinetuneStage, TorsoStage)
        }
        self.stage_seconds: dict[str, float] = {}
        """Wall seconds that each stage has taken."""
        self._left_out: tuple[str, ...] = ()
        """Stages that were not trained to their end when a later one began; those of a run are kept with it."""
        self._threads = ThreadTuner(self.device.type)
        self._saved: str | None = None
        self._folder_is_ready = False
        self.start_stage(STAGES[0])

    @classmethod
    def resume(
        cls,
        capture: Capture,
        folder: Path,
        device: torch.device | str = "cpu",
        frame_memory: int | None = None,
        cuda_graphs: CudaGraphs = "auto",
        ranks: Ranks | None = None,
    ) -> "Trainer":
        """Continue the run of a folder; arguments as of the constructor.

        Raises:
            FileNotFoundError, ValueError: no checkpoint, a damaged one, or one of another capture.
        """
        path = RunFolder(Path(folder)).checkpoint
        content = load_checkpoint(path, device)
        config = config_from_dict(TrainConfig, state_entry(content, "train_config", dict, path), f"{path}: config")
        stage = state_entry(content, "stage", str, path)
        if stage not in STAGES:
            raise ValueError(f"{path}: expected stage one of {', '.join(STAGES)}, got {stage!r}; the file is damaged")
        check_portrait(config.portrait, content, path)
        expected = identity(capture)
        if content["capture"] != expected:
            raise ValueError(
                f"{path}: expected a run of this capture ({expected}), got one of {content['capture']}; "
                "pass the capture that the run was started with"
            )
        silence = silence_of(content, capture, path)
        trainer = cls(capture, config, folder, device, frame_memory, cuda_graphs, silence=silence, ranks=ranks)
        load_state(trainer.portrait, content["portrait"], path, "portrait")
        load_state(trainer.cameras, state_entry(content, "cameras", dict, path), path, "cameras")
        trainer.portrait.head_grid.set_bitfield(trainer.portrait.head_grid.bitfield.clone())
        trainer.start_stage(stage)
        trainer.step = state_entry(content, "step", int, path)
        trainer.stage_finished = state_entry(content, "stage_finished", bool, path)
        for name in ("optimizer", "average"):
            load_state(getattr(trainer, name), state_entry(content, name, dict, path), path, name)
        if content.get("scaler"):
            load_state(trainer.scaler, state_entry(content, "scaler", dict, path), path, "scaler")
        trainer.consent = trainer.consent or consent_in(content, path)
        if trainer.ranks.is_first:
            rewind_log(RunFolder(trainer.folder), trainer.stage, trainer.step)
        left_out = content.get("left_out", [])  # not written by earlier versions
        trainer._left_out = tuple(name for name in STAGES if isinstance(left_out, list) and name in left_out)
        trainer.stage_seconds = content.get("stage_seconds") or training_seconds(RunFolder(trainer.folder).log) or {}
        trainer._saved = trainer._position()
        trainer._folder_is_ready = True
        return trainer

    def run(
        self,
        stages: tuple[str, ...] = STAGES,
        should_stop: Callable[[], bool] = lambda: False,
        on_step: Callable[[StepReport], None] = lambda report: None,
    ) -> bool:
        """Train from the current state to the end of the stages.

        Args:
            stages: the stages to train.
            should_stop: called after each step; if it returns True, the state is saved and training stops.
            on_step: called with each step that was taken.

        Returns:
            Whether the end was reached.

        Raises:
            TrainingError: the loss or a weight is not finite.
            ValueError: one of the stages was left out before a later one that has begun; raised before the first step.
            FileNotFoundError, ImportError: the perceptual loss is not installed; raised before the first step.
        """
        if late := [name for name in self._left_out if name in stages]:
            following = ", ".join(STAGES[STAGES.index(self.stage) :])
            raise ValueError(
                f"{self.folder}: expected stages from {self.stage} on, where this run is, got also {', '.join(late)}, "
                f"not trained to the end before it; train all stages in another run folder, or choose from {following} "
                "with --stages"
            )
        remaining = [name for name in STAGES[STAGES.index(self.stage) :] if name in stages]
        for name in remaining:
            if self.stages[name].settings.iterations:
                self.stages[name].prepare()
        self.ranks.broadcast([*self.portrait.state_dict().values(), *self.cameras.state_dict().values()])
        self._prepare_folder()
        try:
            for name in remaining:
                if name != self.stage:
                    between = STAGES[STAGES.index(self.stage) + self.stage_finished : STAGES.index(name)]
                    self._left_out += tuple(one for one in between if self.stages[one].settings.iterations)
                    self.start_stage(name)
                if not self.stage_finished:
                    if not self._run_stage(should_stop, on_step):
                        return False
                    if self.ranks.any(should_stop()) and name != STAGES[-1]:
                        return False
        finally:
            self._threads.release()
            self.frames.close()
            self._graphs.clear()
            self._steps.clear()
        return True

    def start_stage(self, stage: str) -> None:
        """Set the current stage, at its step 0."""
        self.stage, self.step, self.stage_finished = stage, 0, False
        self._graphs.clear()  # those of another stage would keep their memory
        self.frames.use(self._current.torso_only)
        self._draws = StepDraws(self.config, stage, self.frames)
        parameters = self._current.parameters()
        self.portrait.requires_grad_(False)
        self.optimizer = stage_optimizer(parameters.items(), self.config.optimizer, self._current.settings)
        for parameter in parameters.values():
            parameter.requires_grad_(True)
        self._steps = StageSteps(self._current, self.optimizer, self.scaler, self._graphs)
        self.average = WeightAverage(parameters, self.config.optimizer.ema_decay)

    def train_step(self) -> StepReport:
        """Take one step of the current stage."""
        stage, config = self._current, self.config
        host, generator = self._draws.generators(self.step)
        index, context = self._draws.frame(self.step), self._draws.context(self.step)
        self.frames.announce(self._draws.coming(self.step, N_AHEAD))
        if self.step % config.grid_update_every == 0:
            self._update_grid(host, self.step)
        set_learning_rates(self.optimizer, stage.settings, self.step / stage.settings.iterations)
        loss, result = self._steps.take(self.frames.frame(index, context), self.step, generator)
        self.step += 1
        if self.step % max(1, stage.settings.iterations // 125) == 0:
            # So rarely that the average reaches back over the last fifth of the stage or so.
            self.average.update()
        return self._report(loss, result)

    def save(self) -> None:
        """Write the checkpoint; of several processes the first one does, and the others wait for it.

        Raises TrainingError if a weight is not finite; the checkpoint stays as it was.
        """
        self._check_finite()
        self._measure_codes()
        if self.ranks.is_first:
            self._prepare_folder()
            self._write_checkpoint()
        self.ranks.wait()
        self._saved = self._position()

    @torch.no_grad()
    def _measure_codes(self) -> None:
        """Set the audio codes of training frames and their mean, by which rendering adjusts other codes."""
        encoder, n = self.portrait.head.audio_encoder, len(self.frames)
        if self._current.torso_only and encoder.code_mean.any():
            return  # as the head's stages left them
        chosen = np.unique(np.linspace(0, n - 1, len(encoder.training_codes) or _N_CODES).astype(int))
        codes = torch.cat(
            [
                encoder(torch.stack([self.frames.inputs(int(i)).audio_window for i in part]))
                for part in np.array_split(chosen, -(-len(chosen) // _CODES_AT_ONCE))
            ]
        )
        encoder.code_mean.copy_(codes.mean(0))
        if len(encoder.training_codes):
            encoder.training_codes.copy_(codes)

    def _write_checkpoint(self) -> None:
        save_checkpoint(
            RunFolder(self.folder).checkpoint,
            {
                "train_config": config_to_dict(self.config),
                "portrait_config": config_to_dict(self.config.portrait),
                "capture": identity(self.capture),
                "stage": self.stage,
                "step": self.step,
                "stage_finished": self.stage_finished,
                "left_out": list(self._left_out),
                "stage_seconds": dict(self.stage_seconds),
                "portrait": self.portrait.state_dict(),
                "cameras": self.cameras.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "average": self.average.state_dict(),
                "scaler": self.scaler.state_dict(),
                "scene": scene(self.capture, torch.cat((self.frames.poses, self.held_out.poses))),
                **({} if self._silence is None else {"silence": self._silence}),
                **({"consent": self.consent.as_dict()} if self.consent else {}),
            },
        )

    @torch.no_grad()
    def validate(self) -> float:
        """Mean PSNR of held-out frames in dB, of the averaged weights. Writes the first ones next to their targets."""
        n = min(self.config.validation_frames, len(self.held_out))
        errors, rows = [], []
        with self._averaged_weights():
            for i in np.linspace(0, len(self.held_out) - 1, n).astype(int):
                image, target = self._current.render_held_out(int(i))
                errors.append(float((image - target).square().mean()))
                rows.append(torch.cat((target, image), 1))
        picture = (torch.cat(rows[:4]).clamp(0, 1) * 255 + 0.5).to(torch.uint8).cpu().numpy()
        path = RunFolder(self.folder).validation / f"{self.stage}_{self.step:06d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_image(path, picture)
        return float(np.mean([losses.psnr(error) for error in errors]))

    def _run_stage(self, should_stop: Callable[[], bool], on_step: Callable[[StepReport], None]) -> bool:
        """Train the current stage to its end; False if it was stopped before."""
        config, iterations = self.config, self._current.settings.iterations
        quiet = not self.ranks.is_first
        bar = tqdm(total=iterations, initial=self.step, desc=self.stage, unit="step", disable=quiet)
        clock = StageClock(self.stage_seconds, self.stage)
        rates, first = StepRates(), self.step + 1
        log_context = TrainingLog(RunFolder(self.folder)) if self.ranks.is_first else nullcontext()
        with bar, log_context as log:
            while self.step < iterations:
                with self._threads:
                    report = self.train_step()
                clock.tick()
                on_step(report)
                rates.add(report.statistics)
                if self.step == first:
                    bar.unpause()  # the first step compiles kernels, which must not count in the time that is left
                bar.update()
                is_last = self.step == iterations
                is_logged = is_last or self.step % config.log_every == 0
                if is_logged:
                    entry = self._log_entry(report, rates)
                    if log is not None:
                        log.write(self.stage, self.step, entry)
                    bar.set_postfix(summary(entry))
                    rates = StepRates()
                # Early too, when each kind of rays was seen once: CUDA graphs would hold the first, large capacity.
                if is_logged or self.step == first + 1:
                    for note in self._current.adjust():
                        tqdm.write(f"{self.stage}: {note}")
                if is_last:
                    break
                if log is not None and self.step % config.validate_every == 0:
                    log.write(self.stage, self.step, {"statistics": {"validation_psnr": self.validate()}})
                if self.step % config.save_every == 0:
                    self.save()
                clock.tick()
                if self.ranks.any(should_stop()):
                    self.save()
                    return False
                clock.skip()  # who asks may have paused the training, as the viewer does
            if config.optimizer.ema_decay > 0:
                self.average.swap()  # later stages and rendering use the averaged weights
            self._update_grid(torch.Generator().manual_seed(config.seed))
            self.average = WeightAverage(self._current.parameters(), config.optimizer.ema_decay)
            self.stage_finished = True
            if log is not None:
                log.write(self.stage, self.step, {"statistics": {"validation_psnr": self.validate()}})
            clock.tick()
            self.save()
        return True

    def _update_grid(self, generator: torch.Generator, step: int | None = None) -> None:
        self._current.update_grid(generator, step)
        for grid in (self.portrait.head_grid, self.portrait.torso_grid) if self.ranks.count > 1 else ():
            self.ranks.broadcast(list(grid.buffers()))  # cards of different kinds round differently

    @property
    def _current(self) -> Stage:
        return self.stages[self.stage]

    def _report(self, loss: Tensor, result: StepLoss) -> StepReport:
        statistics = result.statistics._replace(mse=result.statistics.mse.detach())
        terms = {name: term.detach() for name, term in result.terms.items()}
        return StepReport(self.stage, self.step, loss.detach(), terms, statistics)

    def _log_entry(self, report: StepReport, rates: StepRates) -> dict:
        """Raises TrainingError if the loss is not finite."""
        loss = float(report.loss)
        # In float16 such a step is skipped, and the next one takes a smaller factor.
        is_skipped = self.scaler.is_enabled() and self.scaler.get_scale() >= 1
        if not (math.isfinite(loss) or is_skipped):
            raise self._divergence(f"expected a finite loss, got {loss}")
        return {
            "loss": loss,
            "loss_terms": {name: float(term) for name, term in report.terms.items()},
            "statistics": {"psnr": losses.psnr(float(report.statistics.mse)), **rates.values()},
            "seconds": self.stage_seconds[self.stage],
        }

    def _check_finite(self) -> None:
        tensors: dict[str, Tensor] = {f"portrait.{name}": p for name, p in self.portrait.named_parameters()}
        tensors |= {f"cameras.{name}": p for name, p in self.cameras.named_parameters()}
        tensors |= {name: value for name, value in self.average.state_dict().items() if torch.is_tensor(value)}
        for group, values in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{group}.{name}": v for name, v in values.items() if torch.is_tensor(v)}
        with torch.no_grad():
            total = reduce(torch.add, (tensor.sum(dtype=torch.float32) for tensor in tensors.values()))
            if torch.isfinite(total):
                return
            broken = [name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()]
        if broken:
            raise self._divergence(f"expected finite weights, got NaN or infinity in {broken[0]}, not saved")

    def _divergence(self, what: str) -> TrainingError:
        left = f"{RunFolder(self.folder).checkpoint} holds {self._saved}" if self._saved else "nothing was saved before"
        return TrainingError(
            f"{self._position()}: {what}; {left}; train with lower learning rates (--optimizer.net-lr, "
            "--optimizer.grid-lr)"
        )

    def _position(self) -> str:
        return f"stage {self.stage}, step {self.step}"

    @contextmanager
    def _averaged_weights(self) -> Iterator[None]:
        if self.config.optimizer.ema_decay == 0:
            yield
            return
        self.average.swap()
        try:
            yield
        finally:
            self.average.swap()

    def _prepare_folder(self) -> None:
        """Create the folder of a new run, without the logs of an earlier one."""
        if self._folder_is_ready or not self.ranks.is_first:
            return
        folder = RunFolder(self.folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        clear_log(folder)
        write_json(folder.config, config_to_dict(self.config))
        folder.write_capture(self.capture.folder)
        self._folder_is_ready = True
