"""Read the manifest of a signed file and check that the file is what was signed. No network is used."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ernerf_ti.media.files import require_file
from ernerf_ti.media.provenance.signing import BESIDE, EMBEDDED, LABEL, NO_NETWORK, c2pa_library, sidecar_path

Verdict = Literal["trusted", "valid", "changed", "invalid", "detached"]
EXPLANATIONS: dict[Verdict, str] = {
    "trusted": "the file is unchanged since it was signed, by a signer you trust",
    "valid": "the file is unchanged since it was signed; nothing shows who the signer is",
    "changed": "THE FILE WAS CHANGED after it was signed, or the manifest belongs to another file",
    "invalid": "THE MANIFEST CAN'T BE RELIED ON",
    "detached": "the manifest of a file that is not here, so that they can't be compared",
}
_LARGEST = 64 << 20  # bytes of a manifest beside its file
_UNTRUSTED = "signingCredential.untrusted"


@dataclass(frozen=True)
class Manifest:
    """What a manifest says, and whether that can be believed."""

    verdict: Verdict
    explanation: str
    problems: tuple[str, ...]
    """Codes of the C2PA specification, but for the one of a signer who is not known."""
    location: str
    """"in the file", or the name of the file beside it."""
    signer: str | None
    """Name and organization in the certificate."""
    generator: str | None
    """Program that made the manifest, and its version."""
    source_type: str | None
    """IPTC term for how the file was made."""
    when: str | None
    """Time by the clock of the signer's computer."""
    statement: dict[str, Any] | None
    """Portrait, sound and consent record, if ernerf-ti made the file."""

    @property
    def is_intact(self) -> bool | None:
        """Whether the file is what was signed; None if that can't be known."""
        return None if self.verdict == "detached" else self.verdict in ("trusted", "valid")


def read_manifest(path: Path, trust: Path | None = None) -> Manifest | None:
    """The manifest of a file, in it or beside it; None if there is none.

    Args:
        path: a video or picture of any kind, or a .c2pa file, which is compared with the file beside it.
        trust: PEM file with certificates of authorities whose signers are trusted.

    Raises:
        ImportError: the extra is missing.
        FileNotFoundError, IsADirectoryError, ValueError: no such file, or certificates that can't be read.
    """
    c2pa = c2pa_library()
    settings: dict[str, Any] = dict(NO_NETWORK)
    if trust is not None:
        require_file(trust, "certificates as PEM", "check --trust")
        settings["trust"] = {"trust_anchors": trust.read_text(encoding="ascii", errors="replace")}
    try:
        context = c2pa.Context.from_dict(settings)
    except c2pa.C2paError as error:
        raise ValueError(f"{trust}: expected certificates as PEM, got another file ({_line(error)})") from None
    path = require_file(path, "a video, a picture or a manifest", "check the path")
    if path.suffix.lower() == ".c2pa":
        return _read_sidecar(c2pa, path, context)
    try:
        with open(path, "rb") as file:
            reader = c2pa.Reader.try_create(EMBEDDED.get(path.suffix.lower()), file, context=context)
            if reader is not None:
                with reader:
                    return _manifest(reader, "in the file")
    except c2pa.C2paError.NotSupported:  # this kind of file can't carry one
        pass
    except c2pa.C2paError as error:
        return _unreadable(error, "in the file")
    beside = sidecar_path(path)
    media_type = BESIDE.get(path.suffix.lower())
    return _of_both(c2pa, path, media_type, beside, context) if media_type and beside.is_file() else None


def _read_sidecar(c2pa: Any, path: Path, context: Any) -> Manifest:
    for suffix, media_type in BESIDE.items():
        if path.with_suffix(suffix).is_file():
            return _of_both(c2pa, path.with_suffix(suffix), media_type, path, context)
    try:
        with open(path, "rb") as file, c2pa.Reader("application/c2pa", file, context=context) as reader:
            return _manifest(reader, path.name, detached=True)
    except c2pa.C2paError as error:
        return _unreadable(error, path.name)


def _of_both(c2pa: Any, path: Path, media_type: str, beside: Path, context: Any) -> Manifest:
    if beside.stat().st_size > _LARGEST:
        raise ValueError(f"{beside}: expected a manifest of at most {_LARGEST >> 20} MiB, got a larger file")
    try:
        with open(path, "rb") as file, c2pa.Reader(media_type, file, beside.read_bytes(), context=context) as reader:
            return _manifest(reader, beside.name)
    except c2pa.C2paError as error:
        return _unreadable(error, beside.name)


def _manifest(reader: Any, location: str, detached: bool = False) -> Manifest:
    try:
        active = reader.get_active_manifest() or {}
        results = reader.get_validation_results() or {}
        state = reader.get_validation_state()
    except (KeyError, ValueError) as error:  # a store without a manifest
        return _unreadable(error, location)
    failures = results.get("activeManifest", {}).get("failure", [])
    codes = dict.fromkeys(str(failure.get("code")) for failure in failures)
    problems = [code for code in codes if code != _UNTRUSTED]
    if detached:  # of no file there is no hash
        problems = [code for code in problems if not code.endswith("Hash.mismatch")]
    verdict: Verdict
    if state != "Invalid" and not problems:
        verdict = "trusted" if state == "Trusted" else "valid"
    elif any(code.endswith("mismatch") for code in problems):
        verdict = "changed"
    else:
        verdict = "invalid"
    if detached and not problems:
        verdict = "detached"
    signature = active.get("signature_info") or {}
    generators = active.get("claim_generator_info") or [{}]
    assertions = active.get("assertions") or []
    statement = next((found["data"] for found in assertions if str(found.get("label")).startswith(LABEL)), None)
    action = _creation(assertions)
    return Manifest(
        verdict,
        EXPLANATIONS[verdict],
        tuple(problems),
        location,
        _joined(signature.get("common_name"), signature.get("issuer")),
        _joined(generators[0].get("name"), generators[0].get("version"), " "),
        action.get("digitalSourceType"),
        action.get("when"),
        statement if isinstance(statement, dict) else None,
    )


def _unreadable(error: Exception, location: str) -> Manifest:
    return Manifest("invalid", EXPLANATIONS["invalid"], (_line(error),), location, None, None, None, None, None)


def _creation(assertions: list[dict[str, Any]]) -> Mapping[str, Any]:
    for assertion in assertions:
        if str(assertion.get("label")).startswith("c2pa.actions"):
            for action in assertion.get("data", {}).get("actions", []):
                if action.get("action") == "c2pa.created":
                    return action
    return {}


def _joined(first: str | None, second: str | None, separator: str = ", ") -> str | None:
    return separator.join(part for part in (first, second) if part) or None


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
