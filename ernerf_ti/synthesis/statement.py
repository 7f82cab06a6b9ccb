"""What a signed output says about how it was made."""

from pathlib import Path
from typing import Any

from ernerf_ti.media.files import file_digest
from ernerf_ti.media.frame_folder import source_digest
from ernerf_ti.run.trained_portrait import TrainedPortrait


def statement(trained: TrainedPortrait, sound: Path | None = None, recording: Path | None = None) -> dict[str, Any]:
    """The portrait, the sound that drives it and the consent record, as plain values.

    Files are named without their folders, and identified by the SHA-256 of their content.

    Args:
        trained: the portrait.
        sound: the driving speech; None if there is no single file of it.
        recording: the one into which the portrait was rendered, if there is one.
    """
    checkpoint = trained.checkpoint
    if checkpoint is None:
        portrait = {"run": "in training"}
    else:
        portrait = {"run": checkpoint.absolute().parent.name, "checkpoint_sha256": file_digest(checkpoint)}
    content: dict[str, Any] = {
        "portrait": portrait,
        "consent": trained.consent.as_dict() if trained.consent else None,
    }
    if sound is not None:
        content["sound"] = {"name": sound.name, "sha256": file_digest(sound)}
    if recording is not None:
        content["recording"] = {"name": recording.absolute().name, "sha256": source_digest(recording)}
    return content
