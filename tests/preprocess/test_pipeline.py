"""Stages run if and only if they are out of date."""

import json

import pytest

from ernerf_ti.preprocess.pipeline import Pipeline, Stage, StageError


class Kitchen:
    """source -> words -> (upper, count); runs are recorded."""

    def __init__(self, folder, option=1):
        self.folder, self.runs = folder / "out", []
        self.source = folder / "source.txt"
        (self.folder / "words").mkdir(parents=True, exist_ok=True)
        self.option = option
        self.stop_in = None

    def pipeline(self) -> Pipeline:
        artifacts = {"source": self.source, "words": "words/*.txt", "upper": "upper.txt", "count": "count.txt"}
        stages = [
            Stage("split", ("source",), ("words",), self.split, {}),
            Stage("shout", ("words",), ("upper",), self.shout, {"option": self.option}),
            Stage("count", ("words",), ("count",), self.count, {}),
        ]
        return Pipeline(self.folder, artifacts, stages)

    def split(self):
        self.runs.append("split")
        for i, word in enumerate(self.source.read_text().split()):
            if self.stop_in == i:
                raise KeyboardInterrupt
            if word == "bad":
                raise ValueError("source: expected good words, got bad; remove it")
            (self.folder / "words" / f"{i}.txt").write_text(word)

    def words(self):
        return [path.read_text() for path in sorted((self.folder / "words").glob("*.txt"))]

    def shout(self):
        self.runs.append("shout")
        (self.folder / "upper.txt").write_text(" ".join(self.words()).upper() + "!" * self.option)

    def count(self):
        self.runs.append("count")
        (self.folder / "count.txt").write_text(str(len(self.words())))

    def run(self, **options):
        self.runs.clear()
        self.pipeline().run(log=lambda text: None, **options)
        return list(self.runs)


@pytest.fixture
def kitchen(tmp_path):
    kitchen = Kitchen(tmp_path)
    kitchen.source.write_text("one two three")
    return kitchen


def test_runs_all_then_nothing(kitchen):
    assert kitchen.run() == ["split", "shout", "count"]
    assert (kitchen.folder / "upper.txt").read_text() == "ONE TWO THREE!"
    assert kitchen.run() == []


def test_changed_input_runs_what_depends_on_it(kitchen):
    kitchen.run()
    kitchen.source.write_text("one two")
    assert kitchen.run() == ["split", "shout", "count"]
    # The former third word is gone.
    assert (kitchen.folder / "count.txt").read_text() == "2"


def test_modification_time_is_ignored(kitchen):
    kitchen.run()
    kitchen.source.write_text("one two three")
    assert kitchen.run() == []


def test_changed_option_runs_its_stage_only(kitchen):
    kitchen.run()
    kitchen.option = 2
    assert kitchen.run() == ["shout"]


def test_missing_output_is_recreated(kitchen):
    kitchen.run()
    (kitchen.folder / "words" / "1.txt").unlink()
    assert kitchen.run() == ["split"]  # with the same words as before, so later stages are up to date


def test_leftovers_of_killed_runs_are_removed(kitchen):
    kitchen.run()
    leftover = kitchen.folder / "words" / f".1.{'0' * 16}.tmp.txt"
    leftover.write_text("half")
    (kitchen.folder / "words" / "1.txt").unlink()
    assert kitchen.run() == ["split"]
    assert not leftover.exists()


def test_edited_output_is_kept_and_used(kitchen):
    kitchen.run()
    (kitchen.folder / "words" / "1.txt").write_text("deux")
    assert kitchen.run() == ["shout", "count"]
    assert (kitchen.folder / "upper.txt").read_text() == "ONE DEUX THREE!"


@pytest.mark.parametrize("at", [0, 1, 2])
def test_interrupted_stage_starts_over(kitchen, at):
    kitchen.stop_in = at
    with pytest.raises(KeyboardInterrupt):
        kitchen.run()
    kitchen.stop_in = None
    assert kitchen.run() == ["split", "shout", "count"]
    assert kitchen.words() == ["one", "two", "three"]


def test_single_stage(kitchen):
    kitchen.run()
    assert kitchen.run(only="count") == ["count"]
    with pytest.raises(ValueError, match="stages: expected one of split, shout, count, got 'fry'"):
        kitchen.run(only="fry")


def test_only_needs_its_inputs(kitchen):
    with pytest.raises(
        StageError, match=r"stage count: expected words \(words/\*.txt\), got no such file; run stage split"
    ):
        kitchen.run(only="count")


def test_stages_that_can_run_on_their_own(kitchen):
    kitchen.pipeline().require_runnable(["split", "count"])
    with pytest.raises(StageError, match=r"stage count: expected words .* run stage split first"):
        kitchen.pipeline().require_runnable(["count", "split"])
    with pytest.raises(ValueError, match="stages: expected one of split, shout, count, got 'fry'"):
        kitchen.pipeline().require_runnable(["split", "fry"])
    assert kitchen.runs == []
    kitchen.run()
    kitchen.pipeline().require_runnable(["count", "split"])


def test_failure_names_stage_and_reason(kitchen):
    kitchen.source.write_text("one bad")
    with pytest.raises(StageError, match="stage split: source: expected good words, got bad; remove it"):
        kitchen.run()
    assert not (kitchen.folder / "upper.txt").exists()
    kitchen.source.write_text("one good")
    assert kitchen.run() == ["split", "shout", "count"]


def test_damaged_record_is_ignored(kitchen):
    kitchen.run()
    (kitchen.folder / "preprocess" / "stages" / "count.json").write_text("{")
    assert kitchen.run() == ["count"]
    assert json.loads((kitchen.folder / "preprocess" / "stages" / "count.json").read_text())["inputs"]


@pytest.mark.parametrize("content", [b"", b"damaged", None])
def test_changed_file_in_the_work_folder_is_recreated(tmp_path, content):
    work = tmp_path / "preprocess" / "numbers.txt"
    runs = []

    def write():
        runs.append(True)
        work.write_text("1 2 3")

    pipeline = Pipeline(
        tmp_path, {"numbers": "preprocess/numbers.txt"}, [Stage("numbers", (), ("numbers",), write, {})]
    )
    pipeline.run(log=lambda text: None)
    pipeline.run(log=lambda text: None)
    assert len(runs) == 1
    if content is None:
        work.unlink()
    else:
        work.write_bytes(content)
    pipeline.run(log=lambda text: None)
    assert len(runs) == 2 and work.read_text() == "1 2 3"


def test_an_input_that_is_an_output_is_refused(kitchen, tmp_path):
    kitchen.run()
    out, pipeline = kitchen.folder, kitchen.pipeline()
    (tmp_path / "link.txt").symlink_to(out / "upper.txt")
    (tmp_path / "folder").symlink_to(out / "words")
    refused = [out / "upper.txt", out / "words" / "1.txt", out / "words", out, tmp_path / "link.txt"]
    for path in [*refused, tmp_path / "folder", out / "words" / ".." / "count.txt"]:
        with pytest.raises(ValueError, match="which is made again; copy it to another place and pass the copy"):
            pipeline.require_kept([kitchen.source, path])
    (out / "words" / "notes.md").write_text("kept")
    pipeline.require_kept([kitchen.source, tmp_path, out / "words" / "notes.md", out / "none.txt"])
