"""Make a talking head whose truth is known, as a training capture and as a video with sound.

python tools/make_synthetic_portrait.py captures/synthetic
python tools/make_synthetic_portrait.py captures/synthetic --seconds 20 --size 512 --voice alto --video talking.mp4
"""

import argparse
import sys
from pathlib import Path

from ernerf_ti.audio.extractors import DEFAULT_EXTRACTOR, current_name
from ernerf_ti.data.capture_files import FPS
from ernerf_ti.data.synthetic.portrait_writers import write_portrait_capture, write_portrait_video
from ernerf_ti.data.synthetic.speech import VOICES
from ernerf_ti.data.synthetic.synthetic_portrait import SyntheticPortrait


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("output", nargs="?", type=Path, help="folder of the capture; none is written if left out")
    parser.add_argument("--video", type=Path, help="an .mp4 to write too")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--size", type=int, default=256, help="width and height in pixels")
    parser.add_argument("--seed", type=int, default=0, help="of what is said and how the head moves")
    parser.add_argument("--voice", default=next(iter(VOICES)), choices=tuple(VOICES))
    parser.add_argument("--features", default=DEFAULT_EXTRACTOR, choices=("ppg", "mel"), type=current_name)
    options = parser.parse_args(arguments)
    if options.output is None and options.video is None:
        parser.error("output: expected a folder, --video, or both, got neither; say where to write")
    try:
        portrait = SyntheticPortrait(round(options.seconds * FPS), options.size, options.seed, options.voice)
        if options.output is not None:
            write_portrait_capture(portrait, options.output, options.features, progress=True)
            print(options.output)
        if options.video is not None:
            write_portrait_video(portrait, options.video, progress=True)
            print(options.video)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    return 0


if __name__ == "__main__":
    sys.exit(main())
