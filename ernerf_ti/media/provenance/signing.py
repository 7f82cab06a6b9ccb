"""Sign outputs after the standard of the Coalition for Content Provenance and Authenticity (C2PA).

A signed file carries a manifest: that a trained model created it, with which portrait and which sound, and the consent
record. Any change to the file after that shows. Files that can't carry a manifest get it as a file beside them. No
network is used: no time stamp service, and no download of manifests or revocation lists.

Needs the package c2pa-python, the extra `c2pa`.
"""

import datetime
import io
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import cv2
import numpy as np

import ernerf_ti
from ernerf_ti.media.provenance.note import SOURCE_TYPE
from ernerf_ti.media.provenance.signing_key import SigningKey, local_key, own_key
from ernerf_ti.media.whole_files import replacing

Provenance = Literal["auto", "off", "require"]
"""Whether outputs are signed: auto where it can be done, require with an error where it can't."""
LABEL = "io.github.ernerf-ti.synthesis"
"""Name of our statement in a manifest."""
NO_NETWORK = {"verify": {"remote_manifest_fetch": False, "ocsp_fetch": False}}
"""Settings of the C2PA library."""
EMBEDDED = {".mp4": "video/mp4", ".mov": "video/quicktime", ".png": "image/png"}
"""Media types of files that carry their manifest, by suffix."""
BESIDE = {".webm": "video/webm", ".mkv": "video/x-matroska"}
"""Media types of files whose manifest lies beside them."""
INSTALL = "pip install 'ernerf-ti[c2pa]'"
_SETTINGS = NO_NETWORK | {"builder": {"thumbnail": {"enabled": False}}}


def c2pa_library() -> ModuleType:
    """The package c2pa; raises ImportError, with what to install, if it or what it needs is missing."""
    try:
        import c2pa
        import cryptography.x509  # noqa: F401
    except (ImportError, OSError) as error:  # OSError: its library is not for this system
        raise ImportError(f"signing: expected the package c2pa-python, got {error}; {INSTALL}") from None
    return c2pa


def sidecar_path(path: Path) -> Path:
    """Where the manifest of a file that can't carry it lies: the same name with the suffix .c2pa, as C2PA has it."""
    return path.with_suffix(".c2pa")


class UnsignedError(OSError):
    """An output that had to be signed was not; the file is there."""


class Signer:
    """Signs the outputs of a command.

    Args:
        key: to sign with.
        statement: plain values that name the portrait, the sound and the consent.
        mode: what :meth:`finish` does about files that could not be signed.
        source_type: the IPTC term for how the outputs came about.

    Raises:
        ImportError: the extra is missing.
        ValueError: the key or its certificates can't sign, found out by signing a small picture.
    """

    def __init__(
        self,
        key: SigningKey,
        statement: Mapping[str, Any],
        mode: Provenance = "auto",
        source_type: str = SOURCE_TYPE,
    ):
        self._c2pa = c2pa_library()
        self._statement, self._mode, self._source_type = dict(statement), mode, source_type
        self._problems: list[str] = []
        self._sidecars: list[Path] = []
        _, picture = cv2.imencode(".png", np.zeros((1, 1), np.uint8))
        try:
            info = self._c2pa.C2paSignerInfo(key.algorithm.encode(), key.certificates, key.private_key, None)
            self._signer = self._c2pa.Signer.from_info(info)
            self._context = self._c2pa.Context.from_dict(_SETTINGS)
            self._sign(io.BytesIO(picture.tobytes()), io.BytesIO(), "picture.png", "image/png", True)
        except self._c2pa.C2paError as error:
            raise ValueError(
                f"{key.source}: expected a key and certificates that C2PA can sign with, got an error of its library "
                f"({_line(error)}); see the C2PA certificate profile for what a certificate must have"
            ) from None

    def sign(self, path: Path, temporary: Path | None = None) -> None:
        """Sign a complete file; raises nothing, as the file is good without a signature.

        Args:
            path: name of the file. In formats that can't carry a manifest it is written beside that.
            temporary: where the file is until it gets its name; None for `path`. It is replaced by the signed one, or
                left as it is.
        """
        temporary = path if temporary is None else temporary
        suffix = path.suffix.lower()
        media_type = EMBEDDED.get(suffix) or BESIDE.get(suffix)
        if media_type is None:
            self._problems.append(f"{path}: not signed: C2PA has no way to sign {suffix or 'such'} files")
            return
        try:
            with open(temporary, "rb") as source:
                if suffix in EMBEDDED:
                    with replacing(temporary) as signed, open(signed, "w+b") as target:
                        self._sign(source, target, path.name, media_type, True)
                else:
                    with open(os.devnull, "w+b") as nowhere:
                        manifest = self._sign(source, nowhere, path.name, media_type, False)
                    with replacing(sidecar_path(path)) as beside:
                        beside.write_bytes(manifest)
                    self._sidecars.append(sidecar_path(path))
        except (OSError, self._c2pa.C2paError) as error:
            self._problems.append(f"{path}: not signed: {_line(error)}")

    def finish(self) -> list[Path]:
        """Say on stderr what was not signed; to be called when all outputs are complete.

        Returns:
            The manifests that lie beside their files.

        Raises UnsignedError in the mode require if an output was not signed: it was written all the same.
        """
        sidecars, self._sidecars = self._sidecars, []
        if not self._problems:
            return sidecars
        problems, self._problems = self._problems, []
        more = f" (and {len(problems) - 1} others)" if len(problems) > 1 else ""
        if self._mode == "require":
            raise UnsignedError(f"{problems[0]}{more}; the output is complete otherwise")
        print(f"warning: {problems[0]}{more}", file=sys.stderr)
        return sidecars

    def _sign(self, source: Any, target: Any, name: str, media_type: str, embed: bool) -> bytes:
        builder = self._c2pa.Builder(self._manifest(name), context=self._context)
        if not embed:
            builder.set_no_embed()
        return builder.sign(self._signer, media_type, source, target)

    def _manifest(self, name: str) -> dict[str, Any]:
        agent = {"name": "ernerf-ti", "version": ernerf_ti.__version__}
        action = {
            "action": "c2pa.created",
            "when": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "softwareAgent": agent,
            "digitalSourceType": self._source_type,
        }
        return {
            "claim_generator_info": [agent],
            "title": name,
            "assertions": [
                {"label": "c2pa.actions.v2", "data": {"actions": [action]}},
                {"label": LABEL, "data": self._statement},
            ],
        }


def make_signer(
    mode: Provenance,
    key: Path | None,
    certificate: Path | None,
    statement: Callable[[], Mapping[str, Any]],
    source_type: str = SOURCE_TYPE,
) -> Signer | None:
    """What signs the outputs of a command; None if nothing is signed.

    Args:
        mode: "off" for nothing; with "auto" a line on stderr says why it can't be done.
        key, certificate: the user's, see :func:`ernerf_ti.media.provenance.signing_key.own_key`; by default those that
            the environment variables ERNERF_TI_SIGN_KEY and ERNERF_TI_SIGN_CERTIFICATE name, or else the local key.
        statement: returns that of :class:`Signer`; not called if nothing is signed.
        source_type: as of :class:`Signer`.

    Raises:
        ImportError, OSError, ValueError: it can't be done, in the mode require or with the user's own key.
    """
    if mode == "off":
        return None
    key, certificate = (
        given or (Path(os.environ[name]) if os.environ.get(name) else None)
        for given, name in ((key, "ERNERF_TI_SIGN_KEY"), (certificate, "ERNERF_TI_SIGN_CERTIFICATE"))
    )
    if (key is None) != (certificate is None):
        lacking, other = ("--sign-key", certificate) if key is None else ("--sign-certificate", key)
        raise ValueError(f"{lacking}: expected it together with {other}, got none; pass both")
    try:
        c2pa_library()
        chosen = local_key() if key is None or certificate is None else own_key(key, certificate)
        return Signer(chosen, statement(), mode, source_type)
    except (ImportError, OSError, ValueError) as error:
        if mode == "require" or key is not None:
            raise
        print(f"provenance: outputs are not signed ({_line(error)}); --provenance off hides this", file=sys.stderr)
        return None


def _line(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror if error.filename is None else f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split())[:300] or type(error).__name__
