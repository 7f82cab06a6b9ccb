"""The pages use the field's terms, American spelling and existing files."""

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("docs/**/*.ipynb")])
OLD_WORDS = (
    r"senones?|eye[ _]area|identity codes?|conditioning|ambient audio|background plate|the plate|calm"
    r"|foreign (audio|voice)|there and back|take away|forms of the head|opening r\b|over[ _-]noise|lips[ _-]share"
    r"|net[ _-]rate|final[ _-]rate"
)
BRITISH = (
    r"\w*colour\w*|\w*(optim|normal|initial|recogn|synthes|standard|regular|serial)is(e|es|ed|er|ing|ation)\b|grey"
    r"|neighbour\w*|centre[sd]?|metres?|licence|behaviour"
)
RENAMES = re.compile(r"^(##+) Renamed.*?(?=^\1 |\Z)", re.DOTALL | re.MULTILINE)
"""Sections that give old names on purpose."""


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_terms_and_spelling(path):
    text = RENAMES.sub("", path.read_text())
    for pattern in (OLD_WORDS, BRITISH):
        assert [match[0] for match in re.finditer(rf"\b({pattern})", text, re.IGNORECASE)] == []


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_images_have_a_description_and_exist(path):
    for description, target in re.findall(r"!\[([^\]]*)\]\(([^)]+)\)", path.read_text()):
        assert len(description) > 10, target
        assert (path.parent / target).exists(), target


def test_citation_and_issue_forms_are_yaml():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["cff-version"] == "1.2.0" and citation["references"][0]["type"] == "conference-paper"
    for form in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"):
        if form.name != "config.yml":
            fields = yaml.safe_load(form.read_text())
            assert {"name", "description", "body"} <= set(fields), form
    for workflow in (ROOT / ".github" / "workflows").glob("*.yml"):
        assert yaml.safe_load(workflow.read_text())["jobs"], workflow
