"""Turn a video of one speaker into a training capture.

    python tools/preprocess_video.py speaker.mp4 captures/speaker
    python tools/preprocess_video.py speaker.mp4 captures/speaker --size 256 --only report

Run again after an interruption, or after something has changed: only what is missing or out of date is made.
captures/speaker/report.html shows the result.
"""

import argparse
import sys
from dataclasses import fields
from pathlib import Path

from ernerf_ti.audio.extractors import DEFAULT_EXTRACTOR
from ernerf_ti.media.files import read_json
from ernerf_ti.preprocess.pipeline import StageError
from ernerf_ti.preprocess.stages import Settings, capture_pipeline


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("video", type=Path, help="any format, size and frame rate, with sound")
    parser.add_argument("output", type=Path, help="folder of the capture")
    parser.add_argument("--size", type=int, default=512, help="width and height of the capture in pixels")
    parser.add_argument("--crop", metavar="X,Y,SIDE", help="square of the upright video; found if left out")
    parser.add_argument(
        "--features", default=DEFAULT_EXTRACTOR, help="ppg, mel, esperanto, hubert, or an .npy file with features"
    )
    parser.add_argument("--speech-model", type=Path, help="folder of the model for hubert or esperanto")
    parser.add_argument("--face-parser", type=Path, help="BiSeNet weights (79999_iter.pth) for the masks")
    parser.add_argument("--blinks", type=Path, help="CSV of OpenFace; measured on the face mesh if left out")
    parser.add_argument("--only", metavar="STAGE", help="run this stage alone, whatever its state")
    options = vars(parser.parse_args(arguments))
    folder, only = options["output"], options.pop("only")
    try:
        settings = Settings(**{field.name: options[field.name] for field in fields(Settings)})
        capture_pipeline(folder, settings).run(only)
    except (OSError, ValueError, StageError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; the same command goes on where it stopped", file=sys.stderr)
        return 130
    if (folder / "report.json").is_file():
        for warning in read_json(folder / "report.json")["warnings"]:
            print(f"warning: {warning}")
        print(folder / "report.html")
    return 0


if __name__ == "__main__":
    sys.exit(main())
