"""Recording, stream and camera, and the sound that the server speaks itself."""

import datetime
import io
import ipaddress
import socket
import ssl
import subprocess
import sys
import threading
import time
import types
import urllib.request

import av
import numpy as np
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from ernerf_ti.cli.main import main
from ernerf_ti.live import LiveFrame
from ernerf_ti.live_server.listening import reachable_name
from ernerf_ti.live_server.options import ServerOptions
from ernerf_ti.live_server.serving import serve
from ernerf_ti.live_server.sinks import Camera, Recording, Sink, Stream, opaque, require_camera
from ernerf_ti.live_server.sources import pipe_pieces
from ernerf_ti.media.provenance.note import SOURCE_TYPE
from tests.live_server.fake_portrait import SAMPLES, SOUND_RATE, FakePortrait
from tests.media.sound_files import write_sound_file


def frame(k, value=0, channels=3):
    image = np.full((32, 48, channels), value, np.uint8)
    return LiveFrame(image, np.full((1, SAMPLES), 0.25, np.float32), k / 25, True, 0)


def contents(path):
    """Brightness of the pictures, samples, and tags."""
    with av.open(str(path)) as file:
        pictures, samples = [], []
        for decoded in file.decode():
            if isinstance(decoded, av.VideoFrame):
                pictures.append(decoded.to_ndarray(format="gray").mean())
            else:
                samples.append(decoded.to_ndarray()[0])
        return np.array(pictures), np.concatenate(samples), dict(file.metadata)


def test_a_recording_has_every_frame_its_sound_and_the_note(tmp_path):
    path = tmp_path / "out.mp4"
    signed = []
    sink = Sink("out.mp4", lambda: Recording(path, signed.append))
    for k in [0, 1, 2, 3, 4, 10, 11]:  # five are missing
        sink.put(frame(k, 200 if k == 4 else 20))
    sink.close()
    assert sink.error is None and (sink.n_frames, sink.n_repeated) == (12, 5)
    pictures, samples, tags = contents(path)
    assert len(pictures) == 12 and (pictures > 150).tolist() == [False] * 4 + [True] * 6 + [False] * 2
    assert len(samples) / SOUND_RATE == pytest.approx(12 / 25, abs=0.03)
    assert SOURCE_TYPE in tags["comment"] and len(signed) == 1
    assert np.median(np.abs(samples[2000:7000])) == pytest.approx(0.25, abs=0.05)
    assert np.abs(samples[11_000:17_000]).max() < 0.1


def test_a_recording_without_frames_leaves_no_file(tmp_path):
    sink = Sink("out.mp4", lambda: Recording(tmp_path / "out.mp4"))
    sink.close()
    assert sink.error is None and list(tmp_path.iterdir()) == []


def test_a_recording_keeps_transparency_where_the_format_can(tmp_path):
    sink = Sink("out.webm", lambda: Recording(tmp_path / "out.webm"))
    for k in range(3):
        sink.put(frame(k, 100, channels=4))
    sink.close()
    assert sink.error is None
    with av.open(str(tmp_path / "out.webm")) as file:
        assert file.streams.video[0].metadata["alpha_mode"] == "1"
    assert opaque(np.full((1, 1, 4), 100, np.uint8)).tolist() == [[[39, 39, 39]]]


def test_a_stream_carries_both_tracks(tmp_path):
    path = tmp_path / "out.flv"
    sink = Sink("rtmp", lambda: Stream(str(path)))
    for k in range(10):
        sink.put(frame(k, 20 * k))
    sink.close()
    assert sink.error is None
    pictures, samples, tags = contents(path)
    assert len(pictures) == 10 and np.all(np.diff(pictures) > 10)
    assert len(samples) / SOUND_RATE == pytest.approx(0.4, abs=0.05) and SOURCE_TYPE in tags["comment"]


_RECEIVER = """
import contextlib, sys, av
with av.open(sys.argv[1], options={"listen": "1"}, timeout=(20.0, 20.0)) as file:
    n = {"video": 0, "audio": 0}
    with contextlib.suppress(OSError):  # that the sender has closed the connection
        for packet in file.demux():
            n[packet.stream.type] += len(packet.decode())
    print(n["video"], n["audio"], file.metadata["comment"])
"""


def test_a_stream_arrives_at_an_rtmp_server():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"rtmp://127.0.0.1:{free.getsockname()[1]}/live/key"
    with subprocess.Popen([sys.executable, "-c", _RECEIVER, url], stdout=subprocess.PIPE, text=True) as receiver:
        for _ in range(50):  # until it listens
            sink = Sink("rtmp", lambda: Stream(url))
            for k in range(25):
                sink.put(frame(k, 9 * k))
            sink.close()
            if sink.error is None:
                break
            time.sleep(0.2)
        received, _ = receiver.communicate(timeout=30)
    n_pictures, n_sounds, note = received.split(" ", 2)
    assert int(n_pictures) == 25 and 45 <= int(n_sounds) <= 49  # pieces of 1,024 samples
    assert SOURCE_TYPE in note


def test_a_stream_that_nobody_takes_ends_with_a_line_that_hides_its_key(capsys):
    ended = threading.Event()
    sink = Sink("rtmp", lambda: Stream("rtmp://127.0.0.1:1/live/secret"), ended.set)
    for k in range(300):
        sink.put(frame(k))  # never waits
    assert ended.wait(10)
    sink.close()
    text = capsys.readouterr().err
    assert text.startswith("rtmp: expected a server that takes a stream at 127.0.0.1:1, got none (Connection refused)")
    assert "ends here" in text and "secret" not in text and text.count("rtmp") == 1


def test_a_camera_gets_opaque_pictures(monkeypatch):
    sent = []
    camera = types.SimpleNamespace(send=sent.append, close=lambda: sent.append(None))
    library = types.SimpleNamespace(Camera=lambda width, height, fps: camera)
    monkeypatch.setitem(sys.modules, "pyvirtualcam", library)
    require_camera()
    sink = Sink("camera", lambda: Camera((48, 32)))
    sink.put(frame(0, 255, channels=4))
    sink.close()
    assert sent[0].shape == (32, 48, 3) and sent[0].min() == 255 and sent[1] is None
    monkeypatch.setitem(sys.modules, "pyvirtualcam", None)
    with pytest.raises(ImportError, match=r"ernerf-ti\[camera\]"):
        require_camera()


def test_raw_samples_from_a_pipe_come_whole():
    class Dribble(io.BytesIO):
        def read1(self, n):
            return self.read(min(n, 3))

    samples = np.arange(-50, 50, dtype="<i2")
    found = np.concatenate(list(pipe_pieces(Dribble(samples.tobytes() + b"\0"), 16_000)))
    np.testing.assert_array_equal(found[:, 0], samples)


def test_a_file_is_spoken_and_recorded_once(tmp_path):
    tone = 0.3 * np.sin(2 * np.pi * 440 * np.arange(8_000) / 16_000)
    speech = write_sound_file(tmp_path / "speech.wav", "pcm_s16le", tone[None], 16_000)
    portrait, addresses = FakePortrait((32, 32)), []
    options = ServerOptions(port=0, audio=speech, record=tmp_path / "out.mp4", once=True, watermark=True)
    begin = time.monotonic()
    assert serve(portrait, options, on_start=addresses.append) == [tmp_path / "out.mp4"]
    assert 0.5 < time.monotonic() - begin < 10 and addresses[0].startswith("http://127.0.0.1:")
    (session,) = portrait.sessions
    pushed = np.concatenate([pcm for pcm, _, _ in session.pushed])[:, 0]
    np.testing.assert_allclose(pushed / 32767, tone, atol=1e-3)
    assert session.n_flushes == 1 and portrait.n_open == 0
    assert len(contents(tmp_path / "out.mp4")[0]) >= 12


def test_a_session_that_can_not_begin_says_why(tmp_path):
    speech = write_sound_file(tmp_path / "speech.wav", "pcm_s16le", np.zeros((1, 1_600)), 16_000)
    portrait = FakePortrait((32, 32))
    portrait.open_error = ValueError("features: expected something else")
    with pytest.raises(ValueError, match="features: expected something else"):
        serve(portrait, ServerOptions(port=0, audio=speech, once=True))


def self_signed(folder):
    """A certificate for 127.0.0.1, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    now = datetime.datetime.now(datetime.timezone.utc)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now).not_valid_after(now + datetime.timedelta(days=1))
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    certificate = builder.add_extension(address, critical=False).sign(key, hashes.SHA256())
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    for file, content in (("cert.pem", certificate.public_bytes(pem)), ("key.pem", private)):
        (folder / file).write_bytes(content)
    return folder / "cert.pem", folder / "key.pem"


def test_a_page_over_https(tmp_path):
    speech = write_sound_file(tmp_path / "speech.wav", "pcm_s16le", np.zeros((1, 16_000)), 16_000)
    certificate, key = self_signed(tmp_path)
    pages = []

    def visit(address):
        trusted = ssl.create_default_context(cafile=certificate)
        pages.append((address, urllib.request.urlopen(address, context=trusted, timeout=10).read()))

    visitor = []

    def on_start(address):
        visitor.append(threading.Thread(target=visit, args=(address,)))
        visitor[0].start()

    options = ServerOptions(port=0, audio=speech, once=True, certificate=certificate, certificate_key=key)
    serve(FakePortrait((32, 32)), options, on_start=on_start)
    visitor[0].join()
    ((address, page),) = pages
    assert address.startswith("https://127.0.0.1:") and page.startswith(b"<!doctype html>")


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "example.org"])
def test_an_address_of_its_own_is_shown_as_it_is(host):
    assert reachable_name(host) == host


def test_for_all_addresses_one_is_shown_that_others_reach(monkeypatch):
    class Socket(socket.socket):
        def connect(self, address):
            """There may be no network here."""

        def getsockname(self):
            return "192.0.2.7", 5

    monkeypatch.setattr(socket, "socket", Socket)
    assert reachable_name("0.0.0.0") == "192.0.2.7"
    monkeypatch.setattr(Socket, "connect", lambda *_: (_ for _ in ()).throw(OSError("no route")))
    assert reachable_name("0.0.0.0") == "0.0.0.0" and reachable_name("::") == "::"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"background": "red"}, "background: expected portrait"),
        ({"port": 70_000}, "port: expected 0 to 65535"),
        ({"max_sessions": 0}, "max-sessions"),
        ({"rate": 100}, "rate"),
        ({"look_ahead": float("nan")}, "look-ahead"),
        ({"look_ahead": 0.5}, "look-ahead: expected 0 to 0.24, got 0.5"),
        ({"certificate": "x"}, "with its key"),
        ({"audio": "x", "stdin": True}, "one source"),
        ({"once": True}, "once"),
        ({"record": "out.avi"}, "record: expected .mp4"),
        ({"rtmp": "file:///etc/passwd"}, "begins with rtmp://"),
        ({"rtmp": "rtmp:///live/key"}, "and a host, got rtmp:///live/key; pass e.g."),
        ({"rtmp": "rtmp://host:port/live"}, "and a host"),
    ],
)
def test_options_that_make_no_sense(options, message):
    from pathlib import Path

    paths = {name: Path(options[name]) for name in ("certificate", "audio", "record") if name in options}
    with pytest.raises(ValueError) as caught:
        ServerOptions(**{**options, **paths}).check()
    assert message in str(caught.value)


@pytest.mark.parametrize("name", ["audio", "certificate", "certificate_key"])
def test_a_recording_replaces_no_file_that_is_read(tmp_path, name):
    files = {key: tmp_path / f"{key}.mp4" for key in ("audio", "certificate", "certificate_key")}
    for path in files.values():
        path.touch()
    with pytest.raises(ValueError, match=r"it would replace the .* that is read; choose another name"):
        ServerOptions(**files, record=files[name]).check()
    ServerOptions(**files, record=tmp_path / "out.mp4").check()


def test_a_recording_does_not_replace_the_portrait(tmp_path, capsys):
    portrait, link = tmp_path / "portrait.eti", tmp_path / "out.mp4"
    portrait.touch()
    link.symlink_to(portrait)
    assert main(["live", str(portrait), "--record", str(link)]) == 1
    assert capsys.readouterr().err == f"{link}: it would replace the portrait that is read; choose another name\n"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--host", "nonsense.invalid"], "host: expected an address of this computer, got nonsense.invalid ("),
        (["--host", "x..y"], "host: expected an address of this computer, got x..y ("),
        (["--host", "192.0.2.1"], "host: expected an address of this computer, got 192.0.2.1 ("),
        (["--port", "TAKEN"], "port: expected a free one, got TAKEN, where another program listens; pass another, or"),
        (["--rtmp", "rtmp://nonsense.invalid/live/secret"], "rtmp: expected a server that takes a stream at nonsense."),
        (["--certificate", "PICTURE", "--certificate-key", "PICTURE"], "certificate: expected PEM files of a certifi"),
    ],
)
def test_network_errors_name_the_option_before_anything_is_loaded(tmp_path, capsys, options, message):
    portrait, picture = tmp_path / "portrait.eti", tmp_path / "picture.jpg"
    portrait.touch()  # it can't be loaded
    picture.write_bytes(b"\xff\xd8\xff\xe0" + bytes(100))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        number = str(taken.getsockname()[1])
        given = [{"TAKEN": number, "PICTURE": str(picture)}.get(option, option) for option in options]
        port = [] if "--port" in options else ["--port", "0"]
        assert main(["live", str(portrait), "--device", "cpu", *port, *given]) == 1
    error = capsys.readouterr().err
    assert error.startswith(message.replace("TAKEN", number)) and error.count("\n") == 1
    assert "; " in error and "secret" not in error and "None" not in error


@pytest.mark.skipif(sys.platform != "linux", reason="no folder that nobody can write to")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--audio", "TEXT"], "TEXT: ffmpeg can't read this as video or sound"),
        (["--record", "/proc/out.mp4"], "/proc/out.mp4: can't write to the folder /proc ("),
        (["--record", "LINK"], "LINK: can't write to the folder /proc ("),
        (["--camera"], "camera: expected the package pyvirtualcam, got "),
    ],
)
def test_sources_and_outputs_are_tried_before_the_portrait_is_loaded(tmp_path, capsys, monkeypatch, options, message):
    portrait, text, link = tmp_path / "portrait.eti", tmp_path / "speech.wav", tmp_path / "link.mp4"
    portrait.touch()  # it can't be loaded
    text.write_text("no sound")
    link.symlink_to("/proc/out.mp4")
    monkeypatch.setitem(sys.modules, "pyvirtualcam", None)
    given = [{"TEXT": str(text), "LINK": str(link)}.get(option, option) for option in options]
    assert main(["live", str(portrait), "--device", "cpu", "--port", "0", *given]) == 1
    error = capsys.readouterr().err
    assert error.startswith(message.replace("TEXT", str(text)).replace("LINK", str(link))) and error.count("\n") == 1


def test_an_address_that_is_taken_later_is_named_too():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        options = ServerOptions(port=taken.getsockname()[1])
        with pytest.raises(OSError, match=r"port: expected a free one, got \d+, where another program listens"):
            serve(FakePortrait((32, 32)), options)
