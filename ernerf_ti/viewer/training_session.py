"""Training in slices of time, between which somebody looks at the portrait.

The trainer runs as it always does, logs, validates and saves, in a thread that hands over after each slice: never two
threads at once, because kernels are launched from both.
"""

import threading
from collections import deque
from time import perf_counter
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ernerf_ti.run.trained_portrait import TrainedPortrait
from ernerf_ti.train.config import STAGES
from ernerf_ti.train.losses import psnr
from ernerf_ti.train.trainer import Trainer

_CURVE_POINTS = 2000


class CurvePoint(NamedTuple):
    """A step that was taken."""

    stage: str
    step: int
    loss: float
    psnr: float
    """Of the step's pixels, dB."""


class WatchedTrainer(Trainer):
    """A trainer that remembers how the last steps went."""

    def __init__(self, *arguments, **options):
        self.curve: deque[CurvePoint] = deque(maxlen=_CURVE_POINTS)
        self.n_steps = 0
        """Since this object was made."""
        super().__init__(*arguments, **options)

    def train_step(self) -> dict[str, Tensor]:
        terms = super().train_step()
        # Reading the loss waits for the device; the window waits for the step anyway.
        error = max(float(terms["measured_mse"]), 1e-12)
        self.curve.append(CurvePoint(self.stage, self.step, float(terms["loss"]), psnr(error)))
        self.n_steps += 1
        return terms


class TrainingSession:
    """Drives a trainer a slice at a time.

    Args:
        trainer: where its run is.
        stages: those that are trained, in their order.
    """

    def __init__(self, trainer: WatchedTrainer, stages: tuple[str, ...] = STAGES):
        self.trainer, self.stages = trainer, stages
        self.finished = False
        self._error: BaseException | None = None
        self._thread: threading.Thread | None = None
        self._go, self._back = threading.Semaphore(0), threading.Semaphore(0)
        self._until, self._stopping = 0.0, False

    @property
    def weights_version(self) -> int:
        """Changes when the weights do."""
        return self.trainer.n_steps + self.finished

    @property
    def text(self) -> str:
        trainer = self.trainer
        place = f"{trainer.stage}, step {trainer.step} of {getattr(trainer.config, trainer.stage).iterations}"
        return f"{place}, trained to the end" if self.finished else place

    def portrait(self) -> TrainedPortrait:
        """What is being trained, for rendering: it shares the weights, those of the last step."""
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
        )

    def advance(self, seconds: float) -> None:
        """Train for about so long, one step at least; what a stage's end brings, and a validation, takes longer.

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
        """Write the checkpoint; between slices the trainer stands between two steps."""
        self.trainer.save()

    def close(self) -> None:
        """Stop where the run is; the trainer saves."""
        if self._thread is not None and not self.finished:
            self._stopping = True
            self._go.release()
            self._thread.join()  # an interrupted slice may still be going on

    def _hand_over(self) -> None:
        self._go.release()
        self._back.acquire()
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def _work(self) -> None:
        self._go.acquire()
        try:
            self.trainer.run(self.stages, self._should_stop)
        except BaseException as error:  # goes on in the thread that waits
            self._error = error
        self.finished = True
        self._back.release()

    def _should_stop(self) -> bool:
        if not self._stopping and perf_counter() >= self._until:
            self._back.release()
            self._go.acquire()
        return self._stopping
