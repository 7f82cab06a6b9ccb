"""What a checkpoint says about itself, as plain values."""

from datetime import datetime
from pathlib import Path
from typing import Any

from ernerf_ti.media.files import file_digest
from ernerf_ti.media.provenance.consent import consent_in
from ernerf_ti.run.checkpoint import load_checkpoint
from ernerf_ti.run.folder import RunFolder


def checkpoint_facts(path: Path) -> dict[str, Any]:
    """What a run or a checkpoint was made of and how far it was trained.

    Args:
        path: a run folder or a checkpoint file.

    Raises FileNotFoundError or ValueError as :func:`ernerf_ti.run.checkpoint.load_checkpoint`.
    """
    run = RunFolder.find(path)
    checkpoint = run.checkpoint
    content = load_checkpoint(checkpoint)
    consent, capture = consent_in(content, checkpoint), content["capture"]
    try:
        folder = str(run.capture())
    except (OSError, ValueError, LookupError, TypeError):
        folder = None
    return {
        "file": str(checkpoint),
        "kind": "baked portrait" if "baked" in content else "trained portrait",
        "written": datetime.fromtimestamp(checkpoint.stat().st_mtime).isoformat(" ", "seconds"),
        "sha256": file_digest(checkpoint),
        "ernerf-ti": content.get("ernerf_ti_version"),
        "format version": content["format_version"],
        "consent": consent.as_dict() if consent else None,
        "capture": {"folder": folder, **capture},
        "training": {name: content[name] for name in ("stage", "step", "stage_finished") if name in content},
        "seconds of training": content.get("stage_seconds"),
        **({"baked from": content["baked_from"]} if "baked_from" in content else {}),
        "converted": "official" in content,
        "options": content.get("train_config"),
    }
