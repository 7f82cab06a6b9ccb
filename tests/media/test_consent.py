"""The record of a person's consent: written, read and refused."""

import hashlib
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ernerf_ti.media.provenance.consent import (
    Consent,
    Document,
    consent_in,
    consent_of,
    new_consent,
    read_consent,
    write_consent,
)

GOOD = {"by": "Zoë Doe", "date": "2026-11-01", "purpose": "an audio guide"}


def test_round_trip(tmp_path):
    assert read_consent(tmp_path) is None
    paper = tmp_path / "paper.pdf"
    paper.write_bytes(b"signed")
    consent = new_consent("Zoë Doe", "2026-11-01", " an audio guide ", paper)
    digest = hashlib.sha256(b"signed").hexdigest()
    assert consent == Consent("Zoë Doe", "2026-11-01", "an audio guide", Document("paper.pdf", digest))
    write_consent(tmp_path, consent)
    assert read_consent(tmp_path) == consent == consent_of(consent.as_dict(), "here")
    assert json.loads((tmp_path / "consent.json").read_text())["format_version"] == 1
    write_consent(tmp_path, consent_of(GOOD, "by hand, without a version"))
    assert read_consent(tmp_path).document is None
    assert "document" not in read_consent(tmp_path).as_dict()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"by": None}, "expected by as a text that is not empty, got none"),
        ({"by": "  "}, "expected by as a text that is not empty, got '  '"),
        ({"purpose": 5}, "expected purpose as a text that is not empty, got 5"),
        ({"purpose": "a\nb"}, "expected purpose in one line of at most 2000 characters, got line breaks"),
        ({"purpose": "a\x1b[2Jb"}, "got line breaks or control characters"),
        ({"purpose": "x" * 2001}, "expected purpose in one line of at most 2000 characters, got 2001 characters"),
        ({"date": "1.11.2026"}, "expected date as YYYY-MM-DD, such as 2026-11-01, got '1.11.2026'"),
        ({"date": "2026-02-30"}, "expected date as YYYY-MM-DD"),
        ({"date": "20261101"}, "expected date as YYYY-MM-DD"),
        ({"date": 20261101}, "expected date as YYYY-MM-DD"),
        ({"format_version": 2}, "expected format_version 1 of the consent record, got 2; use the version"),
        ({"until": "2028"}, "expected the fields by, date, purpose and document of a consent record, got until too"),
        ({"document": "paper.pdf"}, "document: expected an object with name and sha256"),
        ({"document": {"name": "a", "sha256": "A" * 64}}, "document: expected sha256 as 64 hexadecimal digits"),
        ({"document": {"name": "", "sha256": "a" * 64}}, "document: expected name as a text"),
    ],
)
def test_records_that_are_refused(tmp_path, change, message):
    path = tmp_path / "consent.json"
    path.write_text(json.dumps(GOOD | change))
    with pytest.raises(ValueError) as error:
        read_consent(tmp_path)
    assert str(error.value).startswith(f"{path}: ") and message in str(error.value) and "\n" not in str(error.value)
    with pytest.raises(ValueError, match=r"run\.pt: consent: "):
        consent_in({"consent": GOOD | change}, "run.pt")


def test_a_file_that_is_no_record(tmp_path):
    (tmp_path / "consent.json").write_text("[]")
    with pytest.raises(ValueError, match="expected a consent record, an object, got list"):
        read_consent(tmp_path)
    (tmp_path / "consent.json").write_text("{")
    with pytest.raises(ValueError, match=r"consent.json: not valid JSON"):
        read_consent(tmp_path)


def test_options_belong_together(tmp_path):
    assert new_consent(None, None, None, None) is None
    with pytest.raises(ValueError, match="--consent-date: expected it with the other options of a consent record"):
        new_consent("Jane", None, "a test", None)
    with pytest.raises(ValueError, match="--consent-by: expected it"):
        new_consent(None, None, None, tmp_path)
    with pytest.raises(FileNotFoundError, match=r"paper\.pdf"):
        new_consent("Jane", "2026-11-01", "a test", tmp_path / "paper.pdf")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=40, deadline=None)
@given(content=json_values | st.fixed_dictionaries({}, optional={name: json_values for name in [*GOOD, "document"]}))
def test_any_content_is_read_or_refused(content):
    problem = ""
    try:
        consent = consent_of(content, "here")
    except ValueError as error:
        problem = str(error)
    if problem:
        assert problem.startswith("here: ") and "\n" not in problem
    else:
        assert consent_of(consent.as_dict(), "here") == consent
