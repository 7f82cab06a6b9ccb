"""Training in time slices, between which the viewer renders the portrait.

The trainer runs as usual, logs, validates and saves, in a thread of its own. After each slice it hands over to the
viewer's thread and waits: both launch kernels, and only one of them may at a time.
"""

import threading
from collections import deque
from collections.abc import Callable
from time import perf_counter
from typing import NamedTuple

import numpy as np
import torch

from ernerf_ti.run.trained_portrait import TrainedPortrait
from ernerf_ti.train.config import STAGES
from ernerf_ti.train.losses import psnr
from ernerf_ti.train.trainer import StepReport, Trainer

_CURVE_POINTS = 2000


class CurvePoint(NamedTuple):
    """Loss and PSNR of a training step."""

    stage: str
    step: int
    loss: float
    psnr: float
    """Of the step's rays, dB."""


class TrainingSession:
    """Runs a trainer one time slice after the other.

    Args:
        trainer: the trainer, at any step of its run.
        stages: the stages to train.
        on_close: called when the session is closed and the training has ended.
    """

    def __init__(
        self, trainer: Trainer, stages: tuple[str, ...] = STAGES, on_close: Callable[[], object] = lambda: None
    ):
        self.trainer, self.stages, self._on_close = trainer, stages, on_close
        self.curve: deque[CurvePoint] = deque(maxlen=_CURVE_POINTS)
        """The last steps."""
        self.n_steps = 0
        """Steps taken by this object."""
        self.finished = False
        self._error: BaseException | None = None
        self._thread: threading.Thread | None = None
        self._go, self._back = threading.Semaphore(0), threading.Semaphore(0)
        self._until, self._stopping = 0.0, False

    @property
    def weights_version(self) -> int:
        """A number that changes when the weights do."""
        return self.n_steps + self.finished

    @property
    def text(self) -> str:
        trainer = self.trainer
        position = f"{trainer.stage}, step {trainer.step} of {getattr(trainer.config, trainer.stage).iterations}"
        return f"{position}, trained to the end" if self.finished else position

    def portrait(self) -> TrainedPortrait:
        """The portrait in training, for rendering: it shares the trainer's current weights."""
        trainer, capture = self.trainer, self.trainer.capture
        ids = np.concatenate((capture.train.frame_ids, capture.val.frame_ids))
        return TrainedPortrait(
            trainer.portrait,
            capture.extractor,
            int(capture.audio_windows.shape[2]),
            tuple(capture.intrinsics.tolist()),
            (capture.width, capture.height),
            torch.cat((trainer.frames.poses, trainer.held_out.poses)).to(trainer.device),
            torch.from_numpy(capture.eye_closures[ids]),
            torch.from_numpy(capture.background).to(trainer.device).float() / 255,
            consent=trainer.consent,
            speech_projection=capture.projection,
        )

    def advance(self, seconds: float) -> None:
        """Train for a time slice, at least one step; the end of a stage and a validation take longer.

        Raises:
            TrainingError, FileNotFoundError: as :meth:`ernerf_ti.train.trainer.Trainer.run`.
        """
        if self.finished:
            return
        self._until = perf_counter() + seconds
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, daemon=True)
            self._thread.start()
        self._hand_over()

    def save(self) -> None:
        """Write the checkpoint; between slices the trainer is between two steps."""
        self.trainer.save()

    def close(self) -> None:
        """Stop the training; the trainer saves."""
        if self._thread is not None and not self.finished:
            self._stopping = True
            self._go.release()
            self._thread.join()  # an interrupted slice may still be running
        self._on_close()

    def _hand_over(self) -> None:
        self._go.release()
        self._back.acquire()
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def _work(self) -> None:
        self._go.acquire()
        try:
            self.trainer.run(self.stages, self._should_stop, self._on_step)
        except BaseException as error:  # raised in the thread that waits
            self._error = error
        self.finished = True
        self._back.release()

    def _on_step(self, report: StepReport) -> None:
        # Reading the loss waits for the device; the window waits for the step anyway.
        self.curve.append(CurvePoint(report.stage, report.step, float(report.loss), psnr(float(report.statistics.mse))))
        self.n_steps += 1

    def _should_stop(self) -> bool:
        if not self._stopping and perf_counter() >= self._until:
            self._back.release()
            self._go.acquire()
        return self._stopping
