"""The video that a capture was made from, as the capture records it."""

from pathlib import Path

from ernerf_ti.data.capture_files import CapturePaths
from ernerf_ti.media.files import read_json
from ernerf_ti.media.frame_folder import source_digest

CROP = "preprocess/crop.json"
"""File in a capture with the crop and the source, which preprocessing writes first."""


def other_source(capture: Path, video: Path) -> str | None:
    """Name of the video that a capture was made from if it is another one, by its content.

    Args:
        capture: folder of a capture, also of one that is not complete; it may be missing.
        video: file, or folder of pictures.

    Returns:
        None for a capture of this video, and where nothing is recorded.
    """
    for path in (capture / CROP, CapturePaths(capture).description):
        try:
            source = read_json(path)["source"]
            name, digest = str(source["name"]), source["sha256"]
        except (OSError, ValueError, LookupError, TypeError):  # not there yet, or damaged: it is made again
            continue
        return None if digest == source_digest(video) else name
    return None
