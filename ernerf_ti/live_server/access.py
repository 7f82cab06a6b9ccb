"""Who may talk to the server: the address it was called by, the page that calls, and the token."""

import hmac
import ipaddress
import re
import secrets
from dataclasses import dataclass
from urllib.parse import urlsplit

COOKIE = "ernerf_ti_live"
SHORTEST_TOKEN = 16
_LOCAL_NAMES = {"localhost", "127.0.0.1", "::1"}


def is_local(host: str) -> bool:
    """Whether only this computer reaches an address."""
    if host in _LOCAL_NAMES:
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@dataclass(frozen=True)
class Access:
    """Rules of one server."""

    host: str
    """Address that the server is bound to."""
    token: str | None
    """None if none is needed."""
    origins: frozenset[str] = frozenset()
    """Pages of other servers that may open sessions, such as `https://example.org`."""

    @classmethod
    def of(cls, host: str, token: str | None = None, origins: tuple[str, ...] = ()) -> "Access":
        """Rules for an address; makes a token if one is needed and there is none.

        Raises ValueError for a token that can be guessed, or an origin that is none.
        """
        if token is not None and (len(token) < SHORTEST_TOKEN or not token.isascii() or not token.isprintable()):
            raise ValueError(
                f"token: expected at least {SHORTEST_TOKEN} ASCII characters; leave it out to have one made"
            )
        for origin in origins:
            parts = urlsplit(origin)
            if not re.fullmatch("https?://[^/?#@]+", origin) or parts.hostname is None:
                raise ValueError(f"origin: expected scheme and host as https://example.org, got {origin}")
        if token is None and not is_local(host):
            token = secrets.token_urlsafe(24)
        return cls(host, token, frozenset(origins))

    def refuses_host(self, host: str) -> str | None:
        """Why a request with this Host header is refused; None if it is not.

        A page of another site can have its name resolved to this computer. The browser then sends that name.
        """
        name = _host_name(host)
        if name is None:
            return "Host: expected the address of this server"
        if is_local(self.host):
            allowed = is_local(name) or name == self.host or any(_host_name(_netloc(o)) == name for o in self.origins)
            return None if allowed else "Host: expected localhost, as the server is bound to this computer alone"
        return None  # the token protects it

    def refuses_origin(self, origin: str | None, scheme: str, host: str) -> str | None:
        """Why a request from a page of this origin is refused; None if it is not. Programs send no Origin."""
        if origin is None or origin == f"{scheme}://{host}" or origin in self.origins:
            return None
        return "Origin: expected a page of this server; start it with --origin to allow another one"

    def accepts_token(self, *given: str | None) -> bool:
        """Whether one of these is the token, or none is needed."""
        if self.token is None:
            return True
        wanted = self.token.encode()
        return any([text is not None and hmac.compare_digest(text.encode(errors="replace"), wanted) for text in given])


def _netloc(origin: str) -> str:
    return urlsplit(origin).netloc


def _host_name(host: str) -> str | None:
    if not re.fullmatch(r"[\w.:\[\]-]+", host, re.ASCII):
        return None
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None
