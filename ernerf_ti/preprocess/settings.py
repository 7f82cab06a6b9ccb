"""Options of preprocessing, and the checks of its input files."""

from dataclasses import dataclass
from pathlib import Path

from ernerf_ti.audio.extractors import DEFAULT_EXTRACTOR, EXTRACTORS, current_name
from ernerf_ti.data.capture_features import SpeechModel
from ernerf_ti.data.capture_files import CapturePaths, read_blinks
from ernerf_ti.media.files import require_file
from ernerf_ti.media.frame_folder import check_folder_rate, frame_files
from ernerf_ti.media.sound import probe_sound
from ernerf_ti.media.video import FOLDER_RATE, probe
from ernerf_ti.preprocess.crop import parse_crop

LARGEST_SIZE = 4096
"""In pixels; the landmarks and masks of a face are not found any more precisely in larger pictures."""
_LONGEST_CONTEXT = 30  # s, which Whisper's encoder hears at once; a model says how many of them can be ahead


@dataclass(frozen=True)
class Settings:
    """Options of preprocessing. Raises ValueError for values that are not supported."""

    video: Path
    """File, or folder of pictures."""
    size: int = 512
    """Width and height of the capture in pixels, even."""
    crop: str | None = None
    """`X,Y,SIDE` in pixels of the upright video; None for an automatic crop."""
    features: str = DEFAULT_EXTRACTOR
    """Name of an extractor, or an .npy file with windows of features."""
    speech_model: Path | None = None
    """Folder of the model for "hubert" or "esperanto"; file or folder of another encoder for "whisper"."""
    face_parser: Path | None = None
    """Weights of BiSeNet; None to compute the masks with MediaPipe and the mesh."""
    blinks: Path | None = None
    """CSV of OpenFace; None to measure eye closure on the mesh."""
    device: str = "cpu"
    """Where BiSeNet and the speech models run."""
    audio: Path | None = None
    """Sound file that begins with the first frame; None for the sound of the video."""
    folder_rate: float = FOLDER_RATE
    """Frames per second of a folder of pictures."""
    speech_layer: int = SpeechModel.layer
    """Layer of Whisper's encoder."""
    look_ahead: float | None = None
    """Seconds that Whisper hears ahead; None for the whole recording."""
    more_features: tuple[str, ...] = ()
    """Further extractors, whose features `ernerf-ti train` can be asked for."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "features", current_name(self.features))
        if not 64 <= self.size <= LARGEST_SIZE or self.size % 2:
            raise ValueError(
                f"size: expected an even number of pixels from 64 to {LARGEST_SIZE}, got {self.size}; try 512 or 256"
            )
        check_folder_rate(self.folder_rate)
        if self.speech_layer < 1:
            raise ValueError(f"speech-layer: expected at least 1, got {self.speech_layer}; pass e.g. 3")
        if self.look_ahead is not None and not 0 <= self.look_ahead <= _LONGEST_CONTEXT:
            raise ValueError(
                f"look-ahead: expected 0 to {_LONGEST_CONTEXT} seconds, got {self.look_ahead:g}; "
                "leave it out for the whole recording"
            )
        object.__setattr__(self, "more_features", tuple(map(current_name, self.more_features)))
        for name in (self.features, *self.more_features):
            if name not in EXTRACTORS and not (name == self.features and name.endswith(".npy")):
                raise ValueError(
                    f"features: expected one of {', '.join(EXTRACTORS)}, or an .npy file in the first place, "
                    f"got {name!r}; choose one of these"
                )


def input_paths(settings: Settings) -> list[Path]:
    """Files and folders that preprocessing reads. The speech model may be a name instead, of which there is no file."""
    given = (settings.video, settings.audio, settings.speech_model, settings.face_parser, settings.blinks)
    features = [Path(settings.features)] if settings.features.endswith(".npy") else []
    return [path for path in given if path is not None] + features


def check_inputs(settings: Settings) -> None:
    """Raises FileNotFoundError, IsADirectoryError or ValueError for an input that is missing or of another kind, or a
    crop that is not inside the video."""
    video = settings.video
    if CapturePaths(video).transforms("train").is_file():
        raise ValueError(f"{video}: expected a video, got a capture, which is already preprocessed; pass the video")
    if not frame_files(video):
        require_file(video, "a video", "check the path")
    info = probe(video, settings.folder_rate)
    if settings.crop is not None:
        parse_crop(settings.crop, info.width, info.height)
    mute = info.sound_rate is None
    if settings.audio is not None:
        require_file(settings.audio, "a sound file", "check the path, or omit the option")
        probe_sound(settings.audio)
    elif mute and video.is_dir():
        raise ValueError(f"{video}: a folder of pictures has no sound; pass the speaker's voice with --audio")
    elif mute:
        raise ValueError(
            f"{video}: no audio track that can be decoded; use a recording with the speaker's voice, or pass the voice "
            "with --audio"
        )
    if settings.face_parser is not None:
        require_file(settings.face_parser, "BiSeNet's weights (79999_iter.pth)", "check the path, or omit the option")
    if settings.blinks is not None:
        require_file(settings.blinks, "a CSV of OpenFace", "check the path, or omit the option")


def check_contents(settings: Settings) -> None:
    """Raises ValueError for weights or blinks that can't be used, which would be found late otherwise, when outputs of
    an earlier run are gone."""
    if settings.face_parser is not None:
        from ernerf_ti.preprocess.face_parsing import FaceParser

        FaceParser(settings.face_parser)
    if settings.blinks is not None:
        read_blinks(settings.blinks, 1)  # how many frames there are is known later
