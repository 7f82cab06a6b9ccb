"""Measure how well sound predicts the mouth, for one speaker and across speakers.

Each clip shows one speaker. From a window of audio features (16 steps of 20 ms), a ridge regression and a small
convolutional network predict the shape of the mouth in the middle frame: opening, width and rounding. IN fits the
first 80 % of a clip and tests on the rest, or predicts each block of a clip from all others; CROSS fits one clip and
tests on another. Figures are Pearson's r with the 95 % confidence interval of a bootstrap over blocks of one second.
"""

import contextlib
import hashlib
import platform
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from ernerf_ti.audio.extractors import TINY_EN
from ernerf_ti.audio.mel_spectrum import MelSpectrum
from ernerf_ti.audio.phone_posteriors import PhonePosteriors
from ernerf_ti.audio.whisper_features import principal_components
from ernerf_ti.audio.whisper_states import WhisperStates
from ernerf_ti.audio.windows import STEPS_PER_FRAME, WINDOW, audio_windows
from ernerf_ti.evaluation.mesh_measures import MOUTH, mouth_measures
from ernerf_ti.evaluation.ridge import Predictor, Standardization, blocks_in_time, fit_ridge, split_in_time
from ernerf_ti.evaluation.statistics import correlation, correlation_interval
from ernerf_ti.media.files import read_arrays, write_arrays
from ernerf_ti.media.sound import read_sound
from ernerf_ti.media.video import read_frames
from ernerf_ti.preprocess.face_mesh import track_face

RATE = 25  # frames per second

_MIN_FRAMES = 100

_EPOCHS = 40
_BATCH_SIZE = 64
_N_NETS = 3  # with different seeds; the prediction is their mean

_BLOCK = RATE  # frames


class RawMelSpectrum(MelSpectrum):
    """Log mel energies without normalization over the recording, for comparison."""

    name = "mel-raw"

    def steps(self, frames: np.ndarray, mean: np.ndarray, variance: np.ndarray) -> np.ndarray:
        return super().steps(frames, np.zeros_like(mean), np.ones_like(variance))


_LAYERS = {f"layer-{layer}": partial(WhisperStates, layer=layer) for layer in (1, 2, 3, 4)}
EXTRACTORS: dict[str, Callable[[], Callable[[np.ndarray], np.ndarray]]] = {
    **{extractor.name: extractor for extractor in (PhonePosteriors, MelSpectrum, RawMelSpectrum)},
    **_LAYERS,
}
"""Extractors by name. The states of Whisper's layers are reduced to principal components where they are used."""
FEATURES = {
    **{name: (name,) for name in ("ppg", "mel", "mel-raw")},
    **{f"whisper-{layer}": (f"layer-{layer}",) for layer in (1, 2, 3, 4)},
    "ppg+whisper-2": ("ppg", "layer-2"),
    "ppg+whisper-3": ("ppg", "layer-3"),
}
"""What is compared: the extractors that are joined. The last one is `whisper` of `ernerf-ti preprocess`."""


@dataclass(frozen=True)
class Clip:
    """One speaker: N frames with a trusted mesh, of F in the video."""

    name: str
    n_frames: int
    """F."""
    targets: np.ndarray
    """[N, 3] float64 mouth measures, in the order of MOUTH."""
    windows: dict[str, np.ndarray]
    """[N, 16, C] float32 audio windows by name of the extractor, see EXTRACTORS."""


@dataclass(frozen=True)
class Figure:
    """How well one target is predicted."""

    feature: str
    predictor: str
    train: str
    test: str
    """Names of the clips; equal for the two parts of one clip (IN)."""
    target: str
    r: float
    low: float
    high: float
    """Ends of the 95 % confidence interval of r."""
    n_frames: int
    """Number of test frames."""

    @property
    def kind(self) -> str:
        return "IN" if self.train == self.test else "CROSS"


def run(
    paths: tuple[Path, ...],
    features: tuple[str, ...],
    meshes: Path | None,
    seed: int,
    predictors: tuple[str, ...] = (),
    blocks: int = 0,
) -> tuple[dict[str, object], str]:
    """Measure clips.

    Args:
        paths: videos of one speaker each, with different names.
        features: keys of FEATURES; if empty, all that are installed.
        meshes: folder where face meshes are kept; None to track every time.
        seed: of the networks and the bootstrap.
        predictors: keys of PREDICTORS; all if empty.
        blocks: as for :func:`measure`.

    Returns:
        The figures as JSON values, and as a table.

    Raises:
        ValueError: an unknown feature, or as :func:`read_clip`.
        FileNotFoundError, ImportError: as :func:`read_clip`, or Whisper's weights are not installed.
    """
    unknown = [name for name in features if name not in FEATURES]
    if unknown:
        raise ValueError(f"--features: expected some of {', '.join(FEATURES)}, got {', '.join(unknown)}")
    available = [name for name, parts in FEATURES.items() if TINY_EN.is_installed() or not set(parts) & set(_LAYERS)]
    chosen = list(dict.fromkeys(features or available))
    extractors = {part: EXTRACTORS[part]() for name in chosen for part in FEATURES[name]}
    clips = [read_clip(path, extractors, meshes) for path in paths]
    figures = measure(clips, chosen, seed, predictors, blocks)
    return report(clips, figures, seed), table(figures)


def read_clip(path: Path, extractors: dict, meshes: Path | None = None) -> Clip:
    """Track the face in a video and extract its audio features.

    Args:
        path: a video file with sound.
        extractors: name -> callable from samples [S] at 16 kHz to features [T, C] at 50 steps per second.
        meshes: folder to keep the mesh in, named by the content of the video; None to track it again.

    Raises:
        FileNotFoundError, ValueError: no such file, no video stream, no sound, or too few frames with a face.
        ImportError: mediapipe is not installed.
    """
    samples = read_sound(path)
    points, valid = _face_points(path, meshes)
    if valid.sum() < _MIN_FRAMES:
        raise ValueError(
            f"{path}: expected a face in at least {_MIN_FRAMES} frames, got it in {valid.sum()} of {len(valid)}; "
            "use a longer video of one person who looks at the camera"
        )
    windows = {name: audio_windows(extract(samples), len(points))[valid] for name, extract in extractors.items()}
    return Clip(path.stem, len(points), mouth_measures(points[valid]), windows)


def measure(
    clips: list[Clip], features: list[str], seed: int, predictors: tuple[str, ...] = (), blocks: int = 0
) -> list[Figure]:
    """All figures: per feature and predictor, IN for each clip and then CROSS for each ordered pair of clips.

    Args:
        clips: with the windows of the features' parts.
        features: keys of FEATURES, or of the windows.
        seed: of the networks and the bootstrap.
        predictors: keys of PREDICTORS; all if empty.
        blocks: number of blocks of a clip that are each predicted from the others; 0 to predict its end.
    """
    pairs = [(clip, clip) for clip in clips]
    pairs += [(train, test) for train in clips for test in clips if train is not test]
    runs = [(feature, name, *pair) for feature in features for name in predictors or PREDICTORS for pair in pairs]
    figures = []
    for feature, predictor, train, test in tqdm(runs, "predictors", unit="fit"):
        splits: list[tuple] = [(slice(None), slice(None))]
        if train is test:
            n = len(train.targets)
            splits = blocks_in_time(n, blocks) if blocks else [split_in_time(n)]
        of_parts = [_prediction(feature, predictor, train, test, fit_part, part, seed) for fit_part, part in splits]
        truth, predicted = (np.concatenate(arrays) for arrays in zip(*of_parts, strict=True))
        for target, r, (low, high) in zip(
            MOUTH, correlation(truth, predicted), correlation_interval(truth, predicted, _BLOCK, seed), strict=True
        ):
            figures.append(
                Figure(feature, predictor, train.name, test.name, target, float(r), float(low), float(high), len(truth))
            )
    return figures


def _prediction(
    feature: str, predictor: str, train: Clip, test: Clip, fit_part: Any, test_part: Any, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """True and predicted targets [N, 3] of a part of a clip, both in units of the clip that was fitted."""
    targets = train.targets[fit_part]
    deviation = targets.std(0)
    deviation = np.where(deviation > 0, deviation, 1)
    predict = PREDICTORS[predictor](
        _joined(feature, train, fit_part, train, fit_part), (targets - targets.mean(0)) / deviation, seed
    )
    predicted = predict(_joined(feature, train, fit_part, test, test_part))
    return test.targets[test_part], predicted * deviation + targets.mean(0)


def _joined(feature: str, train: Clip, fit_part: Any, clip: Clip, part: Any) -> np.ndarray:
    """[N, 16, C] windows of a feature in a part of a clip.

    States of Whisper's layers are projected onto the principal components of the part that is fitted.
    """
    found: list[np.ndarray] = []
    variance = 1.0  # of the components; as in `whisper`, that of the features they are joined with
    for name in FEATURES.get(feature, (feature,)):
        windows = clip.windows[name][part]
        if name in _LAYERS:
            middle = slice(WINDOW // 2, WINDOW // 2 + STEPS_PER_FRAME)  # the steps of the frame itself
            states = train.windows[name][fit_part][:, middle].reshape(-1, windows.shape[2])
            mean, components = principal_components(states, variance)
            windows = (windows - mean) @ components.T
        else:
            variance = float(train.windows[name][fit_part].var((0, 1)).mean())
        found.append(windows)
    return np.concatenate(found, 2)


def fit_net(windows: np.ndarray, targets: np.ndarray, seed: int) -> Predictor:
    """Fit an ensemble of three networks with three convolutions over time and a linear layer.

    The number of epochs is the one with the smallest error on the last 20 % of the data in a first training on the
    rest. Deterministic for a given seed.

    Args:
        windows: [N, 16, C] features.
        targets: [N, K], standardized.
        seed: seed of the initial weights, the order of the frames and the dropout.
    """
    standardize = Standardization.of(windows)
    fit_part, check_part = split_in_time(len(windows))

    def inputs(windows: np.ndarray) -> Tensor:
        return torch.from_numpy(standardize(windows).astype(np.float32).transpose(0, 2, 1).copy())

    x, y = inputs(windows), torch.from_numpy(targets.astype(np.float32))
    seeds = range(_N_NETS * seed, _N_NETS * (seed + 1))
    check = x[check_part], y[check_part]
    errors = [train_net(x[fit_part], y[fit_part], _EPOCHS, one, check)[1] for one in seeds]
    n_epochs = int(np.mean(errors, 0).argmin()) + 1
    nets = [train_net(x, y, n_epochs, one)[0] for one in seeds]

    @torch.no_grad()
    def predict(windows: np.ndarray) -> np.ndarray:
        return torch.stack([net(inputs(windows)) for net in nets]).mean(0).numpy()

    return predict


PREDICTORS: dict[str, Callable[[np.ndarray, np.ndarray, int], Predictor]] = {"ridge": fit_ridge, "net": fit_net}


def train_net(
    x: Tensor, y: Tensor, n_epochs: int, seed: int, check: tuple[Tensor, Tensor] | None = None
) -> tuple[nn.Module, list[float]]:
    """Train a network that maps inputs [N, C, 16] to targets [N, K].

    Returns the network in evaluation mode, and its mean squared error on the pair `check` after each epoch.
    """
    errors = []
    with torch.random.fork_rng(devices=[]), _one_thread():
        torch.manual_seed(seed)
        net = _net(x.shape[1], y.shape[1])
        optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3, weight_decay=1e-2)
        for _ in range(n_epochs):
            net.train()
            for chosen in torch.randperm(len(x)).split(_BATCH_SIZE):
                loss = F.mse_loss(net(x[chosen]), y[chosen])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            net.eval()
            if check is not None:
                with torch.no_grad():
                    errors.append(F.mse_loss(net(check[0]), check[1]).item())
    return net, errors


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """The networks are too small to gain from more threads, which wait for each other on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _net(n_channels: int, n_targets: int, width: int = 64) -> nn.Sequential:
    """Convolutions at 16, 8 and 4 steps."""
    return nn.Sequential(
        nn.Dropout(0.1),
        *(nn.Conv1d(n_channels, width, 3, padding=1), nn.ReLU(), nn.Dropout(0.3)),
        *(nn.Conv1d(width, width, 3, stride=2, padding=1), nn.ReLU(), nn.Dropout(0.3)),
        *(nn.Conv1d(width, width, 3, stride=2, padding=1), nn.ReLU(), nn.Dropout(0.3)),
        nn.Flatten(),
        nn.Linear(width * WINDOW // 4, n_targets),
    )


def means(figures: list[Figure]) -> list[dict]:
    """Mean r per feature, predictor and target over all clips (IN) and over all pairs of clips (CROSS)."""
    groups: dict[tuple, list[float]] = {}
    for figure in figures:
        groups.setdefault((figure.feature, figure.predictor, figure.kind, figure.target), []).append(figure.r)
    names = ("feature", "predictor", "kind", "target")
    return [
        {**dict(zip(names, group, strict=True)), "r": float(np.mean(r)), "n": len(r)} for group, r in groups.items()
    ]


def table(figures: list[Figure]) -> str:
    """Markdown table with a line per fit, r and its confidence interval per target, and then the means."""
    cells: dict[tuple[str, ...], list[str]] = {}
    for f in figures:
        clips = f.test if f.kind == "IN" else f"{f.train} -> {f.test}"
        row = cells.setdefault((f.feature, f.predictor, f"{f.kind} {clips}", str(f.n_frames)), [])
        row.append(f"{f.r:.3f} [{f.low:.2f} {f.high:.2f}]")
    for mean in means(figures):
        row = cells.setdefault((mean["feature"], mean["predictor"], f"{mean['kind']} mean of {mean['n']}", ""), [])
        row.append(f"{mean['r']:.3f}")
    rows = [("feature", "predictor", "clips", "frames", *MOUTH), *((*head, *row) for head, row in cells.items())]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["| " + " | ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "|".join("-" * (w + 2) for w in widths) + "|", *lines[1:]])


def report(clips: list[Clip], figures: list[Figure], seed: int) -> dict:
    """Content of the JSON file."""
    return {
        "seed": seed,
        "block_frames": _BLOCK,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "torch": torch.__version__,
        "clips": [{"name": c.name, "frames": c.n_frames, "used": len(c.targets)} for c in clips],
        "figures": [asdict(figure) for figure in figures],
        "means": means(figures),
    }


def _face_points(path: Path, meshes: Path | None) -> tuple[np.ndarray, np.ndarray]:
    """[F, 478, 3] mesh points and [F] bool whether they can be trusted, from the folder if it has them."""
    if meshes is None:
        track = track_face(read_frames(path, RATE), progress=True)
        return track.points, track.valid
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    kept = meshes / f"{path.stem}-{digest[:12]}.npz"
    if not kept.is_file():
        points, valid = _face_points(path, None)
        write_arrays(kept, points=points, valid=valid)
    arrays = read_arrays(kept)
    return arrays["points"], arrays["valid"]
