"""The viewer without a window: run a script of actions and write the screen as a video with sound."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ernerf_ti.data.capture_files import FPS
from ernerf_ti.media.files import read_json
from ernerf_ti.viewer.recording import SessionRecording
from ernerf_ti.viewer.sound import SilentOutput
from ernerf_ti.viewer.viewer import Viewer

_RENAMED_KEYS = {"1": "d"}
_RENAMED = {"colour": "color"}
"""Names in scripts for version 0.1.0 -> present ones."""


@dataclass(frozen=True)
class Script:
    """Timed actions."""

    seconds: float
    """Length of the video."""
    actions: tuple[tuple[float, dict[str, Any]], ...]
    """Time in seconds and action, sorted by time."""


class ScriptTime:
    """A clock that is advanced frame by frame, so that a script gives the same video on every machine."""

    def __init__(self) -> None:
        self.frame = 0

    def __call__(self) -> float:
        return self.frame / FPS


def read_script(path: Path) -> Script:
    """Read {"seconds": 3, "actions": [{"at": 0.5, "key": "space"}, ...]}.

    Raises:
        FileNotFoundError, ValueError: no such file, or not a valid script.
    """
    content = read_json(path)
    if not isinstance(content, dict) or set(content) != {"seconds", "actions"}:
        raise ValueError(f"{path}: expected the fields seconds and actions, got {_fields(content)}; see docs/viewer.md")
    seconds, actions = content["seconds"], content["actions"]
    if not isinstance(seconds, (int, float)) or not seconds > 0:
        raise ValueError(f"{path}: expected seconds > 0, got {seconds!r}; pass the length of the video")
    if not isinstance(actions, list):
        raise ValueError(f"{path}: expected a list of actions, got {type(actions).__name__}; see docs/viewer.md")
    timed = []
    for k, action in enumerate(actions):
        at = action.get("at") if isinstance(action, dict) else None
        if not isinstance(at, (int, float)) or at < 0:
            raise ValueError(
                f'{path}: expected a time >= 0 in "at" of action {k}, got {at!r}; pass seconds from the start'
            )
        timed.append((float(at), _present_names({key: value for key, value in action.items() if key != "at"})))
    return Script(float(seconds), tuple(sorted(timed, key=lambda item: item[0])))


def run_script(make_viewer: Callable[..., Viewer], script: Script, output: Path) -> int:
    """Run a script and write the screen to a video.

    Args:
        make_viewer: from sound output and clock to the viewer.
        script: timed actions.
        output: an .mp4.

    Returns:
        Number of frames written.

    Raises:
        ValueError, OSError, ImportError: an action that failed; no file is written then.
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
        if viewer.options.signer is not None:
            viewer.options.signer.sign(output)
            viewer.options.signer.finish()
    finally:
        recording.close()
        viewer.close()
    return recording.n_frames


def _fields(content: object) -> str:
    return ", ".join(content) or "none" if isinstance(content, dict) else f"a {type(content).__name__}"


def _present_names(action: dict[str, Any]) -> dict[str, Any]:
    """The action with the names of settings, choices and keys that earlier versions used replaced."""
    if isinstance(action.get("set"), dict):
        settings = action["set"].items()
        renamed = {_RENAMED.get(name, name): _RENAMED.get(v, v) if isinstance(v, str) else v for name, v in settings}
        return {**action, "set": renamed}
    if action.get("key") in _RENAMED_KEYS:
        return {**action, "key": _RENAMED_KEYS[action["key"]]}
    return action
