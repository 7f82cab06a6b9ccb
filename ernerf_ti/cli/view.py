"""Look at a portrait: play, steer, look inside, train while watching, take away.

    python tools/view.py runs/speaker                                  # with its capture's sound and true frames
    python tools/view.py runs/speaker --audio speech.wav
    python tools/view.py runs/speaker --train captures/speaker         # begins the run, or goes on with it
    python tools/view.py runs/speaker --offscreen out.mp4 --script actions.json

q in the window lists the keys; docs/viewer.md is the manual.
"""

import os

# Both are read when torch starts. Large buffers cost fewer page faults; a thread that waits leaves its core to the
# window and the sound: on two cores with other work beside, that made 5 pictures a second of 0.4.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import argparse
import sys
from pathlib import Path

import torch

from ernerf_ti.train.config import PRESETS, STAGES
from ernerf_ti.train.trainer import TrainingError
from ernerf_ti.viewer.app import OFFSCREEN, Wanted, open_viewer, show
from ernerf_ti.viewer.offscreen import read_script, run_script


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run", type=Path, help="folder of train.py, or a checkpoint")
    parser.add_argument("--capture", type=Path, help="capture of the run, if it is not where it was")
    parser.add_argument("--audio", type=Path, help="speech to play, any format")
    parser.add_argument("--background", type=Path, help="a picture to put behind the person")
    parser.add_argument("--out", type=Path, help="folder for what is saved; RUN/viewer if left out")
    parser.add_argument("--inbox", type=Path, help="folder whose new sounds are played; RUN/inbox if left out")
    parser.add_argument("--speech-model", type=Path, help="folder of the model of hubert or esperanto features")
    parser.add_argument("--train", type=Path, metavar="CAPTURE", help="train the run on this capture while watching")
    parser.add_argument("--preset", default="small", choices=tuple(PRESETS), help="of a run that begins")
    parser.add_argument("--stages", nargs="+", default=STAGES, choices=STAGES, help="that --train goes through")
    parser.add_argument("--offscreen", type=Path, metavar="OUT.mp4", help="no window: a video of the screen")
    parser.add_argument("--script", type=Path, help="actions.json, what is done in it")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = vars(parser.parse_args(arguments))
    offscreen, script = options.pop("offscreen"), options.pop("script")
    if (offscreen is None) != (script is None):
        parser.error("--offscreen and --script: expected both or none, got one; pass the other too")
    wanted = Wanted(**{**options, "stages": tuple(options["stages"])})
    try:
        if offscreen is None:
            show(wanted)
        else:
            actions = read_script(script)
            run_script(open_viewer(wanted, OFFSCREEN, scripted=True), actions, offscreen)
            print(offscreen)
    except (OSError, ValueError, ImportError, TrainingError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
