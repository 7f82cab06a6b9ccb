"""Compare audio features on your own clips: how well each predicts the mouth.

    ernerf-ti study-audio english.mp4 french.mp4 -o figures.json
    ernerf-ti study-audio clip.mp4 --features ppg mel --meshes meshes

Each clip shows one speaker. IN fits the first 80 % of a clip and tests on the rest;
CROSS fits one clip and tests on another.
"""

from dataclasses import dataclass
from pathlib import Path

from ernerf_ti.cli.options import Command, OptionalOutput, Positional
from ernerf_ti.cli.paths import existing_file, make_parent, output_file, output_folder
from ernerf_ti.cli.running import UsageError
from ernerf_ti.media.files import write_json


@dataclass(frozen=True)
class StudyAudioOptions:
    """Options of `ernerf-ti study-audio`."""

    clips: Positional[tuple[Path, ...]]
    """Videos with sound, of one speaker each."""
    features: tuple[str, ...] = ()
    """Audio features to compare: ppg, mel or mel-raw; by default all."""
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
    if options.seed < 0:
        raise UsageError(f"--seed: expected at least 0, got {options.seed}; pass a larger number")
    for path in options.clips:
        existing_file(path, "a video")
    if options.output is not None:
        make_parent(output_file(options.output))
    if options.meshes is not None:
        output_folder(options.meshes).mkdir(parents=True, exist_ok=True)

    from ernerf_ti.experiments.audio_feature_study import run

    report, table = run(options.clips, options.features, options.meshes, options.seed)
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
