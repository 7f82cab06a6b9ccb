"""A rendered head over a recording: its pixels, its frames in time, and what does not fit together."""

import dataclasses
import json
import threading
from dataclasses import asdict
from fractions import Fraction

import cv2
import numpy as np
import pytest
import torch

from ernerf_ti.data.capture_files import (
    HEAD,
    CapturePaths,
    read_description,
    write_description,
    write_sound,
    write_transforms,
)
from ernerf_ti.data.crop import Crop
from ernerf_ti.data.synthetic.portrait_writers import write_portrait_capture
from ernerf_ti.data.synthetic.synthetic_portrait import SyntheticPortrait
from ernerf_ti.media.frame_folder import source_digest
from ernerf_ti.media.images import read_image, write_image
from ernerf_ti.media.provenance.facts import media_facts
from ernerf_ti.media.provenance.note import COMPOSITE_TYPE, read_png_note
from ernerf_ti.media.sound import read_sound
from ernerf_ti.media.video import probe, read_frames
from ernerf_ti.media.video_writer import VideoWriter, write_video
from ernerf_ti.portrait.camera import scene_from_capture
from ernerf_ti.run.folder import RunFolder
from ernerf_ti.synthesis import take as take_module
from ernerf_ti.synthesis.options import SynthesisOptions
from ernerf_ti.synthesis.outputs import check_formats
from ernerf_ti.synthesis.paste import Paster, Patch
from ernerf_ti.synthesis.statement import statement
from ernerf_ti.synthesis.take import Surroundings, open_take
from ernerf_ti.synthesis.video import ALTERED, synthesize

CROP = Crop(24, 10, 128)
SIZE = 64
N, N_SOUND = 6, 8
WIDTH, HEIGHT = 176, 144


def embedded(picture):
    """A picture of the person in a larger one with texture."""
    rows, columns = np.indices((HEIGHT, WIDTH))
    frame = np.stack((rows % 251, columns % 241, (rows * columns) % 239), -1).astype(np.uint8)
    frame[CROP.y : CROP.y + CROP.side, CROP.x : CROP.x + CROP.side] = picture
    return frame


def describe(folder, video):
    """Say in a capture that it was made of a video."""
    path = CapturePaths(folder).description
    source = {"name": video.name, "sha256": source_digest(video), "rate": 25.0}
    write_description(path, dataclasses.replace(read_description(path), crop=asdict(CROP), source=source))


@pytest.fixture(scope="module")
def person():
    return SyntheticPortrait(N, CROP.side, seed=3)


@pytest.fixture(scope="module")
def frames(person):
    return [embedded(person.render(k).image) for k in range(N)]


@pytest.fixture(scope="module")
def recorded(frames, tmp_path_factory):
    """A capture, and the pictures that it was made of."""
    folder = tmp_path_factory.mktemp("recorded")
    (folder / "video").mkdir()
    for k, frame in enumerate(frames):
        write_image(folder / "video" / f"{k}.png", frame)
    write_portrait_capture(SyntheticPortrait(N, SIZE, seed=3), folder / "capture", "mel")
    describe(folder / "capture", folder / "video")
    return folder


@pytest.fixture
def speech(tmp_path):
    path = tmp_path / "speech.wav"
    write_sound(path, 0.3 * np.sin(np.arange(640 * N_SOUND) * 0.05))
    np.save(tmp_path / "windows.npy", np.random.default_rng(0).standard_normal((N_SOUND, 16, 42)))
    return path


def options(speech, output, video, capture, **more):
    windows = speech.with_name("windows.npy")
    return SynthesisOptions(speech, output, onto=video, onto_capture=capture, windows=windows, **more)


# The image.


@pytest.fixture(scope="module")
def closing(person, frames):
    """A frame with an open mouth; the same with a closed one, which is what the head should become, at the size of the
    recording and rendered in other colors at that of the capture; and what the capture knows."""
    motion = SyntheticPortrait(N, SIZE, seed=3)

    def drawn(portrait, opening):
        portrait.mouths = portrait.mouths.copy()
        portrait.mouths[:, 0] = opening
        return portrait.render(2)

    opened, wanted = (drawn(SyntheticPortrait(N, CROP.side, seed=3), opening) for opening in (0.03, 0.0))
    small, known = (drawn(motion, opening) for opening in (0.0, 0.03))
    color = np.clip(small.image * 0.8 + [30, -20, -10], 0, 255).astype(np.uint8)
    rendered = np.dstack((color, np.where(small.labels == HEAD, 255, 0).astype(np.uint8)))
    around = Surroundings(known.labels, known.torso, known.landmarks)
    return embedded(opened.image), embedded(wanted.image), rendered, around, wanted.labels == HEAD


def psnr(image, truth, mask):
    error = (image.astype(float) - truth)[CROP.y : CROP.y + CROP.side, CROP.x : CROP.x + CROP.side][mask]
    return -10 * np.log10((error**2).mean() / 255**2)


def mouth_of(around):
    """Pixels of the crop from the nose to below the chin."""
    scale = CROP.side / SIZE
    low, high = around.landmarks[4:13].min(0) * scale, around.landmarks[4:13].max(0) * scale
    rows, columns = np.indices((CROP.side, CROP.side)) + 0.5
    top = around.landmarks[33, 1] * scale
    return (rows > top) & (rows < high[1] + 4) & (columns > low[0]) & (columns < high[0])


@pytest.mark.parametrize("part", ["head", "face"])
def test_the_pasted_face_is_the_wanted_one(closing, part):
    frame, wanted, rendered, around, head = closing
    before = frame.copy()
    patch = Paster(part)(rendered, CROP(frame, SIZE), around)
    result = patch.over(frame, CROP)
    assert (frame == before).all()
    mouth = mouth_of(around)
    plain = Patch(rendered[..., :3] * (rendered[..., 3:] / np.float32(255)), rendered[..., 3] / np.float32(255))
    plain = plain.over(frame, CROP)
    assert psnr(result, wanted, mouth) > psnr(frame, wanted, mouth) + 3  # the recording has another mouth
    assert psnr(result, wanted, mouth) > psnr(plain, wanted, mouth) + 3  # the rendering has other colors
    assert psnr(result, wanted, head) > psnr(frame, wanted, head) + (2 if part == "head" else 1)


@pytest.mark.parametrize("part", ["head", "face"])
def test_everything_else_is_untouched(closing, part):
    frame, _, rendered, around, head = closing
    patch = Paster(part)(rendered, CROP(frame, SIZE), around)
    result = patch.over(frame, CROP)
    changed = (result != frame).any(-1)
    # Outside of the head a band of a tenth of the face's height around the jaw alone is mixed.
    unit = np.linalg.norm(around.landmarks[8] - around.landmarks[27]) * CROP.side / SIZE
    near = cv2.distanceTransform((~np.pad(head, 8)).astype(np.uint8), cv2.DIST_L2, 5)[8:-8, 8:-8] < 0.2 * unit + 3
    allowed = np.zeros_like(changed)
    allowed[CROP.y : CROP.y + CROP.side, CROP.x : CROP.x + CROP.side] = near
    assert changed.any() and not (changed & ~allowed).any()
    eyes = (around.landmarks[36:48].mean(0) * CROP.side / SIZE + (CROP.x, CROP.y)).astype(int)
    assert changed[eyes[1], eyes[0]] == (part == "head")


def test_no_edge_shows_at_the_seam(closing):
    frame, wanted, rendered, around, _ = closing
    patch = Paster("head")(rendered, CROP(frame, SIZE), around)
    opacity = cv2.resize(patch.opacity, (CROP.side, CROP.side))

    def gradient(image):
        gray = image[CROP.y : CROP.y + CROP.side, CROP.x : CROP.x + CROP.side].mean(-1)
        return np.hypot(*np.gradient(gray))

    seam = (opacity > 0.02) & (opacity < 0.98)
    pasted, true = gradient(patch.over(frame, CROP))[seam], gradient(wanted)[seam]
    assert pasted.mean() < 1.15 * true.mean() + 0.5
    assert np.percentile(pasted, 99) < 1.15 * np.percentile(true, 99)


def test_nothing_is_pasted_where_the_pose_is_not_known(closing):
    frame, _, rendered, around, _ = closing
    patch = Paster("head")(rendered, CROP(frame, SIZE), around, presence=0.0)
    assert patch.over(frame, CROP) is frame
    halves = Paster("head")(rendered, CROP(frame, SIZE), around, presence=0.5)
    assert halves.opacity.max() == pytest.approx(0.5)


def test_colors_without_a_head_are_kept(closing):
    frame, _, rendered, around, _ = closing
    nobody = dataclasses.replace(around, labels=np.zeros_like(around.labels))
    patch = Paster("head")(rendered, CROP(frame, SIZE), nobody)
    inside = patch.opacity > 0.999
    np.testing.assert_allclose(patch.color[inside], rendered[..., :3][inside], atol=0.5)


# Frames in time.


def test_the_recording_is_played_forward_and_backward(recorded, trained, frames, monkeypatch):
    take = open_take(recorded / "video", recorded / "capture", trained)
    assert (take.n_frames, take.rate, take.size) == (N, 25, (WIDTH, HEIGHT))
    monkeypatch.setattr(take_module, "_LEAST_BLOCK", 4)  # fewer than the frames
    monkeypatch.setattr(take_module, "_BLOCK_BYTES", 0)
    order = take.order(3 * N + 2)
    shown = list(take.frames(order))
    assert len(shown) == len(order) and np.abs(np.diff(order)).max() == 1
    assert all((image == frames[k]).all() for image, k in zip(shown, order, strict=True))
    assert len(list(take.frames(np.zeros(1, int)))) == 1


def test_poses_and_blinks_between_the_frames_of_the_capture(recorded, trained, tmp_path, person):
    video, capture = tmp_path / "take.mp4", tmp_path / "capture"
    write_video(video, [np.zeros((HEIGHT, WIDTH, 3), np.uint8)] * 7, 29.97)
    capture.mkdir()
    for path in (recorded / "capture").iterdir():
        if path.suffix != ".json":
            (capture / path.name).symlink_to(path)
    write_description(CapturePaths(capture).description, read_description(recorded / "capture" / "capture.json"))
    known = [0, 1, 2, 5]
    write_transforms(capture, person.intrinsics.fx / 2, (SIZE, SIZE), known, person.poses[known])
    describe(capture, video)
    take = open_take(video, capture, trained)
    assert (take.rate, take.n_frames) == (Fraction(30000, 1001), 7)
    motion = take.motion(np.array([0, 1, 5]))
    share = float(Fraction(25 * 1001, 30000))
    first, second = scene_from_capture(torch.from_numpy(person.poses[:2]))[:, :3, 3]
    torch.testing.assert_close(motion.poses[0, :3, 3].double(), first, rtol=0, atol=1e-6)
    torch.testing.assert_close(motion.poses[1, :3, 3].double(), first.lerp(second, share), rtol=0, atol=1e-6)
    closures = take.capture.eye_closures
    assert motion.eye_closures[1] == pytest.approx(closures[0] + share * (closures[1] - closures[0]), abs=1e-6)
    middle = take.surroundings(1).landmarks
    expected = take.capture.landmarks(0) + share * (take.capture.landmarks(1) - take.capture.landmarks(0))
    np.testing.assert_allclose(middle, expected, atol=1e-4)
    # The capture knows nothing of the frames 3, 4 and those after 5; near ones hold, further ones fade.
    assert (motion.presence == 1).all()
    far = take.motion(np.array([10, 12, 16])).presence
    assert far[0] > far[1] > far[2] == 0


# The command.


def test_pictures_are_those_of_the_recording_but_for_the_head(recorded, trained, frames, speech, tmp_path):
    out = tmp_path / "frames"
    given = options(speech, out, recorded / "video", recorded / "capture", onto_size=32)
    assert synthesize(trained, given) == [out]
    pictures = [read_image(path) for path in sorted(out.iterdir())]
    assert read_png_note(out / "00000.png") == {**ALTERED, "digitalSourceType": COMPOSITE_TYPE}
    assert media_facts(out / "00000.png")["synthesized"]
    said = statement(dataclasses.replace(trained, checkpoint=None), speech, recorded / "video")["recording"]
    assert said == {"name": "video", "sha256": source_digest(recorded / "video")}
    order = [0, 1, 2, 3, 4, 5, 5, 4]
    assert [picture.shape for picture in pictures] == [(HEIGHT, WIDTH, 3)] * len(order)
    for picture, k in zip(pictures, order, strict=True):
        changed = (picture != frames[k]).any(-1)
        changed[CROP.y : CROP.y + CROP.side, CROP.x : CROP.x + CROP.side] = False
        assert not changed.any()
    assert (pictures[2] != frames[2]).any()  # an untrained portrait is gray


@pytest.mark.parametrize(("suffix", "size"), [(".mp4", None), (".mov", 32)])
def test_video_has_size_and_rate_of_the_recording(recorded, trained, frames, speech, tmp_path, suffix, size):
    video, capture = tmp_path / "take.mp4", tmp_path / "capture"
    write_video(video, frames, 30)
    capture.mkdir()
    for path in (recorded / "capture").iterdir():
        if path.name != "capture.json":
            (capture / path.name).symlink_to(path)
    write_description(CapturePaths(capture).description, read_description(recorded / "capture" / "capture.json"))
    describe(capture, video)
    out, depth = tmp_path / f"out{suffix}", tmp_path / "depth.mp4"
    paths = synthesize(trained, options(speech, out, video, capture, onto_size=size, depth=depth, onto_part="head"))
    assert paths == [out, depth]
    for path, (width, height) in ((out, (WIDTH, HEIGHT)), (depth, (size or SIZE,) * 2)):
        info = probe(path)
        assert (info.width, info.height, round(info.rate, 3)) == (width, height, 30)
        assert len(list(read_frames(path, 30))) == 10  # 8 frames at 25 per second
    heard, said = read_sound(out), read_sound(speech)
    n = min(len(heard), len(said))
    assert n > 0.9 * len(said) and np.corrcoef(heard[:n], said[:n])[0, 1] > 0.9


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError("disk full")], ids=["Ctrl-C", "error"])
@pytest.mark.parametrize("place", ["paste", "write"])
def test_an_interruption_leaves_nothing(recorded, trained, speech, tmp_path, monkeypatch, error, place):
    owner, name = (Patch, "over") if place == "paste" else (VideoWriter, "write")
    calls, whole = iter(range(100)), getattr(owner, name)

    def interrupted(*arguments):
        if next(calls) == 4:
            raise error
        return whole(*arguments)

    monkeypatch.setattr(owner, name, interrupted)
    out = tmp_path / "results" / "out.mp4"
    with pytest.raises(type(error)):
        synthesize(trained, options(speech, out, recorded / "video", recorded / "capture", onto_size=32))
    assert list(out.parent.iterdir()) == []
    assert not [thread for thread in threading.enumerate() if thread.name == "ahead"]


# What does not fit.


def test_another_video(recorded, trained, frames, tmp_path):
    other = tmp_path / "other.mp4"
    write_video(other, frames[:2], 25)
    with pytest.raises(ValueError, match=r"expected the video that .*capture was made of \(video\), got another one; "):
        open_take(other, recorded / "capture", trained)


def test_a_capture_that_was_moved(recorded, trained, tmp_path):
    moved = dataclasses.replace(trained, checkpoint=RunFolder(tmp_path).checkpoint)
    moved.checkpoint.touch()
    RunFolder(tmp_path).write_capture(tmp_path / "gone")
    for portrait in (moved, trained):
        with pytest.raises(FileNotFoundError, match=r"not where it was; pass the capture of .*video with --onto-capt"):
            open_take(recorded / "video", None, portrait)
    RunFolder(tmp_path).write_capture(recorded / "capture")
    assert open_take(recorded / "video", None, moved).capture.folder.name == "capture"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"crop": {}}, "expected the crop and the source of a capture that"),
        ({"crop": {"x": 60, "y": 10, "side": 128}}, "expected a crop inside the 176x144 video, got Crop"),
        (None, r"parsing/4.png: expected the labels of the frame, got no such file; make a capture of it with"),
    ],
)
def test_a_capture_that_lacks_something(recorded, trained, tmp_path, change, message):
    capture = tmp_path / "capture"
    capture.mkdir()
    for path in (recorded / "capture").iterdir():
        if path.name == "capture.json":
            (capture / path.name).write_text(json.dumps({**json.loads(path.read_text()), **(change or {})}))
        elif path.name != "parsing":
            (capture / path.name).symlink_to(path)
    (capture / "parsing").mkdir()
    for path in (recorded / "capture" / "parsing").iterdir():
        if change is not None or path.name != "4.png":
            (capture / "parsing" / path.name).symlink_to(path)
    with pytest.raises(ValueError, match=message):
        open_take(recorded / "video", capture, trained)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"pose": "still", "onto": True}, "pose: with --onto it is that of the recording; leave it out"),
        ({"fps": 30.0, "onto": True}, "fps: with --onto it is that of the recording"),
        ({"head_only": True, "onto": True}, "head-only: with --onto"),
        ({"onto_part": "head"}, "onto-part: it is for --onto, which was not given"),
        ({"onto_size": 7, "onto": True}, "onto-size: expected 32 to 4096 pixels, got 7"),
    ],
)
def test_options_that_do_not_go_together(speech, tmp_path, given, message):
    onto = tmp_path if given.pop("onto", False) else None
    with pytest.raises(ValueError, match=message):
        check_formats(SynthesisOptions(speech, tmp_path / "out.mp4", onto=onto, **given))


def test_the_recording_is_not_replaced(speech):
    video = speech.with_name("take.mp4")
    video.touch()
    with pytest.raises(ValueError, match="it would replace the onto file that is read"):
        check_formats(SynthesisOptions(speech, video, onto=video))
