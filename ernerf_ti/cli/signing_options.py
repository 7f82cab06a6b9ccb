"""Options of commands that write what a portrait says: whether and with which key it is signed."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ernerf_ti.media.provenance.note import SOURCE_TYPE
from ernerf_ti.media.provenance.signing import Provenance, Signer, make_signer


@dataclass(frozen=True)
class SigningOptions:
    """How outputs are signed."""

    provenance: Provenance = "auto"
    """Sign outputs with a C2PA manifest, which names the portrait, the sound and the consent record: auto if the
    package c2pa-python is installed, require with an error if it can't be done."""
    sign_key: Path | None = None
    """PEM file with your private key; by default the one that ERNERF_TI_SIGN_KEY names, or else a key that is made on
    this computer at the first use."""
    sign_certificate: Path | None = None
    """PEM file with the certificates of --sign-key; by default the one that ERNERF_TI_SIGN_CERTIFICATE names."""

    def signer(self, statement: Callable[[], Mapping[str, Any]], source_type: str = SOURCE_TYPE) -> Signer | None:
        """What signs the outputs; see :func:`ernerf_ti.media.provenance.signing.make_signer`."""
        return make_signer(self.provenance, self.sign_key, self.sign_certificate, statement, source_type)
