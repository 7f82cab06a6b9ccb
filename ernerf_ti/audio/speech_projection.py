"""How hidden states of a speech model become features: a linear projection that is fitted to a capture."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

N_COMPONENTS = 64
LIVE_LOOK_AHEAD = 0.08
"""Seconds of sound ahead that states know in live sessions, of portraits that were trained on whole recordings."""
_PASSES = 2
"""Version of how states with a look-ahead are computed: 1 saw stretches of 1.6 s, 2 remembers what came before."""


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

    @property
    def live(self) -> "SpeechProjection":
        """The projection for sound that arrives: itself if it was fitted to states with a look-ahead."""
        return replace(self, look_ahead=LIVE_LOOK_AHEAD) if self.look_ahead is None else self

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
            "passes": _PASSES,
            "mean": torch.from_numpy(self.mean),
            "components": torch.from_numpy(self.components),
        }

    @staticmethod
    def from_state(state: Mapping[str, Any], source: Path) -> "SpeechProjection":
        """From :meth:`state_dict`, or the arrays of a file.

        Raises ValueError, naming the source, if something is missing or of another kind, or if the states had a
        look-ahead and were computed in another way.
        """
        try:
            look_ahead = None if state["look_ahead"] is None else float(state["look_ahead"])
            mean, components = (np.asarray(state[name].tolist(), np.float32) for name in ("mean", "components"))
            found = SpeechProjection(
                str(state["model"]), int(state["layer"]), str(state["sha256"]), look_ahead, mean, components
            )
            passes = int(state["passes"]) if "passes" in state else 1
            if mean.ndim != 1 or components.shape != (N_COMPONENTS, len(mean)):
                raise ValueError(f"shapes {list(mean.shape)} and {list(components.shape)}")
            if not all(np.isfinite(array).all() for array in (mean, components)):
                raise ValueError("values that are not finite")
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ValueError(
                f"{source}: expected the projection of Whisper's states ([D] and [{N_COMPONENTS}, D] numbers), got "
                f"{error}; the file is damaged, take another copy or extract the features again"
            ) from None
        if look_ahead is not None and passes != _PASSES:
            raise ValueError(
                f"{source}: expected states with a look-ahead of version {_PASSES}, got version {passes}, which this "
                "ernerf-ti does not compute; make the capture again with `ernerf-ti preprocess`, and train on it"
            )
        return found
