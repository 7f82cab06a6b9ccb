"""Audio features from pretrained speech models: HuBERT states and Wav2Vec2 letter scores.

The weights are not part of this package. They are read from a folder, or from the cache of the `transformers` package;
nothing is downloaded.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ernerf_ti.audio.frame_features import SAMPLE_RATE, STEP, check_samples

HUBERT = "facebook/hubert-large-ls960-ft"
WAV2VEC2 = "cpierse/wav2vec2-large-xlsr-53-esperanto"

_RECEPTIVE_FIELD = 400  # samples per state
_CLIP = 1000 * STEP  # samples in one pass of HuBERT: 20 s
# Steps of 20 ms in one pass of Wav2Vec2: left context, output, right context.
_LEFT, _MIDDLE, _RIGHT = 10, 50, 10


class HubertStates:
    """Last hidden states of HuBERT.

    Args:
        model: a folder with config.json, preprocessor_config.json and weights, or a name in the transformers cache.
        device: to run the model on.

    Raises:
        FileNotFoundError: the model is not on this machine.
        ValueError: the weights are not those of a HuBERT model.
        ImportError: the package transformers is not installed.
    """

    name = "hubert"

    def __init__(self, model: str | Path = HUBERT, device: torch.device | str = "cpu"):
        self._normalize, self._model = _load("HubertModel", model, device)
        self.dimension = self._model.config.hidden_size

    @torch.no_grad()
    def __call__(self, samples: np.ndarray) -> np.ndarray:
        """[S] mono 16 kHz sound -> [T, 2, dimension] float32, two states per 25 fps video frame, as in `aud_hu.npy`.

        An odd last state is dropped.
        """
        samples = check_samples(samples)
        n_states = max(0, (len(samples) - (_RECEPTIVE_FIELD - STEP)) // STEP)
        x = self._normalize(samples) if n_states else torch.zeros(1, 0)
        parts = [np.zeros((0, self.dimension), np.float32)]
        for begin in range(0, len(samples), _CLIP):
            # Adjacent clips overlap by the part of the receptive field that exceeds one step.
            clip = x[:, begin : begin + _CLIP - STEP + _RECEPTIVE_FIELD]
            if clip.shape[1] >= _RECEPTIVE_FIELD:
                parts.append(self._model(clip).last_hidden_state[0].cpu().numpy())
        states = np.concatenate(parts)[:n_states]
        return states[: len(states) // 2 * 2].reshape(-1, 2, self.dimension)


class Wav2Vec2Letters:
    """Letter logits of a Wav2Vec2 model trained for transcription.

    Arguments and errors as for :class:`HubertStates`.
    """

    name = "esperanto"

    def __init__(self, model: str | Path = WAV2VEC2, device: torch.device | str = "cpu"):
        self._normalize, self._model = _load("Wav2Vec2ForCTC", model, device)
        self.dimension = self._model.config.vocab_size

    @torch.no_grad()
    def __call__(self, samples: np.ndarray) -> np.ndarray:
        """[S] mono 16 kHz sound -> [S // 320, dimension] float32 at 50 steps per second.

        Computed one second at a time with 0.2 s of context on each side, like the streaming recognizer of RAD-NeRF
        and ER-NeRF. `audio_windows` turns the result into `aud_eo.npy`.
        """
        samples = check_samples(samples)
        n_steps = len(samples) // STEP
        padded = np.concatenate((np.zeros(_LEFT * STEP, samples.dtype), samples))
        parts = [np.zeros((0, self.dimension), np.float32)]
        for first in range(0, n_steps, _MIDDLE):
            n = min(_MIDDLE, n_steps - first)
            stretch = padded[first * STEP : (first + _LEFT + n + _RIGHT) * STEP]
            # Pad by one step, as the receptive field makes the model return one step fewer.
            stretch = np.pad(stretch, (0, max(0, (_LEFT + n + 1) * STEP - len(stretch))))
            logits = self._model(self._normalize(stretch)).logits[0].cpu().numpy()
            parts.append(logits[_LEFT : _LEFT + n])
        return np.concatenate(parts)


def _load(kind: str, model: str | Path, device: torch.device | str) -> tuple[Callable[[np.ndarray], torch.Tensor], Any]:
    """A function from samples to the model's input, and the model in evaluation mode."""
    network, extractor = load_network(kind, model).to(device), _load_part("Wav2Vec2FeatureExtractor", model)

    def normalize(samples: np.ndarray) -> torch.Tensor:
        inputs = extractor(np.asarray(samples, np.float32), sampling_rate=SAMPLE_RATE, return_tensors="pt")
        return inputs.input_values.to(device)

    return normalize, network


def load_network(kind: str, model: str | Path) -> Any:
    """A model of transformers in evaluation mode, on the CPU.

    Args:
        kind: name of its class.
        model: a folder, or a name in the transformers cache.

    Raises as :class:`HubertStates`.
    """
    network, report = _load_part(kind, model, output_loading_info=True)
    # masked_spec_embed is used only in training, and some files lack it. Any other missing weight would be random.
    missing = sorted(key for key in report["missing_keys"] if not key.endswith("masked_spec_embed"))
    if missing:
        raise ValueError(
            f"speech model {model}: expected the weights of a {kind}, but {len(missing)} of them are missing "
            f"({missing[0]}, ...); pass the folder of a {kind}"
        )
    return network.eval()


def _load_part(kind: str, model: str | Path, **options: Any) -> Any:
    """What a class of transformers reads of a model."""
    try:
        import transformers
    except ImportError as error:
        raise ImportError(
            "speech models need the package transformers; pip install 'ernerf-ti[speech-models]'"
        ) from error
    try:
        return getattr(transformers, kind).from_pretrained(model, local_files_only=True, **options)
    except (OSError, ValueError) as error:
        raise FileNotFoundError(
            f"speech model {model}: not found as a folder with config.json, preprocessor_config.json and "
            "model.safetensors (or pytorch_model.bin), nor in the transformers cache; download it and pass the path of "
            "its folder"
        ) from error
