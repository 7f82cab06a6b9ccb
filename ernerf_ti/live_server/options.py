"""Options of the server, without torch and without the packages of the extra `live`."""

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from ernerf_ti.audio.windows import LONGEST_LOOK_AHEAD, LOOK_AHEAD
from ernerf_ti.live_server.protocol import RATES, read_background
from ernerf_ti.media.files import require_not_replaced

RECORDING_SUFFIXES = (".mp4", ".mkv", ".mov", ".webm")


@dataclass(frozen=True, kw_only=True)
class ServerOptions:
    """What is served to whom, and where else sound comes from and pictures go."""

    host: str = "127.0.0.1"
    """Address to listen on. Any but this computer's own needs the token, which is printed."""
    port: int = 8080
    """Port to listen on; 0 for any that is free."""
    token: str | None = None
    """What pages and programs must show, at least 16 characters; by default none on this computer alone, and else one
    that is made anew."""
    origin: tuple[str, ...] = ()
    """Other web pages that may open sessions, as https://example.org."""
    certificate: Path | None = None
    """PEM file with a certificate, to serve HTTPS, which browsers on other computers require for a microphone."""
    certificate_key: Path | None = None
    """PEM file with the private key of --certificate."""
    max_sessions: int = 2
    """Portraits that are rendered at the same time, each for one page."""
    background: str = "portrait"
    """Behind the person at first: portrait for the background of the capture, transparent, or a color as #rrggbb."""
    look_ahead: float = LOOK_AHEAD
    """Sound that is heard before its frame is rendered, in seconds, 0 to 0.24; less answers sooner, with worse lips."""
    audio: Path | None = None
    """Sound or video file to speak."""
    stdin: bool = False
    """Speak 16-bit mono samples from standard input as they come."""
    rate: int = 16_000
    """Samples per second of --stdin."""
    once: bool = False
    """End when --audio or --stdin has been spoken."""
    record: Path | None = None
    """Video file to record to, with sound: .mp4, .mkv, .mov or .webm. It appears at the end."""
    rtmp: str | None = None
    """Address to stream to, such as rtmp://host/application/key."""
    camera: bool = False
    """Show the portrait as a virtual camera; needs the extra camera."""
    watermark: bool = False
    """Write "synthesized" on the picture."""
    note: bool = True
    """Say in every answer, in the session description and in a data channel that the picture is synthesized."""

    @property
    def is_shared(self) -> bool:
        """Whether there is one session for everybody, that of the sources and outputs here."""
        return self.audio is not None or self.stdin or self.record is not None or self.rtmp is not None or self.camera

    def check(self) -> None:
        """Raise ValueError for options that make no sense or don't go together."""
        read_background(self.background)
        for name, value, low, high in (
            ("port", self.port, 0, 65_535),
            ("max-sessions", self.max_sessions, 1, 64),
            ("rate", self.rate, *RATES),
            ("look-ahead", self.look_ahead, 0, LONGEST_LOOK_AHEAD),
        ):
            if not low <= value <= high:
                raise ValueError(f"{name}: expected {low} to {high}, got {value:g}; pass another value")
        if (self.certificate is None) != (self.certificate_key is None):
            raise ValueError("certificate: expected it with its key, got one; pass --certificate and --certificate-key")
        if self.audio is not None and self.stdin:
            raise ValueError("stdin: expected one source, got --audio as well; leave one out")
        if self.once and self.audio is None and not self.stdin:
            raise ValueError("once: it is for --audio and --stdin, which were not given; pass one, or leave it out")
        if self.record is not None and self.record.suffix.lower() not in RECORDING_SUFFIXES:
            raise ValueError(f"record: expected {', '.join(RECORDING_SUFFIXES)}, got {self.record}")
        for given, what in (
            (self.audio, "audio file"),
            (self.certificate, "certificate"),
            (self.certificate_key, "private key"),
        ):
            if given is not None and self.record is not None:
                require_not_replaced(given, what, self.record)
        if self.rtmp is not None and not _is_rtmp(self.rtmp):
            raise ValueError(
                f"rtmp: expected an address that begins with rtmp:// or rtmps:// and a host, got {self.rtmp}; pass "
                "e.g. rtmp://host/application/key"
            )


def _is_rtmp(url: str) -> bool:
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises ValueError for what is no number
    except ValueError:
        return False
    return parts.scheme in ("rtmp", "rtmps") and bool(parts.hostname)
