"""The record of a person's consent to a portrait: `consent.json` in a capture, an entry in a checkpoint.

    {
      "format_version": 1,
      "by": "Jane Doe",
      "date": "2026-11-01",
      "purpose": "narration of the museum's audio guide, until 2028",
      "document": {"name": "consent.pdf", "sha256": "9f86d08..."}
    }

`document`, which may be left out, names the signed paper; the paper itself stays where it is.
"""

import datetime
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ernerf_ti.media.files import file_digest, read_json, write_json

FORMAT_VERSION = 1
FILE_NAME = "consent.json"
_LONGEST = 2000  # characters
_UNPRINTABLE = {"Cc", "Cs", "Zl", "Zp"}  # categories of Unicode: controls, surrogates, line and paragraph separators
_SHA256 = re.compile("[0-9a-f]{64}")
_ADVICE = "correct it, or write the record again with `ernerf-ti preprocess --consent-by`"


@dataclass(frozen=True)
class Document:
    """The paper that a consent was given on."""

    name: str
    sha256: str
    """64 lower-case hexadecimal digits."""


@dataclass(frozen=True)
class Consent:
    """Who agreed to a portrait, when, and what for."""

    by: str
    """The person who is shown, or who may agree for them."""
    date: str
    """Day of the consent, YYYY-MM-DD."""
    purpose: str
    """What the portrait may be used for."""
    document: Document | None = None

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as in the file and in a checkpoint."""
        content = {"format_version": FORMAT_VERSION, **asdict(self)}
        return content if self.document else {name: value for name, value in content.items() if name != "document"}


def consent_of(content: object, where: str) -> Consent:
    """A record from plain values.

    Args:
        content: as :meth:`Consent.as_dict` returns it.
        where: file, and entry if there is one, for messages.

    Raises ValueError, naming the field, for anything else.
    """
    if not isinstance(content, dict):
        raise ValueError(f"{where}: expected a consent record, an object, got {type(content).__name__}; {_ADVICE}")
    version = content.get("format_version", FORMAT_VERSION)
    if version != FORMAT_VERSION:
        raise ValueError(
            f"{where}: expected format_version {FORMAT_VERSION} of the consent record, got {str(version)[:40]}; "
            "use the version of ernerf-ti that wrote it"
        )
    known = {"format_version", "by", "date", "purpose", "document"}
    if unknown := sorted(str(name)[:40] for name in content.keys() - known):
        raise ValueError(
            f"{where}: expected the fields by, date, purpose and document of a consent record, got "
            f"{', '.join(unknown[:3])} too; {_ADVICE}"
        )
    by, purpose = (_text(content, name, where) for name in ("by", "purpose"))
    document = content.get("document")
    if document is not None:
        if not isinstance(document, dict) or set(document) != {"name", "sha256"}:
            raise ValueError(f"{where}: document: expected an object with name and sha256, got another; {_ADVICE}")
        name, digest = _text(document, "name", f"{where}: document"), document["sha256"]
        if not isinstance(digest, str) or not _SHA256.fullmatch(digest):
            raise ValueError(
                f"{where}: document: expected sha256 as 64 hexadecimal digits in lower case, got {str(digest)[:70]!r}; "
                f"{_ADVICE}"
            )
        document = Document(name, digest)
    return Consent(by, _day(content, where), purpose, document)


def consent_in(checkpoint: Mapping[str, Any], path: Path) -> Consent | None:
    """The record in the content of a checkpoint; None if there is none.

    Raises ValueError, naming the file, for one that is not valid.
    """
    return consent_of(checkpoint["consent"], f"{path}: consent") if "consent" in checkpoint else None


def new_consent(by: str | None, date: str | None, purpose: str | None, document: Path | None) -> Consent | None:
    """A record from the options of a command; None if none of them was given.

    Args:
        by, date, purpose: see :class:`Consent`.
        document: file of which the name and the SHA-256 are recorded.

    Raises:
        ValueError: some but not all of `by`, `date` and `purpose` were given, or one is not valid.
        FileNotFoundError, IsADirectoryError: there is no such document.
    """
    given = {"--consent-by": by, "--consent-date": date, "--consent-purpose": purpose}
    missing = [name for name, value in given.items() if value is None]
    if len(missing) == len(given) and document is None:
        return None
    if missing:
        raise ValueError(f"{missing[0]}: expected it with the other options of a consent record, got none; add it")
    content: dict[str, object] = {"by": by, "date": date, "purpose": purpose}
    if document is not None:
        content["document"] = {"name": document.name, "sha256": file_digest(document)}
    return consent_of(content, "--consent")


def read_consent(capture: Path) -> Consent | None:
    """The record in a capture folder; None if there is none.

    Raises ValueError, naming the file, for one that is not valid.
    """
    path = Path(capture) / FILE_NAME
    return consent_of(read_json(path), str(path)) if path.exists() else None


def write_consent(capture: Path, consent: Consent) -> None:
    """Write `consent.json` into a capture folder; replaces an earlier record."""
    write_json(Path(capture) / FILE_NAME, consent.as_dict())


def _text(content: dict, name: str, where: str) -> str:
    value = content.get(name)
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{where}: expected {name} as a text that is not empty, got {_shown(value)}; {_ADVICE}")
    if len(value) > _LONGEST or any(unicodedata.category(character) in _UNPRINTABLE for character in value):
        what = f"{len(value)} characters" if len(value) > _LONGEST else "line breaks or control characters"
        raise ValueError(
            f"{where}: expected {name} in one line of at most {_LONGEST} characters, got {what}; {_ADVICE}"
        )
    return value.strip()


def _day(content: dict, where: str) -> str:
    value = content.get("date")
    try:
        # Newer versions of Python take other forms of ISO 8601 too.
        if isinstance(value, str) and re.fullmatch(r"\d{4}-\d\d-\d\d", value, re.ASCII):
            return datetime.date.fromisoformat(value).isoformat()
    except ValueError:
        pass
    raise ValueError(f"{where}: expected date as YYYY-MM-DD, such as 2026-11-01, got {_shown(value)}; {_ADVICE}")


def _shown(value: object) -> str:
    return "none" if value is None else repr(value)[:60]
