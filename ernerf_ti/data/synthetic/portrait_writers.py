"""Write a synthetic portrait as a capture with exact ground truth, or as a video with sound."""

from pathlib import Path

import numpy as np
from tqdm import trange

from ernerf_ti.audio.extractors import DEFAULT_EXTRACTOR
from ernerf_ti.audio.frame_features import SAMPLE_RATE
from ernerf_ti.data.capture_features import write_features
from ernerf_ti.data.capture_files import (
    FPS,
    CapturePaths,
    Description,
    write_blinks,
    write_description,
    write_labels,
    write_landmarks,
    write_sound,
    write_transforms,
)
from ernerf_ti.data.synthetic.synthetic_portrait import SyntheticPortrait
from ernerf_ti.media.images import write_image
from ernerf_ti.media.video_writer import write_video


def write_portrait_capture(
    portrait: SyntheticPortrait, folder: Path, extractor: str = DEFAULT_EXTRACTOR, progress: bool = False
) -> None:
    """Write a training capture with the portrait's own poses, masks, landmarks and blinks.

    Files of a frame that is complete are kept, so that an interrupted call continues.

    Args:
        portrait: at least 2 frames.
        folder: made if it does not exist; it may hold frames of the same portrait.
        extractor: of the audio features, "ppg", "whisper" or "mel".
        progress: show a progress bar.

    Raises:
        ValueError: fewer than 2 frames, or an unknown extractor.
        FileNotFoundError: "whisper" without the extra `speech`.
    """
    paths, n = CapturePaths(Path(folder)), portrait.n_frames
    windows = write_features(paths.folder, portrait.samples, extractor, n)
    paths.make_folders()
    write_transforms(paths.folder, portrait.intrinsics.fx, (portrait.size, portrait.size), range(n), portrait.poses)
    write_blinks(paths.blinks, portrait.blinks, np.ones(n, bool))
    write_sound(paths.sound, portrait.samples)
    write_image(paths.background, portrait.background())
    bar, is_first = trange(n, desc="synthetic portrait", unit="frame", disable=not progress), True
    for k in bar:
        if paths.landmarks(k).is_file():  # the last file of a frame
            continue
        frame = portrait.render(k)
        # The background is exact, so the frame and the frame composited over the background are the same.
        for path in (paths.frame(k), paths.image(k)):
            write_image(path, frame.image)
        write_image(paths.torso(k), frame.torso)
        write_labels(paths.labels(k), frame.labels)
        write_landmarks(paths.landmarks(k), frame.landmarks)
        if is_first and progress:
            bar.unpause()  # the first frame compiles kernels, which must not count in the remaining time
        is_first = False
    write_description(
        paths.description,
        Description(
            width=portrait.size,
            height=portrait.size,
            n_frames=n,
            extractor=extractor,
            feature_dimension=windows.shape[2],
            source={"name": "synthetic portrait", "seed": portrait.seed, "voice": portrait.voice},
        ),
    )


def write_portrait_video(portrait: SyntheticPortrait, path: Path, progress: bool = False) -> None:
    """Write an mp4 with sound."""
    frames = (
        portrait.render(k).image
        for k in trange(portrait.n_frames, desc="synthetic portrait", unit="frame", disable=not progress)
    )
    metadata = {"title": "Synthetic portrait", "comment": "Synthesized: no person was filmed."}
    write_video(path, frames, FPS, portrait.samples, SAMPLE_RATE, metadata=metadata)
