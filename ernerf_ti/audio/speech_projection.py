"""How hidden states of a speech model become features: a linear projection that is fitted to a capture."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

N_COMPONENTS = 64
LIVE_LOOK_AHEAD = 0.04
"""Seconds of sound ahead that states know in live sessions, of portraits that were trained on whole recordings."""


@dataclass(frozen=True, eq=False)
class SpeechProjection:
    """How the states of a Whisper encoder become features: kept with a capture and with the portraits trained on it."""

    model: str
    """Name of the encoder, for people."""
    layer: int
    sha256: str
    """Of the encoder's weights up to the layer."""
    look_ahead: float | None
    """Seconds, see :class:`ernerf_ti.audio.whisper_states.WhisperStates`."""
    mean: np.ndarray
    """[D] float32, subtracted from the states."""
    components: np.ndarray
    """[64, D] float32, of decreasing variance and orthogonal, multiplied by the centered states."""
    live_mean: np.ndarray
    """[D] float32, subtracted in place of `mean` from states with :data:`LIVE_LOOK_AHEAD`."""

    @property
    def live(self) -> "SpeechProjection":
        """The projection for sound that arrives: itself if it was fitted to states with a look-ahead."""
        if self.look_ahead is not None:
            return self
        return replace(self, look_ahead=LIVE_LOOK_AHEAD, mean=self.live_mean)

    @property
    def facts(self) -> dict[str, str | int | float | None]:
        """What portraits and captures must agree in."""
        return {"model": self.model, "layer": self.layer, "sha256": self.sha256, "look_ahead": self.look_ahead}

    def __call__(self, states: np.ndarray) -> np.ndarray:
        """[T, D] -> [T, 64] float32."""
        return ((states - self.mean) @ self.components.T).astype(np.float32)

    def state_dict(self) -> dict[str, Any]:
        """Plain values and tensors, for a checkpoint."""
        import torch

        return {
            **self.facts,
            "mean": torch.from_numpy(self.mean),
            "components": torch.from_numpy(self.components),
            "live_mean": torch.from_numpy(self.live_mean),
        }

    @staticmethod
    def from_state(state: Mapping[str, Any], source: Path) -> "SpeechProjection":
        """From :meth:`state_dict`, or the arrays of a file.

        Raises ValueError, naming the source, if something is missing or of another kind.
        """
        try:
            look_ahead = None if state["look_ahead"] is None else float(state["look_ahead"])
            arrays = ("mean", "components", "live_mean" if "live_mean" in state else "mean")  # early files lack it
            mean, components, live_mean = (np.asarray(state[name].tolist(), np.float32) for name in arrays)
            found = SpeechProjection(
                str(state["model"]), int(state["layer"]), str(state["sha256"]), look_ahead, mean, components, live_mean
            )
            if mean.ndim != 1 or live_mean.shape != mean.shape or components.shape != (N_COMPONENTS, len(mean)):
                raise ValueError(
                    f"shapes {list(mean.shape)}, {list(components.shape)} and {list(live_mean.shape)} of live_mean"
                )
            if not all(np.isfinite(array).all() for array in (mean, components, live_mean)):
                raise ValueError("values that are not finite")
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ValueError(
                f"{source}: expected the projection of Whisper's states ([D] and [{N_COMPONENTS}, D] numbers), got "
                f"{error}; the file is damaged, take another copy or extract the features again"
            ) from None
        return found
