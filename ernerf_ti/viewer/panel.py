"""The window's controls, in the widgets that GGUI has."""

from typing import Any

from ernerf_ti.viewer.state import CHOICES, LIMITS, ViewState
from ernerf_ti.viewer.viewer import Viewer

_TICKS = {"playing": "play", "loop": "loop", "audio": "mouth listens", "torso": "torso", "auto_scale": "adapt scale"}
_SLIDERS = {"eye": "closure", "volume": "volume"}
_CAMERA_SLIDERS = {
    "yaw": "orbit",
    "pitch": "tilt",
    "distance": "distance",
    "pan_x": "pan",
    "pan_y": "raise",
    "head_yaw": "head turn",
    "head_pitch": "head nod",
    "target_rate": "pictures/s",
    "scale": "scale",
}
_BUTTONS = {
    "home": "captured camera",
    "screenshot": "screenshot",
    "record": "record",
    "export_clip": "export clip",
    "export_mesh": "export mesh",
    "export_path": "export camera path",
    "capture_sound": "capture's sound",
}
_TRAINING_BUTTONS = {"train_step": "one step", "save_checkpoint": "save checkpoint"}


def draw_panel(gui, viewer: Viewer) -> list[dict[str, Any]]:
    """Draw the controls at the right of the window.

    Args:
        gui: of the window, see taichi.ui.Window.get_gui.
        viewer: what they show.

    Returns:
        The actions that they were used for.
    """
    state, layout = viewer.state, viewer.options.layout
    actions: list[dict[str, Any]] = []
    left = layout.picture[0] / layout.width
    with gui.sub_window("controls (q: keys)", left, 0.0, 1 - left, 1.0) as panel:
        for name, text in _TICKS.items():
            if panel.checkbox(text, getattr(state, name)) != getattr(state, name):
                actions.append({"toggle": name})
        for name, choices in CHOICES.items():
            place = choices.index(getattr(state, name))
            panel.text(f"{name}: {choices[place]}")
            chosen = panel.slider_int(f"##{name}", place, 0, len(choices) - 1)
            if chosen != place:
                actions.append({"set": {name: choices[chosen]}})
        actions += _sliders(panel, state, _SLIDERS)
        code = panel.slider_int("appearance", state.appearance, -1, state.n_embeddings - 1)
        if code != state.appearance:
            actions.append({"set": {"appearance": code}})
        view = panel.slider_float("view angle", state.vertical_view, *LIMITS["field_of_view"])
        if abs(view - state.vertical_view) > 1e-4:
            actions.append({"set": {"field_of_view": view}})
        color = panel.color_edit_3("color", state.color)
        if max(abs(a - b) for a, b in zip(color, state.color, strict=True)) > 1e-4:
            actions.append({"set": {"color": list(color)}})
        actions += [{"do": name} for name, text in _BUTTONS.items() if panel.button(text)]
        if viewer.training is not None:
            panel.text(viewer.training.text)
            if panel.checkbox("train", state.training) != state.training:
                actions.append({"toggle": "training"})
            actions += [{"do": name} for name, text in _TRAINING_BUTTONS.items() if panel.button(text)]
        actions += _sliders(panel, state, _CAMERA_SLIDERS)
        if viewer.options.inbox is not None:
            panel.text("sounds and pictures dropped into")
            panel.text(str(viewer.options.inbox))
    return actions


def _sliders(panel, state: ViewState, texts: dict[str, str]) -> list[dict[str, Any]]:
    actions = []
    for name, text in texts.items():
        value = panel.slider_float(text, getattr(state, name), *LIMITS[name])
        if abs(value - getattr(state, name)) > 1e-6:
            actions.append({"set": {name: value, **_implied(name)}})
    return actions


def _implied(name: str) -> dict[str, Any]:
    """Settings without which a slider would have no effect."""
    if name == "eye":
        return {"eyes": "slider"}
    if name in ("head_yaw", "head_pitch"):
        return {"head": "mouse"}
    return {"auto_scale": False} if name == "scale" else {}
