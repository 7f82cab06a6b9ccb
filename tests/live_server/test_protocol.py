"""Control messages, sound, limits and access, without a network."""

import json

import numpy as np
import pytest

from ernerf_ti.live_server.access import Access
from ernerf_ti.live_server.protocol import (
    Format,
    Limits,
    Offer,
    ProtocolError,
    Rate,
    SetBackground,
    Simple,
    Start,
    read_message,
    read_pcm,
)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"type": "start"}, Start(None, None)),
        ({"type": "start", "session": "ab12", "background": "#0a141e"}, Start("ab12", (10, 20, 30))),
        ({"type": "format", "sample_rate": 16000}, Format(16000, 1)),
        ({"type": "format", "sample_rate": 48000, "channels": 2}, Format(48000, 2)),
        ({"type": "offer", "sdp": "v=0"}, Offer("v=0")),
        ({"type": "background", "background": "transparent"}, SetBackground("transparent")),
        ({"type": "flush"}, Simple("flush")),
        ({"type": "interrupt"}, Simple("interrupt")),
        ({"type": "stop"}, Simple("stop")),
    ],
)
def test_messages_are_read(fields, message):
    assert read_message(json.dumps(fields), Limits()) == message


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", "not_json"),
        ("[" * 60_000, "not_json"),
        ("[]", "not_json"),
        ("9" * 6000, "not_json"),
        ("{}", "unknown_type"),
        ('{"type": ["start"]}', "unknown_type"),
        ('{"type": "eval"}', "unknown_type"),
        ('{"type": "flush", "path": "/etc/passwd"}', "unknown_field"),
        ('{"type": "start", "session": "../main"}', "bad_value"),
        ('{"type": "start", "background": "/etc/passwd"}', "bad_value"),
        ('{"type": "background"}', "bad_value"),
        ('{"type": "format"}', "bad_value"),
        ('{"type": "format", "sample_rate": 1}', "bad_value"),
        ('{"type": "format", "sample_rate": 16000.0}', "bad_value"),
        ('{"type": "format", "sample_rate": true}', "bad_value"),
        ('{"type": "format", "sample_rate": 16000, "channels": 3}', "bad_value"),
        ('{"type": "offer"}', "bad_value"),
        (json.dumps({"type": "offer", "sdp": "x" * 20_001}), "too_large"),
    ],
)
def test_wrong_messages_are_named_in_a_short_line(text, code):
    with pytest.raises(ProtocolError) as caught:
        read_message(text, Limits())
    assert caught.value.code == code
    assert len(str(caught.value)) < 200 and "expected" in str(caught.value)


def test_sound_needs_a_format_and_whole_samples():
    with pytest.raises(ProtocolError, match="expected a format message"):
        read_pcm(b"\0\0", None)
    for data in (b"", b"\0\0\0", b"\0\0"):
        with pytest.raises(ProtocolError, match="2 channels"):
            read_pcm(data, Format(16_000, 2))
    samples = np.array([[1, -2], [300, -32768]], "<i2")
    np.testing.assert_array_equal(read_pcm(samples.tobytes(), Format(16_000, 2)), samples)


def test_the_rate_of_messages_follows_the_clock():
    now = [0.0]
    rate = Rate(10, lambda: now[0])
    for _ in range(20):
        rate.take()
    with pytest.raises(ProtocolError, match="at most 10 per second"):
        rate.take()
    now[0] += 0.1
    rate.take()


def test_a_server_for_this_computer_answers_to_its_own_names_alone():
    access = Access.of("127.0.0.1", origins=("https://app.example",))
    assert access.token is None and access.accepts_token(None)
    for host in ("localhost:8080", "127.0.0.1:8080", "[::1]:8080", "app.example"):
        assert access.refuses_host(host) is None
    for host in ("", "evil.example:8080", "127.0.0.1.evil.example", "127.0.0.1;x", "[::1", "a@127.0.0.1"):
        assert access.refuses_host(host)
    assert access.refuses_origin(None, "http", "localhost:8080") is None
    assert access.refuses_origin("http://localhost:8080", "http", "localhost:8080") is None
    assert access.refuses_origin("https://app.example", "http", "localhost:8080") is None
    for origin in ("http://evil.example", "http://localhost:9090", "https://localhost:8080", "null", ""):
        assert access.refuses_origin(origin, "http", "localhost:8080")


def test_other_addresses_need_a_token():
    access = Access.of("0.0.0.0")
    assert len(access.token) >= 32 and access.token != Access.of("0.0.0.0").token
    assert access.accepts_token(None, "x", access.token)
    assert not access.accepts_token(None, "", access.token[:-1], "ä")
    assert access.refuses_host("192.168.1.7:8080") is None
    with pytest.raises(ValueError, match="at least 16"):
        Access.of("0.0.0.0", "short")
    for origin in ("example.org", "https://example.org/", "ftp://example.org", "https://a@example.org"):
        with pytest.raises(ValueError, match="origin: expected"):
            Access.of("127.0.0.1", None, (origin,))
