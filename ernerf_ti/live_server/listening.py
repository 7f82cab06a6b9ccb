"""Where the server listens and streams to, checked before anything is loaded. Without torch and the extra `live`."""

import errno
import ipaddress
import os
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

_NOT_HERE = {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}


def check_network(
    host: str, port: int, certificate: Path | None = None, key: Path | None = None, rtmp: str | None = None
) -> None:
    """Whether a server could listen, and knows the computer that it streams to; nothing is sent.

    Args:
        host, port, certificate, key, rtmp: the options of the server.

    Raises:
        OSError: the address is none of this computer, or the port is taken; or the other one has no known address.
        ValueError: the certificate or its key can't be used.
    """
    tls_context(certificate, key)
    with naming_address(host, port):
        missing: list[OSError] = []
        addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, kind, protocol, _, address in addresses:
            try:
                with socket.socket(family, kind, protocol) as one:
                    if os.name == "posix":  # as the server does: the port of one that has just ended is free
                        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    if family == socket.AF_INET6:
                        one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                    one.bind(address)
            except OSError as error:
                if error.errno not in _NOT_HERE:
                    raise
                missing.append(error)
        if len(missing) == len(addresses):
            raise missing[0]
    if rtmp is not None:
        try:
            socket.getaddrinfo(urlsplit(rtmp).hostname, None)
        except (OSError, UnicodeError) as error:
            raise stream_error(rtmp, error) from None


@contextmanager
def naming_address(host: str, port: int) -> Iterator[None]:
    """Errors of listening on an address name the option, its value and what to do."""
    try:
        yield
    except (OSError, UnicodeError) as error:
        reason, number = _reason(error), getattr(error, "errno", None)
        if number == errno.EADDRINUSE:
            text = f"port: expected a free one, got {port}, where another program listens; pass another, or 0 for any"
        elif number == errno.EACCES:
            text = f"port: expected one that this user may listen on, got {port} ({reason}); pass e.g. 8080"
        else:
            text = (
                f"host: expected an address of this computer, got {host} ({reason}); pass e.g. 127.0.0.1, or 0.0.0.0 "
                "for all that it has"
            )
        raise OSError(text) from None


def reachable_name(host: str) -> str:
    """How other computers reach a server that listens on an address: for all addresses of this computer (0.0.0.0, ::)
    the one that its packets to others leave from, if it has one; else the address itself."""
    try:
        if not ipaddress.ip_address(host).is_unspecified:
            return host
    except ValueError:  # a name
        return host
    family, elsewhere = (socket.AF_INET6, "2001:db8::1") if ":" in host else (socket.AF_INET, "192.0.2.1")
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as one:
            one.connect((elsewhere, 9))  # chooses a route; nothing is sent
            return str(one.getsockname()[0])
    except OSError:
        return host


def tls_context(certificate: Path | None, key: Path | None) -> ssl.SSLContext | None:
    """Serves HTTPS; None without a certificate. Raises ValueError for files that can't be used."""
    if certificate is None or key is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(certificate, key)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"certificate: expected PEM files of a certificate and its key, got {certificate} and {key} "
            f"({getattr(error, 'reason', None) or _reason(error)}); pass --certificate and --certificate-key of one "
            "pair"
        ) from None
    return context


def stream_error(url: str, error: Exception) -> OSError:
    """The error for a stream that nobody takes. It does not tell the path of the address, which holds the key."""
    address = urlsplit(url).netloc.rpartition("@")[2]
    return OSError(
        f"rtmp: expected a server that takes a stream at {address}, got none ({_reason(error)}); check the address, "
        "and that the server runs"
    )


def _reason(error: Exception) -> str:
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(text.split()) or type(error).__name__
