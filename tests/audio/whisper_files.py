"""A small Whisper encoder with random weights, in the formats that they are published in."""

import math
import struct
from pathlib import Path

import numpy as np
import torch

WIDTH, N_LAYERS, N_STEPS = 128, 2, 150
DTYPES = {np.dtype("<f4"): 0, np.dtype("i1"): 1, np.dtype("<i2"): 2, np.dtype("<f2"): 4}


def openai_tensors(seed: int = 0, width: int = WIDTH) -> dict[str, torch.Tensor]:
    """By OpenAI's names without the prefix `encoder.`; values that float16 holds exactly."""
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> torch.Tensor:
        n_in = 1 if len(shape) == 1 else math.prod(shape[1:])
        return (torch.randn(shape, generator=generator) / n_in**0.5).half().float()

    tensors = {
        "conv1.weight": random(width, 80, 3),
        "conv1.bias": random(width),
        "conv2.weight": random(width, width, 3),
        "conv2.bias": random(width),
        "positional_embedding": random(N_STEPS, width),
        "ln_post.weight": (1 + random(width) / 8).half().float(),
        "ln_post.bias": random(width),
    }
    for i in range(N_LAYERS):
        for norm in ("attn_ln", "mlp_ln"):
            tensors[f"blocks.{i}.{norm}.weight"] = (1 + random(width) / 8).half().float()
            tensors[f"blocks.{i}.{norm}.bias"] = random(width)
        for part in ("attn.query", "attn.key", "attn.value", "attn.out"):
            tensors[f"blocks.{i}.{part}.weight"] = random(width, width)
            if part != "attn.key":
                tensors[f"blocks.{i}.{part}.bias"] = random(width)
        for part, n_out, n_in in (("mlp.0", 4 * width, width), ("mlp.2", width, 4 * width)):
            tensors[f"blocks.{i}.{part}.weight"] = random(n_out, n_in)
            tensors[f"blocks.{i}.{part}.bias"] = random(n_out)
    return tensors


def write_openai(path: Path, tensors: dict[str, torch.Tensor]) -> Path:
    state = {f"encoder.{name}": tensor for name, tensor in tensors.items()}
    torch.save({"dims": {"n_mels": 80}, "model_state_dict": {**state, "decoder.ln.weight": torch.ones(3)}}, path)
    return path


def transformers_state(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """By the names of the encoder in transformers."""
    renamed = (
        *(("positional_embedding", "embed_positions.weight"), ("ln_post", "layer_norm"), ("blocks.", "layers.")),
        *(("attn_ln", "self_attn_layer_norm"), ("mlp_ln", "final_layer_norm"), ("mlp.0", "fc1"), ("mlp.2", "fc2")),
        *((f".attn.{part}.", f".self_attn.{part[0]}_proj.") for part in ("query", "key", "value")),
        (".attn.out.", ".self_attn.out_proj."),
    )
    state = {}
    for name, tensor in tensors.items():
        for there, here in renamed:
            name = name.replace(there, here)
        state[name] = tensor
    return state


def write_ctranslate2(
    path: Path, tensors: dict[str, torch.Tensor], kind: str = "<f2", spec: str = "WhisperSpec"
) -> Path:
    """A `model.bin`, with queries, keys and values joined and a tensor of the decoder."""
    found = {
        **{
            f"encoder/{name}/{kind}": tensors[f"{name}.{kind}"]
            for name in ("conv1", "conv2")
            for kind in ("weight", "bias")
        },
        "encoder/position_encodings/encodings": tensors["positional_embedding"],
    }

    def add(here: str, there: str, norm: bool = False) -> None:
        for ours, theirs in (("weight", "gamma"), ("bias", "beta")):
            found[f"encoder/{here}/{theirs if norm else ours}"] = tensors[f"{there}.{ours}"]

    add("layer_norm", "ln_post", norm=True)
    for i in range(N_LAYERS):
        here, there = f"layer_{i}", f"blocks.{i}"
        add(f"{here}/self_attention/layer_norm", f"{there}.attn_ln", norm=True)
        add(f"{here}/self_attention/linear_1", f"{there}.attn.out")
        add(f"{here}/ffn/layer_norm", f"{there}.mlp_ln", norm=True)
        add(f"{here}/ffn/linear_0", f"{there}.mlp.0")
        add(f"{here}/ffn/linear_1", f"{there}.mlp.2")
        joined = [tensors[f"{there}.attn.{part}.weight"] for part in ("query", "key", "value")]
        found[f"encoder/{here}/self_attention/linear_0/weight"] = torch.cat(joined)
        query, value = (tensors[f"{there}.attn.{part}.bias"] for part in ("query", "value"))
        found[f"encoder/{here}/self_attention/linear_0/bias"] = torch.cat((query, torch.zeros_like(query), value))
    arrays = {name: tensor.numpy().astype(kind) for name, tensor in found.items()}
    arrays["decoder/layer_norm/gamma"] = np.ones(3, "<f2")
    arrays["encoder/num_heads"] = np.array(WIDTH // 64, "<i2")
    with open(path, "wb") as file:
        file.write(struct.pack("<I", 6) + _text(spec) + struct.pack("<II", 3, len(arrays)))
        for name, array in arrays.items():
            file.write(_text(name) + struct.pack(f"<B{array.ndim}I", array.ndim, *array.shape))
            file.write(struct.pack("<BI", DTYPES[array.dtype], array.nbytes) + array.tobytes())
        file.write(b"\0\0")  # names of tensors that share data
    return path


def _text(text: str) -> bytes:
    data = text.encode() + b"\0"
    return struct.pack("<H", len(data)) + data
