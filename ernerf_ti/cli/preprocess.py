"""Turn a video of one speaker into a training capture.

    ernerf-ti preprocess speaker.mp4 captures/speaker
    ernerf-ti preprocess speaker.mp4 captures/speaker --size 256 --stages report
    ernerf-ti preprocess frames captures/speaker --audio voice.wav --folder-rate 30

The same command continues after an interruption: stages that are complete and up to date are not run again.
CAPTURE/report.html shows the result.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from ernerf_ti.cli.options import Command, Device, Positional
from ernerf_ti.cli.paths import existing_file, is_capture, output_folder
from ernerf_ti.media.files import read_json, require_not_replaced
from ernerf_ti.media.frame_folder import frame_files
from ernerf_ti.media.provenance.consent import FILE_NAME, new_consent, write_consent
from ernerf_ti.process.device import resolve_device

if TYPE_CHECKING:
    from ernerf_ti.preprocess.settings import Settings


@dataclass(frozen=True)
class PreprocessOptions:
    """Options of `ernerf-ti preprocess`."""

    video: Positional[Path]
    """Video of one speaker, with sound; any format, size and frame rate. Or a folder of its frames, with --audio."""
    capture: Positional[Path]
    """Folder to write the capture to."""
    size: int = 512
    """Width and height of the capture in pixels, an even number."""
    crop: Annotated[str | None, tyro.conf.arg(metavar="X,Y,SIDE")] = None
    """Square to cut out, in pixels of the upright video; by default it is chosen around the face."""
    audio: Path | None = None
    """Sound file to use in place of the video's sound. It begins with the first frame."""
    folder_rate: float = 25.0
    """Frames per second of a folder of frames."""
    features: tuple[str, ...] = ("auto",)
    """Audio features: ppg (phone posteriors), whisper (those joined with states of Whisper's encoder; extra speech),
    mel, esperanto, hubert, or a .npy file of features computed elsewhere; auto is whisper where it is installed, else
    ppg. Of several, the first are trained on by default."""
    speech_model: Path | None = None
    """Folder of the speech model, for hubert or esperanto features; for whisper a model file (model.bin of CTranslate2,
    .pt of OpenAI), or a folder or name in the cache of transformers, instead of tiny.en."""
    speech_layer: int = 3
    """Layer of Whisper's encoder whose states are taken, from 1 on."""
    look_ahead: float | None = None
    """Seconds of sound ahead that whisper features may depend on, for portraits that speak live; by default the whole
    recording."""
    face_parser: Path | None = None
    """Weights of a BiSeNet face parser (79999_iter.pth) for the masks; by default they come from mediapipe."""
    blinks: Path | None = None
    """CSV file of OpenFace with eye closures; by default they are measured on the face mesh."""
    consent_by: str | None = None
    """Who agreed to a portrait: the person who is shown, or who may agree for them. Recorded in the capture, and by
    training in the portrait."""
    consent_date: Annotated[str | None, tyro.conf.arg(metavar="YYYY-MM-DD")] = None
    """Day of the consent."""
    consent_purpose: str | None = None
    """What the person agreed to, in one line."""
    consent_document: Path | None = None
    """The signed paper, if there is one: its name and SHA-256 are recorded."""
    stages: tuple[str, ...] = ()
    """Run only these stages, whether they are up to date or not; an unknown name lists all."""
    device: Device = "auto"
    """Device of the face parser and the speech models, where they are used; auto is CUDA if torch can use it, else the
    CPU. All else runs on the CPU."""


def _check(options: PreprocessOptions) -> None:
    from ernerf_ti.audio.extractors import DEFAULT_EXTRACTOR

    features = options.features or ("auto",)
    _settings(options, tuple(DEFAULT_EXTRACTOR if name == "auto" else name for name in features), options.device)
    new_consent(options.consent_by, options.consent_date, options.consent_purpose, None)


def _settings(options: PreprocessOptions, features: tuple[str, ...], device: str) -> "Settings":
    from ernerf_ti.preprocess.settings import Settings

    return Settings(
        *(options.video, options.size, options.crop, features[0], options.speech_model),
        *(options.face_parser, options.blinks, device, options.audio, options.folder_rate),
        *(options.speech_layer, options.look_ahead, features[1:]),
    )


def _preprocess(options: PreprocessOptions) -> None:
    if is_capture(options.video) or (options.video.is_dir() and not frame_files(options.video)):
        kind = "a capture folder" if is_capture(options.video) else "a folder without pictures"
        raise ValueError(f"{options.video}: expected a video, got {kind}; pass a video file or a folder of its frames")
    if not options.video.is_dir():
        existing_file(options.video, "a video")
    if options.audio is not None:
        existing_file(options.audio, "a sound file")
    output_folder(options.capture)
    if options.consent_document is not None:
        record = options.capture / FILE_NAME
        require_not_replaced(
            options.consent_document, "consent document", record, "copy it elsewhere and pass the copy"
        )
    consent = new_consent(options.consent_by, options.consent_date, options.consent_purpose, options.consent_document)
    device = resolve_device(options.device)

    from ernerf_ti.audio.extractors import best_extractor
    from ernerf_ti.preprocess.stages import capture_pipeline

    features = options.features or ("auto",)
    if "auto" in features:
        best, note = best_extractor()
        features = tuple(best if name == "auto" else name for name in features)
        if note:
            print(note, file=sys.stderr)
    pipeline = capture_pipeline(options.capture, _settings(options, features, str(device)), options.stages)
    if options.consent_document is not None:
        pipeline.require_kept([options.consent_document])
    if consent is not None:
        write_consent(options.capture, consent)
    for stage in options.stages or [None]:
        pipeline.run(stage)
    report = options.capture / "report.json"
    if report.is_file():
        for warning in read_json(report)["warnings"]:
            print(f"warning: {warning}")
        print(options.capture / "report.html")


main = Command(
    "preprocess",
    PreprocessOptions,
    _preprocess,
    __doc__,
    renamed={"only": "stages"},
    check=_check,
    interrupted="interrupted; the same command continues with the stage that was interrupted",
)
