"""Audio features from pretrained speech models: HuBERT states and Wav2Vec2 letter scores.

The weights are not ours to ship: they are read from a folder on this machine, or from the cache of the
`transformers` package if it holds them. Nothing is downloaded.
"""

from pathlib import Path

import numpy as np
import torch

from ernerf_ti.audio.frame_features import SAMPLE_RATE, STEP, check_samples

HUBERT = "facebook/hubert-large-ls960-ft"
WAV2VEC2 = "cpierse/wav2vec2-large-xlsr-53-esperanto"

_RECEPTIVE_FIELD = 400  # samples behind one state
_CLIP = 1000 * STEP  # samples that HuBERT sees at once: 20 s
# Steps of 20 ms that Wav2Vec2 sees at once: those wanted, and those before and after for context.
_LEFT, _MIDDLE, _RIGHT = 10, 50, 10


class HubertStates:
    """Last hidden states of HuBERT.

    Args:
        model: a folder with config.json, preprocessor_config.json and weights, or a name in the cache.
        device: where the model runs.

    Raises:
        FileNotFoundError: the model is not on this machine.
        ValueError: the weights are not those of such a model.
        ImportError: the package transformers is not installed.
    """

    name = "hubert"

    def __init__(self, model: str | Path = HUBERT, device: torch.device | str = "cpu"):
        self._normalize, self._model = _load("HubertModel", model, device)
        self.dimension = self._model.config.hidden_size

    @torch.no_grad()
    def __call__(self, samples: np.ndarray) -> np.ndarray:
        """[S] mono 16 kHz sound -> [T, 2, dimension] float32, two states for each 25 fps video frame.

        The layout of `aud_hu.npy`. An odd last state is dropped.
        """
        samples = check_samples(samples)
        n_states = max(0, (len(samples) - (_RECEPTIVE_FIELD - STEP)) // STEP)
        x = self._normalize(samples) if n_states else torch.zeros(1, 0)
        parts = [np.zeros((0, self.dimension), np.float32)]
        for begin in range(0, len(samples), _CLIP):
            # Neighboring clips overlap by what one state sees beyond its own step.
            clip = x[:, begin : begin + _CLIP - STEP + _RECEPTIVE_FIELD]
            if clip.shape[1] >= _RECEPTIVE_FIELD:
                parts.append(self._model(clip).last_hidden_state[0].cpu().numpy())
        states = np.concatenate(parts)[:n_states]
        return states[: len(states) // 2 * 2].reshape(-1, 2, self.dimension)


class Wav2Vec2Letters:
    """Scores of letters (logits) of a Wav2Vec2 model that was trained to transcribe.

    Args and errors as :class:`HubertStates`.
    """

    name = "esperanto"

    def __init__(self, model: str | Path = WAV2VEC2, device: torch.device | str = "cpu"):
        self._normalize, self._model = _load("Wav2Vec2ForCTC", model, device)
        self.dimension = self._model.config.vocab_size

    @torch.no_grad()
    def __call__(self, samples: np.ndarray) -> np.ndarray:
        """[S] mono 16 kHz sound -> [S // 320, dimension] float32 at 50 steps per second.

        A second at a time, with 0.2 s before and after it for context, as the streaming recognizer of
        the torch-ngp family does; `audio_windows` makes `aud_eo.npy` of it.
        """
        samples = check_samples(samples)
        n_steps = len(samples) // STEP
        padded = np.concatenate((np.zeros(_LEFT * STEP, samples.dtype), samples))
        parts = [np.zeros((0, self.dimension), np.float32)]
        for first in range(0, n_steps, _MIDDLE):
            n = min(_MIDDLE, n_steps - first)
            stretch = padded[first * STEP : (first + _LEFT + n + _RIGHT) * STEP]
            # One step more than wanted, at the end too: the receptive field makes it return one fewer.
            stretch = np.pad(stretch, (0, max(0, (_LEFT + n + 1) * STEP - len(stretch))))
            logits = self._model(self._normalize(stretch)).logits[0].cpu().numpy()
            parts.append(logits[_LEFT : _LEFT + n])
        return np.concatenate(parts)


def _load(kind: str, model: str | Path, device: torch.device | str):
    """A function from samples to the model's input, and the model."""
    try:
        import transformers
    except ImportError as error:
        raise ImportError(
            "speech model: expected the package transformers, got none; pip install 'ernerf-ti[speech-models]'"
        ) from error
    try:
        extractor = transformers.Wav2Vec2FeatureExtractor.from_pretrained(model, local_files_only=True)
        network, report = getattr(transformers, kind).from_pretrained(
            model, local_files_only=True, output_loading_info=True
        )
    except (OSError, ValueError) as error:
        raise FileNotFoundError(
            f"speech model: expected {model} as a folder with config.json, preprocessor_config.json and "
            "model.safetensors (or pytorch_model.bin), or in the cache of transformers, got neither on this machine; "
            f"download {model} elsewhere, copy the folder here and pass its path"
        ) from error
    # Used in training only, so that some files leave it out. Anything else missing has random values now.
    missing = sorted(key for key in report["missing_keys"] if not key.endswith("masked_spec_embed"))
    if missing:
        raise ValueError(
            f"speech model: expected the weights of a {kind} in {model}, got a file without {len(missing)} of them "
            f"({missing[0]}, ...); pass the folder of a {kind}"
        )
    network = network.eval().to(device)

    def normalize(samples: np.ndarray) -> torch.Tensor:
        inputs = extractor(np.asarray(samples, np.float32), sampling_rate=SAMPLE_RATE, return_tensors="pt")
        return inputs.input_values.to(device)

    return normalize, network
