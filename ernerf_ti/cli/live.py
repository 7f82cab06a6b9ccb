"""Serve a live portrait: a web page over WebRTC, sound from a microphone, a file, a pipe or a program.

    ernerf-ti live portrait.eti
    ernerf-ti live portrait.eti --audio speech.wav --record speaking.mp4 --once
    ernerf-ti live portrait.eti --stdin --rate 24000 --rtmp rtmp://example.org/live/key
    ernerf-ti live portrait.eti --host 0.0.0.0 --certificate cert.pem --certificate-key key.pem

Open the address that is printed. Other computers need the last form, and the token in the address.
docs/live_server.md has the protocol for programs.
"""

import sys
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from ernerf_ti.cli.options import Command, Device, Flat, Positional
from ernerf_ti.cli.paths import existing_file, make_parent, output_file
from ernerf_ti.cli.running import UsageError
from ernerf_ti.cli.signing_options import SigningOptions
from ernerf_ti.live_server.access import Access
from ernerf_ti.live_server.listening import check_network
from ernerf_ti.live_server.options import ServerOptions
from ernerf_ti.media.files import require_not_replaced
from ernerf_ti.portrait.config import check_mouth_gain
from ernerf_ti.process.device import resolve_device


@dataclass(frozen=True, kw_only=True)
class LiveOptions(ServerOptions):
    """Options of `ernerf-ti live`."""

    portrait: Positional[Path]
    """Baked portrait of `ernerf-ti bake`, or a run folder of `ernerf-ti train`."""
    device: Device = "auto"
    """Device to render on; auto is CUDA if torch can use it, else the CPU."""
    motion_seconds: float | None = None
    """Seconds of the capture whose head motion is played forward and backward; by default all of it, and 10 for a baked
    portrait on the CPU, which keeps these poses in memory."""
    mouth_gain: float | None = None
    """How far the mouth moves with the sound, 0 to 3: with 1 as in training, with more further. By default the
    portrait's own, which the preset small sets to 1.15."""
    signing: Flat[SigningOptions] = field(default_factory=SigningOptions)


def _check(options: LiveOptions) -> None:
    options.check()
    check_mouth_gain(options.mouth_gain)
    Access.of(options.host, options.token, options.origin)
    if options.motion_seconds is not None and not options.motion_seconds > 0:
        raise UsageError(f"motion-seconds: expected more than 0, got {options.motion_seconds:g}; pass e.g. 10")


def _live(options: LiveOptions) -> None:
    if not options.portrait.exists():
        existing_file(options.portrait, "a baked portrait or a run folder")
    for path, what in (
        (options.audio, "a sound file"),
        (options.certificate, "a certificate"),
        (options.certificate_key, "a private key"),
    ):
        if path is not None:
            existing_file(path, what)
    if options.record is not None:
        require_not_replaced(options.portrait, "portrait", options.record)
        make_parent(output_file(options.record))
    check_network(options.host, options.port, options.certificate, options.certificate_key, options.rtmp)
    device = resolve_device(options.device)
    try:
        import aiohttp  # noqa: F401
        import aiortc  # noqa: F401
    except ImportError as error:
        raise ImportError(f"live: expected aiohttp and aiortc, got {error}; pip install 'ernerf-ti[live]'") from None

    from ernerf_ti.live import LivePortrait
    from ernerf_ti.live_server.serving import serve
    from ernerf_ti.live_server.sinks import require_camera
    from ernerf_ti.media.sound import probe_sound
    from ernerf_ti.synthesis.statement import statement

    # What can be known is found out before the portrait is prepared, which takes a minute.
    if options.audio is not None:
        probe_sound(options.audio)
    if options.camera:
        require_camera()
    portrait = LivePortrait.open(
        options.portrait, device=device, motion_seconds=options.motion_seconds, mouth_gain=options.mouth_gain
    )
    if portrait.trained.consent is None:
        print(f"{options.portrait}: no consent record; docs/responsible_use.md says how to add one", file=sys.stderr)
    signer = None
    if options.record is not None:
        signer = options.signing.signer(partial(statement, portrait.trained, options.audio))
    for path in serve(portrait, options, signer.sign if signer else None):
        print(path)
    for path in signer.finish() if signer else []:
        print(path)


main = Command(
    "live",
    LiveOptions,
    _live,
    __doc__,
    important=(
        *("portrait", "host", "port", "token", "max_sessions", "background", "mouth_gain", "audio", "stdin", "rate"),
        *("once", "record", "rtmp", "camera", "watermark", "device"),
    ),
    check=_check,
    interrupted="interrupted",
)
