"""Signed outputs: what they say, that a change shows, keys that can and can't sign, and the note in each container."""

import datetime
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ernerf_ti.media.images import read_image
from ernerf_ti.media.provenance.manifest import read_manifest
from ernerf_ti.media.provenance.note import SOURCE_TYPE, png_size, read_png_note, write_synthesized_png
from ernerf_ti.media.provenance.signing import Signer, UnsignedError, make_signer, sidecar_path
from ernerf_ti.media.provenance.signing_key import local_key, new_key, own_key
from ernerf_ti.media.video_formats import VIDEO_SUFFIXES
from ernerf_ti.media.video_writer import write_video
from ernerf_ti.synthesis.video import SYNTHESIZED

pytest.importorskip("c2pa")

STATEMENT = {
    "portrait": {"run": "speaker", "checkpoint_sha256": "0" * 64},
    "sound": {"name": "Grüße.wav", "sha256": "1" * 64},
    "consent": {"format_version": 1, "by": "Jane Doe", "date": "2026-11-01", "purpose": "a test"},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("key")


@pytest.fixture
def signer(folder):
    return Signer(local_key(folder), STATEMENT)


def write(path: Path) -> Path:
    image = np.random.default_rng(0).integers(0, 255, (48, 64, 4), np.uint8)
    if path.suffix == ".png":
        write_synthesized_png(path, image, SYNTHESIZED)
    else:
        frames = [image[..., :3] if path.suffix in (".mp4", ".mkv") else image] * 3
        write_video(path, frames, 25, np.zeros(1920, np.float32), metadata=SYNTHESIZED)
    return path


def certificates(expires_in_days: float) -> tuple[bytes, bytes]:
    """A key and a chain of the kind that is made here."""
    now = datetime.datetime.now(datetime.timezone.utc)
    content = new_key(now + datetime.timedelta(expires_in_days - 3650))
    begin = content.index(b"-----BEGIN CERTIFICATE")
    return content[:begin], content[begin:]


def pair(folder: Path, key: bytes, chain: bytes) -> tuple[Path, Path]:
    paths = folder / "key.pem", folder / "chain.pem"
    for path, content in zip(paths, (key, chain), strict=True):
        path.write_bytes(content)
    return paths


@pytest.mark.parametrize("suffix", [*VIDEO_SUFFIXES, ".png"])
def test_a_signed_file_says_how_it_was_made(signer, tmp_path, suffix):
    path = write(tmp_path / f"Ein Bild: Größe{suffix}")
    before = path.read_bytes()
    assert read_manifest(path) is None
    signer.sign(path)
    sidecars = signer.finish()
    assert sidecars == ([sidecar_path(path)] if suffix in (".webm", ".mkv") else [])
    assert (path.read_bytes() == before) == bool(sidecars)
    assert sorted(tmp_path.iterdir()) == sorted([path, *sidecars])
    manifest = read_manifest(path)
    assert (manifest.verdict, manifest.problems, manifest.is_intact) == ("valid", (), True)
    assert manifest.statement == STATEMENT
    assert manifest.source_type == SOURCE_TYPE
    assert manifest.generator.startswith("ernerf-ti ") and "self-made" in manifest.signer
    assert manifest.location == (sidecars[0].name if sidecars else "in the file")
    # And it is as good as before, with its note.
    if suffix == ".png":
        assert read_image(path).shape == (48, 64, 4) and png_size(path) == (64, 48)
        assert read_png_note(path) == {**SYNTHESIZED, "digitalSourceType": SOURCE_TYPE}
    else:
        with av.open(f"file:{path}") as file:
            tags = {name.lower(): text for name, text in file.metadata.items()}
            assert {name: tags[name] for name in SYNTHESIZED} == SYNTHESIZED
            assert len(list(file.decode(video=0))) == 3
        with av.open(f"file:{path}") as file:
            assert sum(frame.samples for frame in file.decode(audio=0)) >= 1920


@pytest.mark.parametrize("suffix", [*VIDEO_SUFFIXES, ".png"])
def test_one_changed_bit_shows(signer, tmp_path, suffix):
    path = write(tmp_path / f"a{suffix}")
    n = path.stat().st_size
    signer.sign(path)
    signed, generator = path.read_bytes(), np.random.default_rng(1)
    # The manifest comes after the header, which the standard leaves out of MP4's hash.
    begin = len(signed) - n + 100
    for position in [begin, len(signed) - 1, *generator.integers(begin, len(signed), 25)]:
        changed = bytearray(signed)
        changed[position] ^= 1 << int(generator.integers(8))
        path.write_bytes(changed)
        manifest = read_manifest(path)
        assert manifest.verdict in ("changed", "invalid") and manifest.is_intact is False, position
        if position == begin:
            assert manifest.verdict == "changed" and "CHANGED" in manifest.explanation


def test_the_manifest_of_another_file_shows(signer, tmp_path):
    first, second = write(tmp_path / "a.webm"), tmp_path / "b.webm"
    write_video(second, [np.zeros((16, 16, 4), np.uint8)], 25)
    signer.sign(first)
    sidecar_path(first).rename(sidecar_path(second))
    assert read_manifest(first) is None
    assert read_manifest(second).verdict == read_manifest(sidecar_path(second)).verdict == "changed"
    second.unlink()
    alone = read_manifest(sidecar_path(second))
    assert (alone.verdict, alone.is_intact, alone.statement) == ("detached", None, STATEMENT)
    sidecar_path(second).write_bytes(b"nothing")
    assert read_manifest(sidecar_path(second)).verdict == "invalid"


def test_a_trusted_authority(signer, folder, tmp_path):
    path = write(tmp_path / "a.png")
    signer.sign(path)
    chain = local_key(folder).certificates
    authority = tmp_path / "authority.pem"
    authority.write_bytes(chain[chain.rindex(b"-----BEGIN") :])
    assert read_manifest(path, authority).verdict == "trusted"
    other = certificates(100)[1]
    authority.write_bytes(other[other.rindex(b"-----BEGIN") :])
    assert read_manifest(path, authority).verdict == "valid"


def test_files_that_can_not_be_signed_stay_as_they_are(folder, tmp_path, capsys):
    other, damaged = tmp_path / "a.avi", tmp_path / "a.mp4"
    for mode in ("auto", "require"):
        signer = Signer(local_key(folder), STATEMENT, mode)
        for path in (other, damaged):
            path.write_bytes(b"no video")
            signer.sign(path)
            assert path.read_bytes() == b"no video"
        assert sorted(tmp_path.iterdir()) == [other, damaged]
        if mode == "require":
            with pytest.raises(UnsignedError, match=r"a.avi: not signed: .*and 1 others.*the output is complete"):
                signer.finish()
        else:
            assert signer.finish() == []
            assert capsys.readouterr().err.startswith(f"warning: {other}: not signed: C2PA has no way to sign .avi")


def test_a_key_is_made_once_and_kept_to_its_owner(tmp_path):
    barrier = Barrier(6)

    def first_use(_) -> bytes:
        barrier.wait()
        return local_key(tmp_path / "new" / "config").private_key

    with ThreadPoolExecutor(6) as pool:
        assert len(set(pool.map(first_use, range(6)))) == 1
    (path,) = (tmp_path / "new" / "config").iterdir()
    assert path.stat().st_mode & 0o777 == 0o600
    assert b"BEGIN PRIVATE KEY" in path.read_bytes()
    path.chmod(0o640)
    with pytest.raises(PermissionError, match="its owner alone can read, got mode 640; run chmod 600"):
        local_key(path.parent)


def test_the_users_own_key(tmp_path, monkeypatch):
    key, chain = pair(tmp_path, *certificates(300))
    out, authority = write(tmp_path / "a.png"), tmp_path / "authority.pem"
    authority.write_bytes(chain.read_bytes()[chain.read_bytes().rindex(b"-----BEGIN") :])
    monkeypatch.setenv("ERNERF_TI_SIGN_KEY", str(key))
    monkeypatch.setenv("ERNERF_TI_SIGN_CERTIFICATE", str(chain))
    for options in ((None, None), (key, chain)):
        make_signer("require", *options, lambda: STATEMENT).sign(out)
        assert read_manifest(out, authority).verdict == "trusted"
    monkeypatch.delenv("ERNERF_TI_SIGN_CERTIFICATE")
    with pytest.raises(ValueError, match=r"--sign-certificate: expected it together with .*key.pem, got none"):
        make_signer("auto", None, None, lambda: STATEMENT)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("expired", r"chain.pem: expected certificates that are valid now, got one that has expired \("),
        ("future", r"chain.pem: expected certificates that are valid now, got one that is not valid yet \("),
        ("foreign", r"chain.pem: expected the certificate of the key .*key.pem first, got that of another key"),
        ("encrypted", r"key.pem: expected a private key that is not encrypted"),
        ("no key", r"key.pem: expected a private key as PEM, got another file"),
        ("no chain", r"chain.pem: expected a certificate chain as PEM, got another file"),
        ("small RSA", r"key.pem: expected an elliptic curve key .* got .*RSA"),
        ("alone", r"key.pem and .*chain.pem: expected a key and certificates that C2PA can sign with, got"),
        ("none", r"key.pem: expected a private key as PEM, got no such file; check --sign-key"),
    ],
)
def test_keys_that_can_not_sign(tmp_path, kind, message):
    key, chain = certificates({"expired": -1, "future": 2 * 3650}.get(kind, 300))
    if kind == "foreign":
        chain = certificates(300)[1]
    elif kind in ("encrypted", "small RSA", "alone"):
        key, chain = special(kind, key, chain)
    elif kind == "no key":
        key = b"\0key"
    elif kind == "no chain":
        chain = key
    key_path, chain_path = pair(tmp_path, key, chain)
    if kind == "none":
        key_path.unlink()
    for mode in ("auto", "require"):
        with pytest.raises((ValueError, OSError), match=message):
            make_signer(mode, key_path, chain_path, lambda: STATEMENT)


def special(kind: str, key: bytes, chain: bytes) -> tuple[bytes, bytes]:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec, rsa

    pem, form, plain = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    if kind == "encrypted":
        loaded = serialization.load_pem_private_key(key, None)
        return loaded.private_bytes(pem, form, serialization.BestAvailableEncryption(b"secret")), chain
    private = rsa.generate_private_key(65537, 1024) if kind == "small RSA" else ec.generate_private_key(ec.SECP256R1())
    name, now = x509.Name([]), datetime.datetime.now(datetime.timezone.utc)
    alone = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(private.public_key())
    alone = alone.serial_number(1).not_valid_before(now - datetime.timedelta(1))
    alone = alone.not_valid_after(now + datetime.timedelta(1)).sign(private, hashes.SHA256())
    return private.private_bytes(pem, form, plain), alone.public_bytes(pem)


def test_own_key_names_its_algorithm(tmp_path):
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    from ernerf_ti.media.provenance.signing_key import _algorithm

    assert own_key(*pair(tmp_path, *certificates(300))).algorithm == "es256"
    assert _algorithm(ec.generate_private_key(ec.SECP384R1()), "key") == "es384"
    assert _algorithm(ed25519.Ed25519PrivateKey.generate(), "key") == "ed25519"
    assert _algorithm(rsa.generate_private_key(65537, 2048), "key") == "ps256"


def test_modes_where_signing_is_not_possible(tmp_path, monkeypatch, capsys):
    def never():
        raise AssertionError("no statement is needed")

    assert make_signer("off", None, None, never) is None
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "file" / "config"))
    (tmp_path / "file").write_text("in the way")
    assert make_signer("auto", None, None, never) is None
    assert "provenance: outputs are not signed (" in capsys.readouterr().err
    with pytest.raises(OSError):
        make_signer("require", None, None, never)
    monkeypatch.setitem(sys.modules, "c2pa", None)
    assert make_signer("auto", None, None, never) is None
    line = capsys.readouterr().err
    assert (
        "expected the package c2pa-python" in line and "pip install 'ernerf-ti[c2pa]'" in line and line.count("\n") == 1
    )
    with pytest.raises(ImportError, match="c2pa-python"):
        make_signer("require", None, None, never)


@pytest.mark.skipif(os.geteuid() == 0 if hasattr(os, "geteuid") else True, reason="root may write everywhere")
def test_a_read_only_home(tmp_path, monkeypatch, capsys):
    tmp_path.chmod(0o500)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    assert make_signer("auto", None, None, dict) is None
    assert "Permission denied" in capsys.readouterr().err


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_damaged_pictures_have_no_note_or_a_whole_one(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "note.png"
    write_synthesized_png(path, np.zeros((2, 2, 3), np.uint8), SYNTHESIZED)
    content = bytearray(path.read_bytes())
    for position in data.draw(st.lists(st.integers(0, len(content) - 1), max_size=4)):
        content[position] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    whole = {**SYNTHESIZED, "digitalSourceType": SOURCE_TYPE}
    assert read_png_note(path).items() <= whole.items()
