"""Compare audio features on your own clips: how well each predicts the mouth.

    ernerf-ti study-audio english.mp4 french.mp4 -o figures.json
    ernerf-ti study-audio clip.mp4 --features ppg mel --meshes meshes

Each clip shows one speaker. IN fits the first 80 % of a clip and tests on the rest, or with --blocks predicts each
block of a clip from the others; CROSS fits one clip and tests on another.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ernerf_ti.cli.options import Command, OptionalOutput, Positional
from ernerf_ti.cli.paths import existing_file, make_parent, output_file, output_folder
from ernerf_ti.cli.running import UsageError
from ernerf_ti.media.files import require_not_replaced, write_json


@dataclass(frozen=True)
class StudyAudioOptions:
    """Options of `ernerf-ti study-audio`."""

    clips: Positional[tuple[Path, ...]]
    """Videos with sound, of one speaker each."""
    features: tuple[str, ...] = ()
    """Audio features to compare: ppg, mel, mel-raw, whisper-1 to whisper-4 (64 components of a layer), ppg+whisper-2 or
    ppg+whisper-3; by default all, those of Whisper where the extra speech is installed."""
    predictors: tuple[Literal["ridge", "net"], ...] = ("ridge", "net")
    """What predicts: a ridge regression, a small network, or both."""
    blocks: int = 0
    """Number of blocks of a clip, 2 or more, that are each predicted from the others; 0 to predict its end."""
    output: OptionalOutput = None
    """JSON file for the figures."""
    meshes: Path | None = None
    """Folder that keeps the face meshes, so that each clip is tracked only once."""
    seed: int = 0
    """Seed of the networks and of the bootstrap confidence intervals."""


def _study(options: StudyAudioOptions) -> None:
    if not options.clips:
        raise UsageError("clips: expected at least one video, got none; pass videos of one speaker each")
    names = [path.stem for path in options.clips]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(
                f"clips: expected files of different names, got {name} {names.count(name)} times; rename or omit one"
            )
    if options.blocks and not 2 <= options.blocks <= 1000:
        raise UsageError(f"--blocks: expected 0, or 2 to 1000, got {options.blocks}; pass 5")
    for path in options.clips:
        existing_file(path, "a video")
        if options.output is not None:
            require_not_replaced(path, "video", options.output)
    if options.output is not None:
        make_parent(output_file(options.output))
    if options.meshes is not None:
        output_folder(options.meshes).mkdir(parents=True, exist_ok=True)

    from ernerf_ti.experiments.audio_feature_study import run

    report, table = run(
        options.clips, options.features, options.meshes, options.seed, options.predictors, options.blocks
    )
    print(table)
    if options.output is not None:
        write_json(options.output, report)
        print(options.output)


main = Command(
    "study-audio",
    StudyAudioOptions,
    _study,
    __doc__,
    interrupted="interrupted; no figures were written. Face meshes in --meshes are kept",
)
