"""What the viewer writes says that it is synthesized, and is signed."""

from dataclasses import replace

import av
import pytest

from ernerf_ti.media.provenance.manifest import read_manifest
from ernerf_ti.media.provenance.note import read_png_note
from ernerf_ti.media.provenance.signing import Signer
from ernerf_ti.media.provenance.signing_key import local_key
from ernerf_ti.synthesis.statement import statement
from ernerf_ti.synthesis.video import SYNTHESIZED

pytest.importorskip("c2pa")


def test_screenshots_and_recordings(viewer, tmp_path):
    signer = Signer(local_key(tmp_path / "key"), statement(viewer.trained))
    viewer.options = replace(viewer.options, signer=signer)
    viewer.act({"do": "screenshot"})
    viewer.act({"do": "record"})
    viewer.tick()
    viewer.act({"do": "record"})
    picture, video = viewer.written
    assert read_png_note(picture).items() >= SYNTHESIZED.items()
    with av.open(str(video)) as file:
        assert file.metadata["comment"] == SYNTHESIZED["comment"]
    for path in (picture, video):
        manifest = read_manifest(path)
        assert manifest.verdict == "valid"
        assert manifest.statement == {"portrait": {"run": "in training"}, "consent": None}
