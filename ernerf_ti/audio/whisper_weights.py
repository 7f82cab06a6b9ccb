"""The weights of a Whisper encoder [Radford et al. 2022] from the files that they are published in.

CTranslate2's `model.bin`, OpenAI's `.pt`, and folders or names in the cache of the `transformers` package. Tensors get
the names of :class:`ernerf_ti.audio.whisper_encoder.WhisperEncoder`; nothing in a file is executed.
"""

import hashlib
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ernerf_ti.audio.extractors import TINY_EN

# Data types of CTranslate2's files. Integers are quantized weights, or settings, which are not needed.
_FLOATS: dict[int, np.dtype] = {0: np.dtype("<f4"), 4: np.dtype("<f2")}
_QUANTIZED = {1, 2}
_OF_LAYER = re.compile(r"(?:layer_|blocks\.|layers\.)(\d+)\.(.+)\.(weight|bias|gamma|beta)")
_KINDS = {"gamma": "weight", "beta": "bias"}
# Names here -> those of CTranslate2, OpenAI and transformers.
_OUTSIDE = {
    "positions": ("position_encodings.encodings", "positional_embedding", "embed_positions.weight"),
    "norm.weight": ("layer_norm.gamma", "ln_post.weight", "layer_norm.weight"),
    "norm.bias": ("layer_norm.beta", "ln_post.bias", "layer_norm.bias"),
}
_INSIDE = {
    "attention_norm": ("self_attention.layer_norm", "attn_ln", "self_attn_layer_norm"),
    "attention_in": ("self_attention.linear_0",),
    "query": ("attn.query", "self_attn.q_proj"),
    "key": ("attn.key", "self_attn.k_proj"),
    "value": ("attn.value", "self_attn.v_proj"),
    "attention_out": ("self_attention.linear_1", "attn.out", "self_attn.out_proj"),
    "mlp_norm": ("ffn.layer_norm", "mlp_ln", "final_layer_norm"),
    "mlp_in": ("ffn.linear_0", "mlp.0", "fc1"),
    "mlp_out": ("ffn.linear_1", "mlp.2", "fc2"),
}
_HERE_OUTSIDE = {there: here for here, names in _OUTSIDE.items() for there in names}
_HERE_INSIDE = {there: here for here, names in _INSIDE.items() for there in names}


@dataclass(frozen=True)
class WhisperWeights:
    """An encoder's weights up to one of its layers."""

    name: str
    """Of the model, for people."""
    layer: int
    """The last layer that is there, from 1 on."""
    tensors: dict[str, Tensor]
    """float32, by their names in :class:`ernerf_ti.audio.whisper_encoder.WhisperEncoder`."""

    @property
    def sha256(self) -> str:
        """Of names and values: the same for all files that hold the same weights."""
        total = hashlib.sha256()
        for name, tensor in sorted(self.tensors.items()):
            total.update(f"{name} {list(tensor.shape)}\n".encode())
            total.update(tensor.numpy().tobytes())
        return total.hexdigest()


def load_whisper(model: str | Path | None, layer: int) -> WhisperWeights:
    """Weights of an encoder up to a layer.

    Args:
        model: a file, a folder with `model.bin` or of transformers, or a name in the cache of transformers; None for
            tiny.en from the extra `speech`.
        layer: from 1 to the number of layers.

    Raises:
        FileNotFoundError: the model is not on this machine.
        ValueError: a damaged file, one of another model, or no such layer.
        ImportError: the package transformers, which reads such a folder, is not installed.
    """
    source = TINY_EN.find() if model is None else Path(model)
    if (source / "model.bin").is_file():
        source = source / "model.bin"
    name = "tiny.en" if model is None else (source.parent if source.name == "model.bin" else source).name
    if source.is_file():
        tensors = _read_ctranslate2(source) if source.suffix == ".bin" else _read_openai(source)
    else:
        tensors = _read_transformers(str(model))
    return WhisperWeights(name, layer, _selected(_renamed(tensors), layer, str(source)))


def _selected(tensors: dict[str, Tensor], layer: int, source: str) -> dict[str, Tensor]:
    """What the layers up to this one need. The last layer of all is followed by the normalization of the output."""
    layers = {int(name.split(".")[1]) for name in tensors if name.startswith("layers.")}
    if not layers or not {"conv1.weight", "conv2.weight", "positions"} <= tensors.keys():
        raise ValueError(f"{source}: expected the encoder of a Whisper model, got other tensors; pass a Whisper model")
    n_layers = max(layers) + 1
    if not 1 <= layer <= n_layers:
        raise ValueError(f"layer: expected 1 to {n_layers}, the layers of {source}, got {layer}; choose one of these")

    def is_needed(name: str) -> bool:
        if name.startswith("layers."):
            return int(name.split(".")[1]) < layer
        return layer == n_layers or not name.startswith("norm.")

    return {name: tensor for name, tensor in tensors.items() if is_needed(name)}


def _renamed(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The encoder's tensors, float32, by their names here; query, key and value joined."""
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        inside = _OF_LAYER.fullmatch(name)
        if inside:
            index, part, kind = inside.groups()
            name = f"layers.{index}.{_HERE_INSIDE.get(part, part)}.{_KINDS.get(kind, kind)}"
        found[_HERE_OUTSIDE.get(name, name)] = tensor.float()
    for base in {name.rpartition("query.")[0] for name in found if ".query." in name}:
        for kind in ("weight", "bias"):
            query = found.pop(f"{base}query.{kind}", None)
            value = found.pop(f"{base}value.{kind}", None)
            if query is not None and value is not None:
                # Keys have no bias: it would change all scores of a query alike.
                key = found.pop(f"{base}key.{kind}", torch.zeros_like(query))
                found[f"{base}attention_in.{kind}"] = torch.cat((query, key, value))
    return found


def _read_ctranslate2(path: Path) -> dict[str, Tensor]:
    """Floating-point tensors of the encoder in a `model.bin`.

    The file has a version, the name and the revision of a specification, and a number of tensors, each with its name,
    its shape, its data type and its data.
    """
    data, position = memoryview(path.read_bytes()), 0
    tensors, quantized = {}, False

    def take(size: int) -> memoryview:
        nonlocal position
        part = data[position : position + size]
        if len(part) < size:
            raise ValueError("it ends too early")
        position += size
        return part

    def number(code: str) -> int:
        return struct.unpack(f"<{code}", take(struct.calcsize(f"<{code}")))[0]

    def text() -> str:
        return bytes(take(number("H"))).rstrip(b"\0").decode()

    try:
        number("I")
        specification = text()
        if specification != "WhisperSpec":
            raise ValueError(f"it holds a model of the kind {specification[:40]!r}")
        number("I")
        for _ in range(number("I")):
            name, shape = text(), [number("I") for _ in range(number("B"))]
            kind, values = number("B"), take(number("I"))
            if not name.startswith("encoder/") or not shape:
                continue
            quantized |= kind in _QUANTIZED
            if kind in _FLOATS:
                array = np.frombuffer(values, _FLOATS[kind]).reshape(shape).astype(np.float32)
                tensors[name.removeprefix("encoder/").replace("/", ".")] = torch.from_numpy(array)
    except (ValueError, UnicodeDecodeError) as error:
        raise ValueError(
            f"{path}: expected a Whisper model of CTranslate2, got another or damaged file ({error}); "
            "check that it was copied completely"
        ) from None
    if quantized:
        raise ValueError(
            f"{path}: expected weights in float16 or float32, got integers; convert the model with "
            "--quantization float16"
        )
    return tensors


def _read_openai(path: Path) -> dict[str, Tensor]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises whatever its unpickler meets
        raise ValueError(
            f"{path}: expected a Whisper model, got a file that torch can't read ({type(error).__name__}); "
            "check that it was copied completely"
        ) from error
    state = content.get("model_state_dict", content) if isinstance(content, dict) else None
    if not isinstance(state, dict):
        raise ValueError(f"{path}: expected a Whisper model, got other content; pass the published file")
    return {
        name.removeprefix("encoder."): tensor
        for name, tensor in state.items()
        if str(name).startswith("encoder.") and isinstance(tensor, Tensor)
    }


def _read_transformers(model: str) -> dict[str, Tensor]:
    from ernerf_ti.audio.speech_models import load_network

    return load_network("WhisperModel", model).encoder.state_dict()
