"""The table of speakers: what it may hold, and errors that name the place."""

from functools import partial

import pytest

from ernerf_ti.batch.speakers import read_speakers
from ernerf_ti.cli.batch import _check_options
from ernerf_ti.cli.main import main


@pytest.fixture
def folder(tmp_path):
    for name in ("a.mp4", "b.mp4", "one.wav"):
        (tmp_path / name).write_text(name)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "one.wav").write_text("one")
    return tmp_path


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("", "line 1: expected a column name, got none"),
        ("name,sounds\na,one.wav\n", "line 1: expected a column video, got name, sounds"),
        ("name,video,voice\na,a.mp4,\n", "line 1, column 'voice': expected one of name, video"),
        ("name,video,video\na,a.mp4,a.mp4\n", "line 1, column video: it is there twice"),
        ("name,video\n", "expected at least one speaker, got a header alone"),
        ("name,video\na,a.mp4,one.wav\n", "line 2: more cells than columns"),
        ("name,video\na,a.mp4\nA,b.mp4\n", "line 3, column name: expected a name of its own, got 'A' again"),
        ("name,video\n../a,a.mp4\n", "line 2, column name: expected letters, digits"),
        ("name,video\n,a.mp4\n", "line 2, column name: expected letters, digits"),
        ("name,video\na,\n", "line 2, column video: expected a video or a capture folder, got nothing"),
        ("name,video\na,c.mp4\n", "line 2, column video: expected a video or a capture folder, got no such file"),
        ("name,video,sounds\na,a.mp4,one.wav; two.wav\n", "line 2, column sounds: expected a sound file, got no such"),
        (
            "name,video,sounds\na,a.mp4,one.wav;other/one.wav\n",
            "column sounds: expected sounds with names of",
        ),
        ("name,video,sounds\na,a.mp4,nope://one.wav\n", "line 2, column sounds: nope://one.wav: Protocol not known"),
        ("name,video,checks\na,a.mp4,maybe\n", "line 2, column checks: expected yes or no, got 'maybe'"),
        ("name,video,train\na,a.mp4,--head.iteratoins 5\n", "line 2, column train: --head.iteratoins 5: "),
        ("name,video,preprocess\na,a.mp4,--size big\n", "line 2, column preprocess: --size big: "),
        ("name,video,synthesize\na,a.mp4,--audio x.wav\n", "column synthesize: --audio can't be given in a table"),
        ("name,video,evaluate\na,a.mp4,--help\n", "line 2, column evaluate: --help can't be given in a table"),
        ("name,video,train\na,a.mp4,--seed '5\n", "line 2, column train: expected options as on a command line"),
        ('name,video\na,"a.mp4\n', "line 2: not valid CSV"),
        ("name,video\nindex.html,a.mp4\n", "line 2, column name: expected another name than those of the batch"),
        (
            "name,video\nSummary.JSON,a.mp4\n",
            "line 2, column name: expected another name than those of the batch",
        ),
        ("name,video\na,a\0.mp4\n", "line 2"),
        ("name,video,train\na,a.mp4,--features \0\n", "line 2"),
        ("name,video\na,loop.mp4\n", "line 2, column video: "),
        (
            "name,video,synthesize\na,a.mp4,--depth=d.mp4\n",
            "column synthesize: --depth=d.mp4 can't be given in a",
        ),
        ("name,video,synthesize\na,a.mp4,--attention d.mp4\n", "column synthesize: --attention can't be given in a"),
        ("name,video,synthesize\na,a.mp4,-od.mp4\n", "column synthesize: -od.mp4 can't be given in a table"),
        ("name,video,train\na,a.mp4,--frame-memory-gb nan\n", "column train: frame-memory-gb: expected 0 or more, got"),
        ("name,video,train\na,a.mp4,--smooth-path 2\n", "column train: smooth_path: expected an odd number of frames"),
        ("name,video,train\na,a.mp4,--device tpu\n", "column train: device: expected auto, cpu or cuda, got 'tpu'"),
        ("name,video,train\na,a.mp4,--features ''\n", "column train: ernerf-ti train CAPTURE RUN --features: expected"),
        ("name,video,preprocess\na,a.mp4,--size 65\n", "column preprocess: size: expected an even number of pixels"),
        ("name,video,preprocess\na,a.mp4,--features nope\n", "column preprocess: features: expected one of ppg, "),
        ("name,video,preprocess\na,a.mp4,--consent-by me\n", "column preprocess: --consent-date: expected it with"),
        ("name,video,synthesize\na,a.mp4,--crf 99\n", "line 2, column synthesize: crf: "),
        ("name,video,synthesize\na,a.mp4,--fps 0\n", "line 2, column synthesize: fps: "),
        ("name,video,synthesize\na,a.mp4,--dial smile=9\n", "line 2, column synthesize: dial: expected NAME=VALUE"),
        ("name,video,synthesize\na,a.mp4,--blink often\n", "synthesize: blink: expected capture, natural or a number"),
        ("name,video,synthesize\na,a.mp4,--blink nan\n", "synthesize: blink: expected capture, natural or a number"),
        ("name,video,synthesize\na,a.mp4,--seed -1\n", "line 2, column synthesize: --seed: expected 0 or more"),
        ("name,video,synthesize\na,a.mp4,--pose stil\n", "column synthesize: pose: expected a path that exists, got "),
        ("name,video,synthesize\na,a.mp4,--background '#12'\n", "background: expected a path that exists, got "),
        ("name,video,synthesize\na,a.mp4,--onto none.mp4\n", "synthesize: onto: expected a path that exists, got "),
        ("name,video,preprocess\na,a.mp4,--look-ahead inf\n", "preprocess: look-ahead: expected 0 to 30 seconds, got"),
        ("name,video,preprocess\na,a.mp4,--speech-layer 0\n", "preprocess: speech-layer: expected at least 1, got 0"),
        ("name,video,preprocess\na,a.mp4,--audio v.wav\n", "preprocess: audio: expected a path that exists, got "),
        ("name,video,evaluate\na,a.mp4,--frames 0\n", "line 2, column evaluate: frames: expected at least 1, got 0"),
        ("name,video,evaluate\na,a.mp4,--max-seconds nan\n", "column evaluate: max-seconds: expected at least 0.04"),
        ("name,video,evaluate\na,a.mp4,--seed -1\n", "line 2, column evaluate: --seed: expected 0 or more"),
        ("name,video,evaluate\na,a.mp4,--reference b.mp4\n", "evaluate: --reference belongs to --video, got a run"),
    ],
)
def test_errors_name_line_and_column(folder, capsys, table, message):
    (folder / "speakers.csv").write_text(table)
    (folder / "loop.mp4").symlink_to("loop.mp4")
    assert main(["batch", str(folder / "speakers.csv"), str(folder / "out")]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith(str(folder / "speakers.csv"))
    assert error.count("\n") == 1
    assert not (folder / "out").exists()


def test_paths_in_options_are_relative_to_the_table(folder, tmp_path_factory, monkeypatch):
    (folder / "poses.json").write_text("{}")
    (folder / "speakers.csv").write_text("name,video,synthesize\na,a.mp4,--pose poses.json --background '#102030'\n")
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    check = partial(_check_options, folder)
    (speaker,) = read_speakers(folder / "speakers.csv", check)
    assert speaker.options["synthesize"] == ("--pose", "poses.json", "--background", "#102030")


def test_what_belongs_to_the_other_engine_is_refused(folder, capsys):
    (folder / "speakers.csv").write_text("name,video\na,a.mp4\n")
    arguments = ["batch", str(folder / "speakers.csv"), str(folder / "out")]
    assert main([*arguments, "--address", "auto"]) == 2
    assert main([*arguments, "--engine", "ray", "--workers", "2"]) == 2
    assert main([*arguments, "--workers", "0"]) == 2
    assert "workers: expected 1 or more, got 0" in capsys.readouterr().err
    assert main(["batch", str(folder / "none.csv"), str(folder / "out")]) == 1
    assert "none.csv: expected a CSV file of speakers, got no such file" in capsys.readouterr().err
