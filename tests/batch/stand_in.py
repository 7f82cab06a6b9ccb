"""Stands in for `python -m ernerf_ti` in tests of batches: writes what the commands would, within milliseconds.

What is in the first input decides what happens: `broken` fails, `killed` dies by a signal, `slow` waits until it is
interrupted the first time, `steady` works for a second and continues where it was. Each start is noted in starts.txt
beside the output, and the GPU in gpus.txt.
"""

import os
import signal
import sys
import time

command, *rest = sys.argv[1:]
given = next((rest[k + 1] for k, word in enumerate(rest) if word == "-o"), rest[1])
folder = os.path.dirname(given)
row = os.path.dirname(folder) if os.path.basename(folder) == "videos" else folder
with open(os.path.join(row, "starts.txt"), "a") as starts:
    starts.write(f"{command} {os.getpid()}\n")
with open(os.path.join(row, "gpus.txt"), "a") as gpus:
    gpus.write(f"{os.environ.get('CUDA_VISIBLE_DEVICES', '')}\n")
content = ""
if command == "preprocess":
    with open(rest[0]) as video:
        content = video.read()
    with open(os.path.join(row, "content.txt"), "w") as kept:
        kept.write(content)
elif os.path.isfile(os.path.join(row, "content.txt")):
    with open(os.path.join(row, "content.txt")) as kept:
        content = kept.read()

print(f"{command} begins", flush=True)
if command == "train":
    if content.startswith("broken"):
        print("the face is never seen", file=sys.stderr)
        sys.exit(1)
    if content.startswith("killed"):
        os.kill(os.getpid(), signal.SIGKILL)
    progress = os.path.join(row, "progress.txt")
    done = os.path.getsize(progress) if os.path.isfile(progress) else 0
    if content.startswith("slow") and not done:
        stopped = []
        signal.signal(signal.SIGINT, lambda *_: stopped.append(True))
        with open(progress, "w"):
            pass
        while not stopped:
            time.sleep(0.01)
        with open(progress, "w") as file:
            file.write("x")
        sys.exit(130)
    if content.startswith("steady"):
        for _ in range(done, 20):
            time.sleep(0.1)
            with open(progress, "a") as file:
                file.write("x")
    os.makedirs(given, exist_ok=True)
    with open(os.path.join(given, "weights.txt"), "w") as file:
        file.write(f"{content} {' '.join(rest[2:])}")
elif command == "synthesize":
    with open(given, "w") as file:
        file.write(f"{content} speaks")
else:
    os.makedirs(given, exist_ok=True)
    with open(os.path.join(given, "result.txt"), "w") as file:
        file.write(command)
