"""The controls and the mouse, without a window."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

from ernerf_ti.viewer.app import WINDOW
from ernerf_ti.viewer.drawing import text_width
from ernerf_ti.viewer.mouse import Mouse
from ernerf_ti.viewer.panel import PANEL_WIDTH, Button, Label, PanelFacts, Slider, draw_panel, panel_widgets, widget_at
from ernerf_ti.viewer.state import CHOICES, DIALS, LIMITS, ViewState, changed, transition

START = ViewState(captured_field_of_view=20.0, n_embeddings=2000)
EVERYTHING = PanelFacts(True, True, True, "finetune, step 123456 of 200000, trained to the end", "/a/long/path" * 9)
FULLEST = changed(START, head="mouse", eyes="slider", background="color", appearance=1999, head_yaw=-40, yaw=-75)
LEFT = WINDOW.picture[0]
TEXT = 0.36


def test_window_fits_a_small_screen_with_its_title_bar():
    assert WINDOW.width <= 1280 and WINDOW.height <= 800 - 60
    assert WINDOW.panel == PANEL_WIDTH


@pytest.mark.parametrize("facts", [PanelFacts(), EVERYTHING], ids=["least", "most"])
@pytest.mark.parametrize("state", [START, FULLEST, changed(FULLEST, auto_scale=False)], ids=["plain", "full", "scale"])
def test_nothing_is_clipped_or_overlaps(state, facts):
    widgets = panel_widgets(state, facts, LEFT)
    for widget in widgets:
        place = widget.place
        assert LEFT <= place.left and place.left + place.width <= WINDOW.width
        assert 0 <= place.top and place.top + place.height <= WINDOW.height
        texts = [widget.text, widget.shown] if isinstance(widget, Slider) else [widget.text]
        assert text_width(" ".join(texts), TEXT) <= place.width
    controls = [widget.place for widget in widgets if not isinstance(widget, Label)]
    for a, b in itertools.combinations(controls, 2):
        apart = a.left + a.width <= b.left or b.left + b.width <= a.left
        assert apart or a.top + a.height <= b.top or b.top + b.height <= a.top


def test_every_setting_has_a_control():
    widgets = panel_widgets(FULLEST, EVERYTHING, LEFT)
    widgets += panel_widgets(changed(START, auto_scale=False), EVERYTHING, LEFT)
    sliders = {widget.name for widget in widgets if isinstance(widget, Slider)}
    assert sliders == {*LIMITS, "color"}
    actions = [widget.action for widget in widgets if isinstance(widget, Button)]
    for name, choices in CHOICES.items():
        assert all({"set": {name: choice}} in actions for choice in choices)
    toggles = ("playing", "loop", "volume", "audio", "torso", "auto_scale", "training")
    assert all({"toggle": name} in actions for name in toggles)
    for action in actions:
        transition(FULLEST, action)  # all are valid


def test_sliders_of_the_face_are_those_that_the_portrait_has():
    def names(lacking):
        widgets = panel_widgets(replace(START, lacking=frozenset(lacking)), PanelFacts(), LEFT)
        has_reset = any(isinstance(w, Button) and w.text == "Neutral" for w in widgets)
        return has_reset, {w.name for w in widgets if isinstance(w, Slider)} & {"mouth_gain", *DIALS}

    assert names(()) == (True, {"mouth_gain", *DIALS})
    assert names(DIALS) == (True, {"mouth_gain"})
    assert names({"mouth_gain", "brows"}) == (True, set(DIALS) - {"brows"})
    assert names({"mouth_gain", *DIALS}) == (False, set())


def test_buttons_show_what_is_on():
    for state in (START, changed(FULLEST, mode="eye attention", torso=False, loop=False)):
        active = [w.action for w in panel_widgets(state, PanelFacts(), LEFT) if isinstance(w, Button) and w.active]
        assert all({"set": {name: getattr(state, name)}} in active for name in CHOICES)
        assert ({"toggle": "torso"} in active) == state.torso and ({"toggle": "loop"} in active) == state.loop
        assert sum("set" in action for action in active) == len(CHOICES) + (state.appearance < 0)


def test_controls_are_drawn_in_their_places():
    widgets = panel_widgets(START, EVERYTHING, LEFT)
    image = draw_panel(widgets, LEFT, PANEL_WIDTH, WINDOW.height)
    assert image.shape == (WINDOW.height, PANEL_WIDTH, 3)
    for widget in widgets:
        place = widget.place
        area = image[place.top : place.top + place.height, place.left - LEFT : place.left - LEFT + place.width]
        assert area.std() > 5
        if isinstance(widget, Button):
            orange = (area == (255, 176, 64)).all(-1).mean()
            assert orange > 0.5 if widget.active else orange == 0


def test_appearance_steps_through_the_frames():
    state, seen = START, []
    for text in ("+1", "+10", "+1", "-10", "-1", "-10"):
        buttons = [w for w in panel_widgets(state, PanelFacts(), LEFT) if isinstance(w, Button) and w.text == text]
        state, _ = transition(state, buttons[0].action)
        seen.append(state.appearance)
    assert seen == [0, 10, 11, 1, 0, -1]


class Hand:
    """A mouse whose positions are pixels."""

    def __init__(self, state: ViewState = START):
        self.state, self.commands = state, []
        self._mouse = Mouse(WINDOW)

    def __call__(self, column: float, row: float, pressed: str = "", held: str = "") -> None:
        widgets = panel_widgets(self.state, PanelFacts(), LEFT)
        position = column / WINDOW.width, row / WINDOW.height
        for action in self._mouse.actions(position, [pressed] * bool(pressed), lambda name: name == held, widgets):
            self.state, command = transition(self.state, action)
            self.commands += [command] if command else []

    def middle_of(self, text: str) -> tuple[float, float]:
        place = next(
            widget.place
            for widget in panel_widgets(self.state, PanelFacts(), LEFT)
            if not isinstance(widget, Label) and widget.text == text
        )
        return place.left + (place.width - 1) / 2, place.top + place.height // 2


def test_click_shorter_than_a_frame_counts_once():
    hand = Hand()
    hand(*hand.middle_of("Depth"), pressed="LMB")  # released again already
    assert hand.state.mode == "depth"
    hand(*hand.middle_of("Torso"), pressed="LMB", held="LMB")
    hand(*hand.middle_of("Torso"), held="LMB")
    hand(*hand.middle_of("Torso"))
    assert hand.state.torso is False
    hand(480, 690, pressed="LMB")  # the waveform
    assert hand.commands[-1] == {"do": "seek", "fraction": pytest.approx((480 - 8) / (960 - 16), abs=1e-6)}
    before = hand.state
    hand(400, 300, pressed="LMB")  # the picture: nothing moves
    hand(500, 300)
    assert hand.state == before


def test_sliders_follow_the_mouse_wherever_it_goes():
    hand = Hand()
    column, row = hand.middle_of("Distance")
    hand(column, row, pressed="LMB", held="LMB")
    assert hand.state.distance == pytest.approx(np.mean(LIMITS["distance"]), abs=0.02)
    hand(column + 2000, 100, held="LMB")
    assert hand.state.distance == LIMITS["distance"][1] and hand.state.camera_is_captured is False
    hand(column, row)
    assert hand.state.distance == LIMITS["distance"][1]  # released
    hand(column, row, pressed="RMB", held="RMB")  # other buttons have no meaning here
    assert hand.state.distance == LIMITS["distance"][1]


def test_each_part_of_the_color_has_its_slider():
    hand = Hand(changed(START, background="color", color=(0.2, 0.4, 0.6)))
    column, row = hand.middle_of("G")
    hand(column + 200, row, pressed="LMB", held="LMB")
    hand(*hand.middle_of("G"), pressed="LMB", held="LMB")
    assert hand.state.color == pytest.approx((0.2, 0.5, 0.6), abs=0.01)


def test_drags_on_the_picture_and_the_waveform():
    hand = Hand()
    hand(400, 300, pressed="LMB", held="LMB")
    hand(466.4, 300, held="LMB")  # a tenth of the picture's height
    hand(1200, 90, held="LMB")  # over the panel, still the same drag
    assert hand.state.yaw == -75 and hand.state.mode == "color"
    hand(1200, 90)
    hand(400, 300, pressed="RMB", held="RMB")
    hand(400, 366.4, held="RMB")
    assert hand.state.distance == pytest.approx(np.exp(0.3), rel=1e-3)
    hand(100, 700, pressed="LMB", held="LMB")
    hand(900, 200, held="LMB")
    assert hand.commands[-1]["fraction"] == pytest.approx((900 - 8) / 944, abs=1e-6)
    hand(1100, 200, held="LMB")
    assert hand.commands[-1]["fraction"] == pytest.approx(1, abs=0.01)


def test_labels_and_gaps_do_nothing():
    widgets = panel_widgets(START, PanelFacts(), LEFT)
    for widget in widgets:
        if isinstance(widget, Label) and widget.text != "Camera":
            assert widget_at(widgets, widget.place.left + 1, widget.place.top + 1) is None
    assert widget_at(widgets, LEFT + 2, 30) is None
