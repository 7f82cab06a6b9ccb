"""The viewer without a window: a script of actions in, a video of the screen with its sound out."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ernerf_ti.data.capture_files import FPS
from ernerf_ti.media.files import read_json
from ernerf_ti.viewer.recording import SessionRecording
from ernerf_ti.viewer.sound import SilentOutput
from ernerf_ti.viewer.viewer import Viewer


@dataclass(frozen=True)
class Script:
    """Timed actions."""

    seconds: float
    """Length of the video."""
    actions: tuple[tuple[float, dict[str, Any]], ...]
    """By time, s."""


class ScriptTime:
    """A clock that goes on by a frame when it is told to, so that a script gives the same video everywhere."""

    def __init__(self):
        self.frame = 0

    def __call__(self) -> float:
        return self.frame / FPS


def read_script(path: Path) -> Script:
    """Read {"seconds": 3, "actions": [{"at": 0.5, "key": "space"}, ...]}.

    Raises:
        FileNotFoundError, ValueError: no such file, or one that is no script.
    """
    content = read_json(path)
    if not isinstance(content, dict) or set(content) != {"seconds", "actions"}:
        raise ValueError(f"{path}: expected the fields seconds and actions, got others; see docs/viewer.md")
    seconds, actions = content["seconds"], content["actions"]
    if not isinstance(seconds, (int, float)) or not seconds > 0:
        raise ValueError(f"{path}: expected seconds > 0, got {seconds!r}; say how long the video is")
    timed = []
    for k, action in enumerate(actions):
        at = action.get("at") if isinstance(action, dict) else None
        if not isinstance(at, (int, float)) or at < 0:
            raise ValueError(f'{path}: expected a time in "at" of action {k}, got {at!r}; give seconds from the begin')
        timed.append((float(at), {key: value for key, value in action.items() if key != "at"}))
    return Script(float(seconds), tuple(sorted(timed, key=lambda item: item[0])))


def run_script(make_viewer: Callable[..., Viewer], script: Script, output: Path) -> int:
    """Run a script and write what is on the screen.

    Args:
        make_viewer: the sound output and the time -> the viewer.
        script: what is done.
        output: an .mp4.

    Returns:
        How many frames were written.

    Raises:
        ValueError, OSError, ImportError: an action that can't be done; no file is written then.
    """
    time = ScriptTime()
    viewer = make_viewer(SilentOutput(time=time), time)
    viewer.act({"set": {"auto_scale": False}})
    recording, waiting = SessionRecording(output, 0.0), list(script.actions)
    try:
        for k in range(round(script.seconds * FPS)):
            time.frame = k
            while waiting and waiting[0][0] <= time() + 1e-6:
                viewer.act(waiting.pop(0)[1])
            if not viewer.running:
                break
            position = viewer.clock.position if viewer.clock.playing and viewer.state.volume else None
            recording.add(viewer.tick(), time(), viewer.clip, position)
            viewer.shown()
        recording.finish()
    finally:
        recording.close()
        viewer.close()
    return recording.n_frames
