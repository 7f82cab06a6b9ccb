"""`ernerf-ti inspect`: what it shows of every kind of file, from the consent in a capture to the signed video."""

import dataclasses
import json
import shutil
import sys

import av
import numpy as np
import pytest
import torch
from PIL import Image

import ernerf_ti
from ernerf_ti.cli.main import main
from ernerf_ti.data.capture import open_capture
from ernerf_ti.data.capture_files import write_sound
from ernerf_ti.data.synthetic.portrait_writers import write_portrait_capture
from ernerf_ti.data.synthetic.synthetic_portrait import SyntheticPortrait
from ernerf_ti.media.files import file_digest
from ernerf_ti.media.images import write_image
from ernerf_ti.media.provenance.consent import Consent, read_consent, write_consent
from ernerf_ti.media.provenance.note import COMPOSITE_TYPE, SOURCE_TYPE
from ernerf_ti.media.video_writer import write_video
from ernerf_ti.train.config import PRESETS
from ernerf_ti.train.trainer import Trainer
from tests.cli.test_main import loaded_after

pytest.importorskip("c2pa")

CAMERA_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/digitalCapture"
XMP = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description><Iptc4xmpExt:DigitalSourceType>{}'
    "</Iptc4xmpExt:DigitalSourceType></rdf:Description></x:xmpmeta>"
)
XMP_WITHOUT_TYPE = '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description/></x:xmpmeta>'
CONSENT = Consent("Jane Doe", "2026-11-01", "narration of an audio guide")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A capture with a consent record, a run of it, a sound, and what it says as a video with a sidecar and as PNGs."""
    folder = tmp_path_factory.mktemp("inspect")
    write_portrait_capture(SyntheticPortrait(12, 32, seed=4), folder / "capture")
    write_consent(folder / "capture", CONSENT)
    Trainer(open_capture(folder / "capture"), PRESETS["small"], folder / "run").save()
    write_sound(folder / "speech.wav", np.sin(np.arange(1600) * 0.05) * 0.3)
    for output in ("out.mp4", "out.webm", "pictures"):
        assert main([*synthesize(folder), "-o", str(folder / output), "--provenance", "require"]) == 0
    return folder


def synthesize(folder):
    return ["synthesize", str(folder / "run"), "--audio", str(folder / "speech.wav"), "--device", "cpu"]


def inspected(capsys, *arguments, status=0):
    """The facts as JSON; the text has the same."""
    capsys.readouterr()
    assert main(["inspect", *map(str, arguments), "--json"]) == status
    facts = json.loads(capsys.readouterr().out)
    assert main(["inspect", *map(str, arguments)]) == status
    assert f"kind: {facts['kind']}\n" in capsys.readouterr().out
    return facts


def test_a_capture_and_a_run(made, capsys):
    facts = inspected(capsys, made / "capture")
    assert (facts["kind"], facts["consent"], facts["size"]) == ("capture", CONSENT.as_dict(), "32x32")
    for path in (made / "run", made / "run" / "checkpoint.pt"):
        facts = inspected(capsys, path)
        assert (facts["kind"], facts["consent"]) == ("trained portrait", CONSENT.as_dict())
        assert facts["training"] == {"stage": "head", "step": 0, "stage_finished": False}
        assert facts["options"]["head"]["iterations"] == 24 * 10  # of ten training frames, in the preset small
        assert facts["ernerf-ti"] == ernerf_ti.__version__
        assert facts["sha256"] == file_digest(made / "run" / "checkpoint.pt")
        assert facts["capture"]["folder"] == str(made / "capture")


@pytest.mark.parametrize(("name", "location"), [("out.mp4", "in the file"), ("out.webm", "out.c2pa")])
def test_a_video(made, capsys, name, location):
    facts = inspected(capsys, made / name)
    assert (facts["kind"], facts["synthesized"], facts["intact"]) == ("video", True, True)
    assert facts["video"]["size"] == "32x32" and facts["video"]["frames per second"] == 25
    manifest = facts["manifest"]
    assert (manifest["verdict"], manifest["location"]) == ("valid", location)
    digest = {of: file_digest(made / of) for of in ("run/checkpoint.pt", "speech.wav")}
    assert manifest["statement"] == {
        "portrait": {"run": "run", "checkpoint_sha256": digest["run/checkpoint.pt"]},
        "sound": {"name": "speech.wav", "sha256": digest["speech.wav"]},
        "consent": CONSENT.as_dict(),
    }
    if name == "out.webm":
        assert inspected(capsys, made / "out.c2pa")["manifest"] == manifest


def test_a_title_that_is_not_utf_8(tmp_path, capsys):
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as file:
        file.metadata["title"] = "Title"
        stream = file.add_stream("pcm_s16le", rate=8000)
        stream.layout = "mono"
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), "s16", "mono")
        frame.sample_rate = 8000
        file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    path.write_bytes(path.read_bytes().replace(b"Title", b"Tit\xffe"))
    assert inspected(capsys, path)["note"]["title"] == "Tit\ufffde"


def test_pictures(made, capsys):
    n = len(list((made / "pictures").iterdir()))
    facts = inspected(capsys, made / "pictures")
    assert (facts["pictures"], facts["said to be synthesized"], facts["manifests"]) == (n, n, {"valid": n})
    assert facts["manifest"]["statement"]["consent"]["by"] == "Jane Doe"
    assert inspected(capsys, made / "pictures" / "00000.png")["manifest"]["statement"] == facts["manifest"]["statement"]


@pytest.mark.parametrize("suffix", [".jpg", ".webp"])
@pytest.mark.parametrize("source_type", [SOURCE_TYPE, COMPOSITE_TYPE, CAMERA_TYPE, None])
def test_pictures_that_other_programs_marked(tmp_path, capsys, suffix, source_type):
    path = tmp_path / f"picture{suffix}"
    image = Image.fromarray(np.full((8, 12, 3), 90, np.uint8))
    packet = "" if source_type is None else XMP.format(source_type)
    packet = (XMP_WITHOUT_TYPE + packet).encode()  # a thumbnail may have one of its own
    image.save(path, **({"xmp": packet} if suffix == ".webp" else {}))
    if suffix == ".jpg":
        data, segment = path.read_bytes(), b"http://ns.adobe.com/xap/1.0/\0" + packet
        path.write_bytes(data[:2] + b"\xff\xe1" + (len(segment) + 2).to_bytes(2, "big") + segment + data[2:])
    facts = inspected(capsys, path)
    assert facts["picture"] == "12x8"
    assert facts["synthesized"] == (source_type in (SOURCE_TYPE, COMPOSITE_TYPE))
    assert facts["note"] == ({} if source_type is None else {"digitalSourceType": source_type})


def test_pictures_in_the_current_folder(tmp_path, capsys, monkeypatch):
    folder = tmp_path / "frames"
    folder.mkdir()
    write_image(folder / "0.png", np.zeros((4, 6, 3), np.uint8))
    monkeypatch.chdir(folder)
    assert main(["inspect", "."]) == 0
    assert capsys.readouterr().out.startswith("file: frames\nkind: folder of pictures\n")


def test_a_changed_file(made, tmp_path, capsys):
    shutil.copytree(made / "pictures", tmp_path / "pictures")
    shutil.copy(made / "out.mp4", tmp_path)
    for path in (tmp_path / "out.mp4", tmp_path / "pictures" / "00001.png"):
        content = bytearray(path.read_bytes())
        # In the pixels, of which decoders notice nothing; of a PNG in the alpha's checksum, which cv2 takes.
        position = content.index(b"mdat") + 60 if path.suffix == ".mp4" else content.index(b"jumb") + 900
        content[position] ^= 1
        path.write_bytes(content)
    facts = inspected(capsys, tmp_path / "out.mp4", status=1)
    assert (facts["intact"], facts["manifest"]["verdict"]) == (False, "changed")
    assert "CHANGED" in facts["manifest"]["explanation"]
    facts = inspected(capsys, tmp_path / "pictures", status=1)
    assert facts["intact"] is False and facts["not intact"] == ["00001.png"]


def test_without_consent_and_signature(made, tmp_path, capsys):
    """A record that is removed from the capture stays in the portrait; one without it says so."""
    content = torch.load(made / "run" / "checkpoint.pt", weights_only=True)
    del content["consent"]
    (tmp_path / "run").mkdir()
    torch.save(content, tmp_path / "run" / "checkpoint.pt")
    shutil.copy(made / "speech.wav", tmp_path)
    capsys.readouterr()
    out = tmp_path / "out.mp4"
    assert main([*synthesize(tmp_path), "-o", str(out), "--provenance", "off"]) == 0
    assert capsys.readouterr().err.count("no consent record; docs/responsible_use.md says how to add one") == 1
    facts = inspected(capsys, out)
    assert (facts["synthesized"], facts["manifest"], facts["intact"]) == (True, "none", None)
    assert main(["inspect", str(tmp_path / "run")]) == 0
    assert "consent: no consent record\n" in capsys.readouterr().out


def test_without_the_extra(made, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "c2pa", None)
    facts = inspected(capsys, made / "out.mp4")
    assert facts["synthesized"] and facts["intact"] is None
    assert "not checked (" in facts["manifest"] and "pip install 'ernerf-ti[c2pa]'" in facts["manifest"]
    out = tmp_path / "out.mp4"
    capsys.readouterr()
    assert main([*synthesize(made), "-o", str(out)]) == 0
    assert capsys.readouterr().err.count("provenance: outputs are not signed") == 1
    out.unlink()
    assert main([*synthesize(made), "-o", str(out), "--provenance", "require"]) == 1
    assert "expected the package c2pa-python" in capsys.readouterr().err and not out.exists()


def test_a_wrong_key_is_reported_before_rendering(made, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("ernerf_ti.synthesis.video.synthesize", lambda *arguments: pytest.fail("rendered"))
    (tmp_path / "key.pem").write_text("no key")
    arguments = ["--sign-key", str(tmp_path / "key.pem"), "--sign-certificate", str(tmp_path / "key.pem")]
    capsys.readouterr()
    assert main([*synthesize(made), "-o", str(tmp_path / "out.mp4"), *arguments]) == 1
    assert "key.pem: expected a private key as PEM" in capsys.readouterr().err.splitlines()[-1]


def test_the_record_survives_a_resumed_training(made, tmp_path, capsys):
    for name in ("capture", "run"):
        shutil.copytree(made / name, tmp_path / name)
    (tmp_path / "capture" / "consent.json").unlink()
    Trainer.resume(open_capture(tmp_path / "capture"), tmp_path / "run").save()
    assert inspected(capsys, tmp_path / "run")["consent"] == CONSENT.as_dict()
    later = dataclasses.replace(CONSENT, purpose="another guide")
    write_consent(tmp_path / "capture", later)
    Trainer.resume(open_capture(tmp_path / "capture"), tmp_path / "run").save()
    assert inspected(capsys, tmp_path / "run")["consent"] == later.as_dict()
    (tmp_path / "capture" / "consent.json").write_text('{"by": "Jane Doe"}')
    capsys.readouterr()
    assert main(["train", str(tmp_path / "capture"), str(tmp_path / "run"), "--resume"]) == 1
    assert "consent.json: expected purpose as a text that is not empty, got none" in capsys.readouterr().err


def test_preprocess_writes_the_record(tmp_path, capsys):
    video, capture = tmp_path / "gray.mp4", tmp_path / "capture"
    write_video(video, [np.full((64, 64, 3), 90, np.uint8)] * 3, 25, np.zeros(1920, np.float32))
    arguments = ["preprocess", str(video), str(capture), "--stages", "crop", "--crop", "0,0,64"]
    consent = ["--consent-by", "Jane Doe", "--consent-date", "2026-11-01"]
    assert main([*arguments, *consent]) == 2
    assert "--consent-purpose: expected it with the other options" in capsys.readouterr().err
    assert not capture.exists()
    assert main([*arguments, *consent, "--consent-purpose", CONSENT.purpose]) == 0
    assert read_consent(capture) == CONSENT
    assert main(arguments) == 0  # does not take it away
    assert read_consent(capture) == CONSENT


def test_files_of_any_kind_end_in_one_line(made, tmp_path, capsys):
    generator = np.random.default_rng(0)
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.txt").write_text("nothing")
    paths = [tmp_path / "none", tmp_path / "empty", tmp_path / "text.txt"]
    for source in ("out.mp4", "out.webm", "out.c2pa", "pictures/00000.png", "speech.wav", "run/checkpoint.pt"):
        content = (made / source).read_bytes()
        for k in range(6):
            path = tmp_path / f"{k}{(made / source).suffix}"
            changed = bytearray(content[: generator.integers(len(content)) if k % 2 else None])
            for position in generator.integers(0, max(1, len(changed)), 20):
                if position < len(changed):
                    changed[position] = generator.integers(256)
            path.write_bytes(changed)
            paths.append(path)
    for path in paths:
        capsys.readouterr()
        status = main(["inspect", str(path)])
        printed = capsys.readouterr()
        assert status in (0, 1), path
        assert printed.out or printed.err.count("\n") == 1, path


def test_a_video_loads_nothing_heavy(made):
    lines = [["inspect", str(made / name)] for name in ("out.mp4", "out.c2pa", "pictures", "capture")]
    assert loaded_after(lines) == [(0, [])] * len(lines)
