"""The preprocessing stages that extract audio features, one for each extractor."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from ernerf_ti.audio.extractors import WHISPER
from ernerf_ti.audio.ready_made import FORMATS, projection_path, read_windows, save_windows
from ernerf_ti.data.capture_features import SpeechModel, write_features
from ernerf_ti.data.capture_files import CapturePaths
from ernerf_ti.media.sound import read_sound
from ernerf_ti.preprocess.pipeline import Stage


class FeatureStages:
    """Stages with the sound and the frame counts as inputs.

    Args:
        paths: of the capture.
        features: names of extractors; the first may be an .npy file with windows of features. Those are trained on by
            default: they are the artifact and the stage `features`, and others `features-NAME`.
        model: of the extractors that use one.
        n_frames: tells the number of frames, once they are there.
    """

    def __init__(self, paths: CapturePaths, features: tuple[str, ...], model: SpeechModel, n_frames: Callable[[], int]):
        self._paths, self._model, self._n_frames = paths, model, n_frames
        self._file = Path(features[0]).absolute() if features[0].endswith(".npy") else None
        self.extractor = features[0] if self._file is None else read_windows(self._file)[0]
        """Of the first features."""
        self._others = tuple(name for name in dict.fromkeys(features[1:]) if name != self.extractor)

    def stages(self) -> list[Stage]:
        return [self._stage("features", self.extractor), *(self._stage(f"features-{n}", n) for n in self._others)]

    def artifacts(self) -> dict[str, str]:
        names = {"features": self.extractor, **{f"features-{name}": name for name in self._others}}
        files = {f.extractor: f.file_name for f in FORMATS}
        projection = {"projection": projection_path(self._paths.folder).name} if self._has_projection() else {}
        return {name: files[extractor] for name, extractor in names.items()} | projection

    def _has_projection(self) -> bool:
        return WHISPER in self._others or (self.extractor == WHISPER and self._file is None)

    def _stage(self, name: str, extractor: str) -> Stage:
        from_file = name == "features" and self._file is not None
        model = self._model
        options: dict[str, Any] = {
            "features": self._file if from_file else extractor,
            "model": None if model.path is None else str(model.path),
        }
        outputs: tuple[str, ...] = (name,)
        if extractor == WHISPER and not from_file:
            options |= {"layer": model.layer, "look_ahead": model.look_ahead}
            outputs = (name, "projection")
        run = self._copy if from_file else partial(self._extract, extractor)
        return Stage(name, ("sound", "frame counts"), outputs, run, options)

    def _copy(self) -> None:
        assert self._file is not None
        save_windows(self._paths.folder, self.extractor, read_windows(self._file)[1])

    def _extract(self, extractor: str) -> None:
        write_features(self._paths.folder, read_sound(self._paths.sound), extractor, self._n_frames(), self._model)
