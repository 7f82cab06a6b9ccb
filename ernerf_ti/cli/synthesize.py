"""Let a trained portrait speak: any speech in, a video with sound out.

python tools/synthesize.py runs/speaker --audio speech.wav -o speaking.mp4
python tools/synthesize.py runs/speaker --audio speech.wav -o speaking.webm --background none    # with alpha
python tools/synthesize.py runs/speaker --audio speech.wav -o out.mp4 --pose still --blink natural --depth d.mp4
"""

import argparse
import sys
from pathlib import Path

import torch

from ernerf_ti.run.trained_portrait import load_portrait
from ernerf_ti.synthesis.options import SynthesisOptions
from ernerf_ti.synthesis.video import synthesize


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run", type=Path, help="folder of train.py, or a checkpoint")
    parser.add_argument("--audio", type=Path, required=True, help="speech, any format; the sound of a video too")
    parser.add_argument("-o", "--output", type=Path, required=True, help=".mp4; .webm or .mov with alpha; or a folder")
    parser.add_argument(
        "--pose", default="capture", help="capture (there and back, smoothed), still, or a transforms file"
    )
    parser.add_argument("--blink", default="capture", help="capture, natural, or a number from 0 (open) to 1 (closed)")
    parser.add_argument(
        "--background", default="capture", help="capture, none (transparent), a picture, or a color as #rrggbb"
    )
    parser.add_argument("--head-only", action="store_true", help="leave the torso out")
    parser.add_argument("--depth", type=Path, help="an .mp4 of the depth")
    parser.add_argument("--attention", type=Path, help="an .mp4 of what listens to the audio and to the eyes")
    parser.add_argument("--speech-model", type=Path, help="folder of the model of hubert or esperanto features")
    parser.add_argument("--windows", type=Path, help="ready-made .npy of the speech's features, as ER-NeRF's --aud")
    parser.add_argument("--seed", type=int, default=0, help="of natural blinks")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = vars(parser.parse_args(arguments))
    try:
        trained = load_portrait(options.pop("run"), options.pop("device"))
        for path in synthesize(trained, SynthesisOptions(**options)):
            print(path)
    except (OSError, ValueError, ImportError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
