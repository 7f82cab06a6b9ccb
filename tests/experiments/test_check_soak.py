"""The measures of long use on a Linux system, with few files and a second of speech."""

from pathlib import Path

import numpy as np
import pytest

from ernerf_ti.experiments import check_kills, check_soak
from ernerf_ti.media.video_writer import write_video
from ernerf_ti.train.trainer import Trainer
from tests.train.conftest import capture, config  # noqa: F401, fixtures


@pytest.mark.skipif(not Path("/proc/self/statm").is_file(), reason="needs /proc")
def test_files_and_speech(capture, config, tmp_path):  # noqa: F811
    (tmp_path / "capture").symlink_to(capture.folder)
    Trainer(capture, config, tmp_path / "run").save()
    write_video(tmp_path / "speaker.mp4", [np.zeros((16, 16, 3), np.uint8)] * 3, 25, np.zeros(1920, np.float32))
    usages = list(check_soak.opened_and_closed(tmp_path, 40))
    assert len(usages) == 40 and usages[-1].files == usages[20].files
    lines = check_soak.table("40 files", usages).splitlines()
    assert lines[0] == "| 40 files | s | memory, MB | threads | open files |" and len(lines) == 5
    check_soak.synthesized(tmp_path, 0.2)
    assert (tmp_path / "speech.mp4").is_file()


def test_outcome_of_kills():
    outcome = check_kills.Outcome("train", 10.0, 2.0, attempts=3, kills=2, equal=3)
    assert outcome.passed
    assert check_kills.table([outcome]).splitlines()[2] == "| train | 10.0 | 2 | 3 of 3 | 0 |"
    outcome.leftovers = 1
    assert not outcome.passed
