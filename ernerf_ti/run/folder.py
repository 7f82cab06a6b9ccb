"""Names of the files in a run folder."""

from dataclasses import dataclass
from pathlib import Path

from ernerf_ti.media.files import read_json, write_json


@dataclass(frozen=True)
class RunFolder:
    """Files of a training run.

    Args:
        path: the folder; it need not exist.
    """

    path: Path

    @property
    def checkpoint(self) -> Path:
        """All that rendering and resuming need."""
        return self.path / "checkpoint.pt"

    @property
    def config(self) -> Path:
        """The training configuration as JSON, for people to read."""
        return self.path / "config.json"

    @property
    def log(self) -> Path:
        """One JSON line per logged step."""
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
        """Results of `ernerf-ti evaluate`."""
        return self.path / "evaluation"

    @property
    def viewer(self) -> Path:
        """What the viewer saves."""
        return self.path / "viewer"

    @property
    def inbox(self) -> Path:
        """Sound files dropped here are played by the viewer."""
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
