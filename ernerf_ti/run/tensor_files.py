"""Reading files of torch.save from anywhere: nothing in them is executed, and damage is found before it is used."""

import warnings
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ernerf_ti.media.files import require_file


def read_tensor_file(path: Path, device: torch.device | str, what: str, advice: str) -> Any:
    """Read tensors and plain values that torch.save has written.

    torch reads the records of a file without looking at their checksums, and takes a tensor's shape from the file as it
    is. So both are checked here: no tensor has more elements than the file holds.

    Args:
        path: the file.
        device: where the tensors go.
        what: what is expected there, with its article.
        advice: what to do about another or damaged file, or none.

    Raises:
        FileNotFoundError, IsADirectoryError: no such file.
        ValueError: another file, or a damaged one.
    """
    path = require_file(path, what, advice)
    problem = _problem_of_records(path)
    if problem is None:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about other pickles, before the error
                content = torch.load(path, map_location=device, weights_only=True)
        except Exception as error:  # torch raises whatever its unpickler meets, and advises to run what is in the file
            raise ValueError(
                f"{path}: expected {what}, got a file that torch can't read ({type(error).__name__}); {advice}"
            ) from error
        problem = _problem_of_tensors(content)
    if problem is not None:
        raise ValueError(f"{path}: expected {what}, got a damaged file ({problem}); {advice}")
    return content


def not_finite(content: Any) -> str | None:
    """Name of the first tensor that holds NaN or an infinity; None if there is none."""
    for name, tensor in tensors_of(content):
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            return name
    return None


def _problem_of_records(path: Path) -> str | None:
    if not zipfile.is_zipfile(path):  # torch before 1.6 wrote pickles alone, which have no checksums
        return None
    try:
        with zipfile.ZipFile(path) as file:
            records = file.infolist()
            if any(record.compress_type != zipfile.ZIP_STORED for record in records):
                return "its records are compressed, which torch.save does not do"
            if sum(record.file_size for record in records) > path.stat().st_size:
                return "its records claim more bytes than the file has"
            broken = file.testzip()
    except (OSError, ValueError, EOFError, NotImplementedError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        return " ".join(str(error).split()) or type(error).__name__
    return None if broken is None else f"the checksum of {broken} is wrong"


def _problem_of_tensors(content: Any) -> str | None:
    for name, tensor in tensors_of(content):
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_meta:
            return f"{name} is no plain tensor"
        if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            return f"{name} of shape {list(tensor.shape)} has more elements than are stored"
    return None


def tensors_of(content: Any) -> Iterator[tuple[str, Tensor]]:
    """All tensors in dictionaries, lists and tuples, by dotted names. A pickle can hold cycles."""
    seen: set[int] = set()
    waiting = [("content", content)]
    while waiting:
        name, value = waiting.pop()
        if isinstance(value, Tensor):
            yield name, value
        elif isinstance(value, dict | list | tuple) and id(value) not in seen:
            seen.add(id(value))
            items = value.items() if isinstance(value, dict) else enumerate(value)
            waiting += [(f"{name}.{key}"[:200], inner) for key, inner in items]
