"""The files of a run folder."""

from dataclasses import dataclass
from pathlib import Path

from ernerf_ti.media.files import read_json, write_json

_CHECKPOINT = "checkpoint.pt"
_NESTED = "run"  # where the demo puts its run
_CAPTURE_FILE = "transforms_train.json"
_MEDIA = {".mp4", ".mov", ".mkv", ".avi", ".webm", ".wav", ".mp3", ".m4a", ".png", ".jpg", ".jpeg"}


@dataclass(frozen=True)
class RunFolder:
    """Files of a training run.

    Args:
        path: the folder; it need not exist.
        checkpoint_name: file name of the checkpoint.
    """

    path: Path
    checkpoint_name: str = _CHECKPOINT

    @classmethod
    def find(cls, path: Path) -> "RunFolder":
        """The run of a path: a run folder, a checkpoint file, or a folder that contains one run as `run/`.

        Raises:
            FileNotFoundError: no such path, or a folder without a checkpoint.
            ValueError: a file or folder of another kind.
        """
        path = Path(path)
        expected = f"{path}: expected a run folder or a checkpoint"
        if path.is_file():
            if path.suffix.lower() in _MEDIA:
                raise ValueError(f"{expected}, got a media file; pass the folder that `ernerf-ti train` wrote")
            return cls(path.parent, path.name)
        for folder in (path, path / _NESTED):
            if cls(folder).checkpoint.is_file():
                return cls(folder)
        if not path.is_dir():
            raise FileNotFoundError(f"{expected}, got no such file or folder; train a portrait with `ernerf-ti train`")
        if (path / _CAPTURE_FILE).is_file():
            raise ValueError(f"{expected}, got a capture; train a portrait of it with `ernerf-ti train`")
        if any(cls(folder).config.is_file() for folder in (path, path / _NESTED)):
            raise FileNotFoundError(f"{expected}, got a run that has not saved a checkpoint yet; train it longer")
        raise FileNotFoundError(
            f"{expected}, got a folder without {_CHECKPOINT}; pass one that `ernerf-ti train` wrote"
        )

    @property
    def checkpoint(self) -> Path:
        """Everything that rendering and resuming need."""
        return self.path / self.checkpoint_name

    @property
    def config(self) -> Path:
        """The training configuration as JSON, for people; the checkpoint has its own copy."""
        return self.path / "config.json"

    @property
    def log(self) -> Path:
        """One JSON line per logged step; see :mod:`ernerf_ti.train.training_log`."""
        return self.path / "log.jsonl"

    @property
    def tensorboard(self) -> Path:
        """Event files for TensorBoard."""
        return self.path / "tensorboard"

    @property
    def validation(self) -> Path:
        """Validation images."""
        return self.path / "validation"

    @property
    def evaluation(self) -> Path:
        """Results of `ernerf-ti evaluate`: a baked portrait, or another checkpoint, has a folder of its own."""
        is_usual = self.checkpoint_name == _CHECKPOINT
        return self.path / ("evaluation" if is_usual else f"{Path(self.checkpoint_name).stem}_evaluation")

    @property
    def viewer(self) -> Path:
        """Files that the viewer saves."""
        return self.path / "viewer"

    @property
    def inbox(self) -> Path:
        """Sound files put here are played by the viewer."""
        return self.path / "inbox"

    @property
    def _capture(self) -> Path:
        return self.path / "capture.json"

    def write_capture(self, capture: Path) -> None:
        """Record the folder of the capture that the run is trained on."""
        write_json(self._capture, {"capture": str(Path(capture).resolve())})

    def capture(self) -> Path:
        """Folder of the capture that the run was trained on.

        Raises FileNotFoundError if none is recorded, or it no longer exists.
        """
        folder = Path(read_json(self._capture)["capture"]) if self._capture.is_file() else None
        if folder is None or not folder.is_dir():
            raise FileNotFoundError(
                f"{self._capture}: expected the folder of the run's capture, got {folder or 'no such file'}; "
                "pass it with --capture"
            )
        return folder
