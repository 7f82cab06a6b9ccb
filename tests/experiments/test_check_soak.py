"""The measures of long use on a Linux system, with few files and a second of speech."""

from pathlib import Path

import pytest

from ernerf_ti.experiments import check_kills, check_soak


@pytest.mark.skipif(not Path("/proc/self/statm").is_file(), reason="needs /proc")
def test_files_and_speech(tmp_path):
    check_soak.prepare(tmp_path)
    usages = list(check_soak.opened_and_closed(tmp_path, 40))
    assert len(usages) == 40 and usages[-1].files == usages[20].files
    text = check_soak.table("40 files", usages)
    assert (
        text.splitlines()[0] == "| 40 files | s | memory, MB | threads | open files |" and len(text.splitlines()) == 5
    )
    check_soak.synthesized(tmp_path, 1.0)
    assert (tmp_path / "speech.mp4").is_file()


def test_outcome_of_kills():
    outcome = check_kills.Outcome("train", 10.0, 2.0, attempts=3, kills=2, equal=3)
    assert outcome.passed
    assert check_kills.table([outcome]).splitlines()[2] == "| train | 10.0 | 2 | 3 of 3 | 0 |"
    outcome.leftovers = 1
    assert not outcome.passed
