"""Actions and settings."""

import math
from dataclasses import replace

import pytest

from ernerf_ti.viewer.state import CHOICES, COMMANDS, DIALS, KEYS, LIMITS, MODES, ViewState, changed, transition

START = ViewState(captured_field_of_view=20.0, n_embeddings=5)


def after(*actions: dict, state: ViewState = START) -> ViewState:
    for action in actions:
        state, command = transition(state, action)
        assert command is None
    return state


def test_keys_do_what_their_actions_do():
    for name, key in KEYS.items():
        assert transition(START, {"key": name}) == transition(START, key.action)
        assert transition(START, key.action) != (START, None) or key.action == {"do": "home"} or "set" in key.action
    assert after({"key": "~"}) == START


def test_numbers_stay_within_their_limits():
    for name, (low, high) in LIMITS.items():
        assert getattr(after({"set": {name: -1e9}}), name) == low
        assert getattr(after({"set": {name: 1e9}}), name) == high
        assert getattr(after({"set": {name: (low + high) / 2}}), name) == (low + high) / 2
    assert after({"set": {"appearance": 99}}).appearance == 4
    assert after({"set": {"appearance": -7}}).appearance == -1
    assert after({"set": {"color": [2, -1, 0.5]}}).color == (1, 0, 0.5)
    assert after({"set": {"field_of_view": 0}}).vertical_view == 20


def test_cycles_come_round():
    for name, choices in CHOICES.items():
        states = [START]
        for _ in choices:
            states.append(after({"cycle": name}, state=states[-1]))
        assert states[-1] == START
        assert [getattr(state, name) for state in states[:-1]] == list(choices)
    assert after({"cycle": "mode", "by": -1}).mode == MODES[-1]


def test_toggles():
    assert after({"toggle": "torso"}).torso is False
    assert after({"toggle": "torso"}, {"toggle": "torso"}) == START
    assert after({"toggle": "volume"}).volume == 0
    assert after({"toggle": "volume"}, {"toggle": "volume"}).volume == 1


def test_drags():
    assert after({"drag": [0.1, 0]}).yaw == pytest.approx(-9)
    assert after({"drag": [0, 0.1], "button": "left"}).pitch == pytest.approx(9)
    turned = after({"set": {"head": "mouse"}}, {"drag": [0.1, 0.2]})
    assert (turned.head_yaw, turned.head_pitch, turned.yaw) == pytest.approx((9, 18, 0))
    panned = after({"drag": [0.1, 0.2], "button": "middle"})
    assert (panned.pan_x, panned.pan_y) == pytest.approx((-0.1, 0.2))
    assert after({"drag": [0, 0.1], "button": "right"}).distance == pytest.approx(math.exp(0.3))
    assert after(*[{"drag": [1, 1]}] * 5).yaw == LIMITS["yaw"][0]
    assert after({"zoom": 2}).distance == 0.5


def test_back_to_the_captured_camera():
    away = after({"drag": [0.1, 0.1]}, {"drag": [0.1, 0.1], "button": "middle"}, {"set": {"field_of_view": 33}})
    assert not away.camera_is_captured
    assert after({"key": "r"}, state=away) == START


def test_back_to_a_neutral_face():
    start = replace(START, own_mouth_gain=1.15, mouth_gain=1.15)
    turned = after({"set": {"mouth_gain": 2, "brows": 1, "smile": -1, "gaze_x": 0.5, "gaze_y": 3}}, state=start)
    assert (turned.mouth_gain, turned.brows, turned.gaze_y) == (2, 1, 3)
    assert after({"do": "neutral"}, state=turned) == start


def test_settings_that_the_portrait_lacks():
    plain = replace(START, lacking=frozenset({"mouth_gain", *DIALS}))
    advice = {"brows": "brows", "smile": "smile", "gaze_x": "gaze", "gaze_y": "gaze"}
    for name, group in advice.items():
        with pytest.raises(ValueError, match=rf"^{name}: expected .*lacks; train one .*head\.dials {group}$"):
            transition(plain, {"set": {name: 1}})
    with pytest.raises(ValueError, match=r"^mouth_gain: expected .*lacks; view a portrait that is not in training"):
        transition(plain, {"set": {"mouth_gain": 1}})


def test_commands_are_handed_on():
    for name in COMMANDS:
        assert transition(START, {"do": name, "seconds": 1}) == (START, {"do": name, "seconds": 1})


@pytest.mark.parametrize(
    ("action", "text"),
    [
        ({"press": "a"}, "action: expected one of key, set, .* got {'press': 'a'}"),
        ({"key": "a", "zoom": 1}, "action: expected one of"),
        ({"do": "dance"}, "do: expected one of seek, .* got 'dance'"),
        ({"set": {"mouth": 1}}, "set: expected one of appearance, .* got 'mouth'"),
        ({"set": {"n_embeddings": 1}}, "set: expected one of"),
        ({"set": {"mode": "x-ray"}}, "mode: expected one of color, .* got 'x-ray'"),
        ({"set": {"eye": float("nan")}}, "eye: expected a finite number, got nan"),
        ({"set": {"eye": "half"}}, "eye: expected a finite number, got 'half'"),
        ({"set": {"torso": 1}}, "torso: expected true or false, got 1"),
        ({"set": {"color": [1, 2]}}, "color: expected three numbers"),
        ({"toggle": "mode"}, "toggle: expected a setting that is on or off, got 'mode'"),
        ({"cycle": "eye"}, "cycle: expected one of mode"),
        ({"drag": [0, 0], "button": "wheel"}, "button: expected left, middle or right, got 'wheel'"),
    ],
)
def test_wrong_actions(action, text):
    with pytest.raises(ValueError, match=text):
        transition(START, action)


def test_changed_leaves_the_rest():
    assert changed(START, eye=0.5) == after({"set": {"eye": 0.5}})
