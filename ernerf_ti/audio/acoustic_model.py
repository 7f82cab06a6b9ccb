"""The acoustic model in the pocketsphinx package: the likelihood of a sound for each state of each phone.

The model is phonetically tied. Each phone p has a codebook of J = 128 diagonal Gaussians in each of three streams
(cepstra, first and second differences), and each of its three states s has weights for them:

    log L(p, s) = sum_f log sum_j w[f, j, p, s] N(x_f; mean[p, f, j], variance[p, f, j])

Only the context-independent phones are used, and not the decoder of pocketsphinx.
"""

import struct
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

N_STATES = 3
_LOG_BASE = 1.0001  # of the weights, stored as 8-bit logarithms in steps of 2^10
_WEIGHT_STEP = 1024
_VARIANCE_FLOOR = 1e-4
# Frames in a chunk: [frames, 42 phones, 128 Gaussians] in float64 is 11 MB.
_CHUNK = 256


@dataclass(frozen=True)
class AcousticModel:
    """Parameters of the phone states. P phones, 3 streams, J Gaussians, d values per stream."""

    phones: tuple[str, ...]
    """P names, for example "AA", "B", "SIL"."""
    means: np.ndarray
    """[P, 3, J, d] float64."""
    variances: np.ndarray
    """[P, 3, J, d] float64."""
    log_weights: np.ndarray
    """[P, 3, J, 3 states] float64 natural logarithms."""

    def log_likelihoods(self, streams: np.ndarray) -> np.ndarray:
        """[T, 3, d] features -> [T, P, 3 states] natural log-likelihoods."""
        result = np.zeros((len(streams), len(self.phones), N_STATES))
        for stream in range(3):
            gaussians, weights = self._linear_forms[stream], self._weights[stream]
            for begin in range(0, len(streams), _CHUNK):
                x = streams[begin : begin + _CHUNK, stream]
                terms = np.concatenate((np.ones((len(x), 1)), x, x * x), 1)
                logs = (terms @ gaussians).reshape(len(x), len(self.phones), -1)
                largest = logs.max(-1, keepdims=True)
                sums = np.matmul(np.exp(logs - largest).transpose(1, 0, 2), weights).transpose(1, 0, 2)
                result[begin : begin + len(x)] += np.log(sums + np.finfo(np.float64).tiny) + largest
        return result

    @cached_property
    def _weights(self) -> list[np.ndarray]:
        """[P, J, 3 states] of each stream."""
        return [np.exp(self.log_weights[:, stream]) for stream in range(3)]

    @cached_property
    def _linear_forms(self) -> list[np.ndarray]:
        """[1 + 2 d, P J] matrix of each stream; (1, x, x^2) times it gives the log densities of all Gaussians."""
        forms = []
        for stream in range(3):
            mean, variance = (a[:, stream].reshape(-1, a.shape[-1]) for a in (self.means, self.variances))
            constant = -0.5 * (np.log(2 * np.pi * variance) + mean**2 / variance).sum(1, keepdims=True)
            forms.append(np.ascontiguousarray(np.concatenate((constant, mean / variance, -0.5 / variance), 1).T))
        return forms


def load_acoustic_model(folder: Path) -> AcousticModel:
    """Read `mdef`, `means`, `variances` and `sendump` of a phonetically tied Sphinx model.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file has another format, or the files do not match.
    """
    folder = Path(folder)
    for name in ("mdef", "means", "variances", "sendump"):
        if not (folder / name).is_file():
            raise FileNotFoundError(
                f"{folder / name}: expected a file of the acoustic model, got no such file; reinstall pocketsphinx"
            )
    phones, first_states = _read_mdef(folder / "mdef")
    means, variances = _read_gaussians(folder / "means"), _read_gaussians(folder / "variances")
    if not len(phones) == len(means) == len(variances):
        raise ValueError(
            f"acoustic model: expected means and variances of {len(phones)} phones (from mdef), "
            f"got {len(means)} and {len(variances)}; reinstall pocketsphinx"
        )
    states = np.asarray(first_states)[:, None] + np.arange(N_STATES)
    steps = _read_sendump(folder / "sendump")[:, :, states].astype(np.float64)  # [3, J, P, 3]
    return AcousticModel(
        phones,
        means,
        np.maximum(variances, _VARIANCE_FLOOR),
        -steps.transpose(2, 0, 1, 3) * (_WEIGHT_STEP * np.log(_LOG_BASE)),
    )


def _read_mdef(path: Path) -> tuple[tuple[str, ...], list[int]]:
    """Names of the context-independent phones, and the index of the first state of each in `sendump`."""
    data = path.read_bytes()
    if data[:4] != b"BMDF":
        raise ValueError(f"{path}: expected a binary model definition, got another file; reinstall pocketsphinx")
    text_length = struct.unpack_from("<i", data, 8)[0]
    header = 12 + text_length
    n_phones, _, n_states, n_ci_states = struct.unpack_from("<4i", data, header)
    if n_states != N_STATES or n_ci_states != N_STATES * n_phones:
        raise ValueError(
            f"{path}: expected {N_STATES} states per phone, got {n_states} ({n_ci_states} for {n_phones} phones); "
            "reinstall pocketsphinx"
        )
    names = data[header + 10 * 4 :].split(b"\0", n_phones)[:n_phones]
    # The states of the context-independent phones come first, in the order of the phones.
    return tuple(name.decode() for name in names), [N_STATES * p for p in range(n_phones)]


def _read_gaussians(path: Path) -> np.ndarray:
    """[P, 3, J, d] of a Sphinx-3 parameter file."""
    data = path.read_bytes()
    end = data.find(b"endhdr\n") + len(b"endhdr\n")
    if not data.startswith(b"s3\n") or end < len(b"endhdr\n"):
        raise ValueError(f"{path}: expected a Sphinx-3 parameter file, got another file; reinstall pocketsphinx")
    order = "<" if data[end : end + 4] == b"\x44\x33\x22\x11" else ">"
    n_phones, n_streams, n_gaussians, *sizes = struct.unpack_from(f"{order}6i", data, end + 4)
    if n_streams != 3 or len(set(sizes)) != 1:
        raise ValueError(f"{path}: expected 3 streams of one size, got {sizes}; reinstall pocketsphinx")
    values = np.frombuffer(data, f"{order}f4", n_phones * 3 * n_gaussians * sizes[0], end + 32)
    return values.reshape(n_phones, 3, n_gaussians, sizes[0]).astype(np.float64)


def _read_sendump(path: Path) -> np.ndarray:
    """[3, J, states] uint8, negative logarithms in units of the step."""
    data = path.read_bytes()
    position, sizes = 0, {}
    while length := struct.unpack_from("<i", data, position)[0]:
        text = data[position + 4 : position + 4 + length].rstrip(b"\0").decode("latin-1")
        key, _, value = text.partition(" ")
        sizes[key] = value
        position += 4 + length
    n_gaussians, n_states = struct.unpack_from("<2i", data, position + 4)
    if sizes.get("feature_count") != "3" or sizes.get("cluster_count") != "0":
        raise ValueError(f"{path}: expected 8-bit weights of 3 streams, got {sizes}; reinstall pocketsphinx")
    values = np.frombuffer(data, np.uint8, 3 * n_gaussians * n_states, position + 12)
    return values.reshape(3, n_gaussians, n_states)
