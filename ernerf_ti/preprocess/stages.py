"""The preprocessing stages from a video to a capture."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import numpy as np

from ernerf_ti.audio.frame_features import SAMPLE_RATE
from ernerf_ti.audio.ready_made import load_windows
from ernerf_ti.data.capture import open_capture
from ernerf_ti.data.capture_features import SpeechModel
from ernerf_ti.data.capture_files import (
    BACKGROUND,
    FPS,
    CapturePaths,
    Description,
    labels_of,
    read_blinks,
    write_blinks,
    write_description,
    write_labels,
    write_landmarks,
    write_sound,
    write_transforms,
)
from ernerf_ti.data.capture_source import CROP, other_source
from ernerf_ti.data.crop import Crop
from ernerf_ti.media.files import (
    read_arrays,
    read_json,
    write_arrays,
    write_json,
    write_text,
)
from ernerf_ti.media.frame_folder import source_digest
from ernerf_ti.media.images import read_image, write_image
from ernerf_ti.media.sound import read_sound
from ernerf_ti.media.sound_notes import sound_notes
from ernerf_ti.media.video import FrameCounts, probe, read_frames
from ernerf_ti.preprocess import report
from ernerf_ti.preprocess.background import Background, estimate_background
from ernerf_ti.preprocess.blink import eye_closure
from ernerf_ti.preprocess.bundle_adjustment import fit_head
from ernerf_ti.preprocess.crop import choose_crop, parse_crop
from ernerf_ti.preprocess.face_detection import FaceDetector
from ernerf_ti.preprocess.face_mesh import choose_face, ibug_landmarks, track_face
from ernerf_ti.preprocess.face_parsing import FaceParser
from ernerf_ti.preprocess.face_parts import part_labels, skin_color
from ernerf_ti.preprocess.feature_stages import FeatureStages
from ernerf_ti.preprocess.frame_files import ImageSequence, for_each
from ernerf_ti.preprocess.matte import refine_matte
from ernerf_ti.preprocess.person_mask import person_masks
from ernerf_ti.preprocess.photometric_refinement import refine_poses
from ernerf_ti.preprocess.pipeline import WORK_FOLDER, Pipeline, Stage
from ernerf_ti.preprocess.portrait_layers import composite_over_background, torso_layer
from ernerf_ti.preprocess.settings import Settings, check_contents, check_inputs, input_paths
from ernerf_ti.preprocess.texture_alignment import FaceCrops, measure_alignment

_SEARCH_RATE = 2.5  # frames per second searched for the face to choose the crop
_SKIN_FRAMES = 32  # from which the skin color is estimated
_PACKAGES = ("ernerf-ti", "mediapipe", "opencv-python", "numpy", "av", "pocketsphinx", "librosa")


def capture_pipeline(folder: Path, settings: Settings, only: Sequence[str] = ()) -> Pipeline:
    """The stages that create a capture in a folder, after checking all input files.

    Args:
        folder: the capture.
        settings: of all stages.
        only: names of stages that are to run on their own, one after the other.

    Raises:
        FileNotFoundError, IsADirectoryError: the video or another input file does not exist.
        ValueError: a file is of another kind or lies where the capture is written, the folder contains something
            else, as the capture of another video, or there is no such stage.
        StageError: inputs of a stage are missing that no stage before it makes.
    """
    folder = Path(folder)
    check_inputs(settings)
    if folder.is_file():
        raise ValueError(f"{folder}: expected a folder for the capture, got a file; choose another name")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / WORK_FOLDER).is_dir():
        raise ValueError(
            f"{folder}: expected a new folder or one of an earlier run, got one with other files; choose another name"
        )
    stages = _CaptureStages(folder, settings)
    pipeline = stages.pipeline()
    pipeline.require_kept(input_paths(settings))
    check_contents(settings)
    pipeline.require_runnable(only)
    if other := other_source(folder, settings.video):
        raise ValueError(
            f"{folder}: expected a new folder or the capture of {settings.video}, got the capture of another video, "
            f"{other}, or of an earlier version of it; choose another name, or delete that folder"
        )
    stages.paths.make_folders()
    stages.masks_folder.mkdir(parents=True, exist_ok=True)
    return pipeline


class _CaptureStages:
    def __init__(self, folder: Path, settings: Settings):
        self.folder, self.settings, self.paths = folder, settings, CapturePaths(folder)
        self.work = folder / WORK_FOLDER
        self.masks_folder = self.work / "person"
        model = SpeechModel(settings.speech_model, settings.speech_layer, settings.look_ahead, settings.device)
        features = (settings.features, *settings.more_features)
        self.features = FeatureStages(self.paths, features, model, lambda: self.n_frames)

    def pipeline(self) -> Pipeline:
        settings = self.settings
        parser = {"face_parser": settings.face_parser}
        # Of a folder of pictures alone, so that captures of other videos stay up to date.
        rate = {"folder_rate": settings.folder_rate} if settings.video.is_dir() else {}
        sound = "video" if settings.audio is None else "voice"
        stages = [
            Stage("crop", ("video",), ("crop",), self.find_crop, {"crop": settings.crop, **rate}),
            Stage(
                "frames", ("video", "crop"), ("frames", "frame counts"), self.decode, {"size": settings.size, **rate}
            ),
            Stage("sound", (sound, "frame counts"), ("sound", "sound notes"), self.extract_sound, {}),
            *self.features.stages(),
            Stage("landmarks", ("frames",), ("mesh", "landmarks"), self.track, {}),
            Stage("pose", ("frames", "mesh"), ("head", "alignment", "transforms"), self.fit, {}),
            Stage("masks", ("frames",), ("masks",), self.find_person, parser),
            Stage("background", ("frames", "masks"), ("background", "background statistics"), self.make_background, {}),
            Stage(
                "parts",
                ("frames", "masks", "background statistics", "mesh", "head"),
                ("labels",),
                self.label_parts,
                parser,
            ),
            Stage(
                "layers",
                ("frames", "masks", "background statistics", "labels", "head"),
                ("images", "torso"),
                self.make_layers,
                {},
            ),
            Stage("blink", ("mesh",), ("blinks",), self.measure_blinks, {"blinks": settings.blinks}),
            Stage(
                "capture",
                ("crop", "frame counts", "features", "transforms", "images", "torso", "background", "blinks", "sound"),
                ("description",),
                self.describe,
                {},
            ),
            Stage(
                "report",
                (
                    "crop",
                    "frame counts",
                    "sound notes",
                    "mesh",
                    "alignment",
                    "background statistics",
                    "labels",
                    "torso",
                    "description",
                ),
                ("report",),
                self.write_report,
                {},
            ),
        ]
        return Pipeline(self.folder, self.artifacts(), stages)

    def artifacts(self) -> dict[str, str | Path]:
        return {
            "video": self.settings.video.absolute(),
            **({} if self.settings.audio is None else {"voice": self.settings.audio.absolute()}),
            "crop": CROP,
            "frames": "ori_imgs/*.jpg",
            "frame counts": "preprocess/frames.json",
            "sound": "aud.wav",
            "sound notes": "preprocess/sound.json",
            **self.features.artifacts(),
            "mesh": "preprocess/mesh.npz",
            "landmarks": "ori_imgs/*.lms",
            "head": "preprocess/head.npz",
            "alignment": "preprocess/alignment.json",
            "transforms": "transforms_*.json",
            "masks": "preprocess/person/*.png",
            "background": "bc.jpg",
            "background statistics": "preprocess/background.npz",
            "labels": "parsing/*.png",
            "images": "gt_imgs/*.jpg",
            "torso": "torso_imgs/*.png",
            "blinks": "au.csv",
            "description": "capture.json",
            "report": "report.*",
        }

    @property
    def n_frames(self) -> int:
        return read_json(self.work / "frames.json")["written"]

    @property
    def frames(self) -> ImageSequence:
        return ImageSequence(self.paths.frame, self.n_frames)

    @property
    def masks(self) -> ImageSequence:
        return ImageSequence(self._mask_path, self.n_frames, first_channel=True)

    def find_crop(self) -> None:
        video, folder_rate = self.settings.video, self.settings.folder_rate
        info = probe(video, folder_rate)
        boxes: list[np.ndarray] = []
        n_searched = n_crowded = 0
        if self.settings.crop is not None:
            crop = parse_crop(self.settings.crop, info.width, info.height)
        with FaceDetector() as detect:
            for frame in read_frames(video, _SEARCH_RATE, folder_rate=folder_rate):
                found = detect(frame)
                n_searched += 1
                n_crowded += len(found) > 1
                if len(found):
                    boxes.append(choose_face(found, boxes[-1] if boxes else None))
        if self.settings.crop is None:
            crop = choose_crop(np.array(boxes), info.width, info.height)
        write_json(
            self.folder / CROP,
            {
                "crop": asdict(crop),
                "source": {"name": video.absolute().name, "sha256": source_digest(video), **asdict(info)},
                "searched": n_searched,
                "with_several_faces": n_crowded,
            },
        )

    def decode(self) -> None:
        settings, crop = self.settings, Crop(**read_json(self.folder / CROP)["crop"])
        counts, repeated = FrameCounts(), 0
        before: np.ndarray | None = None

        def cropped() -> Iterator[tuple[int, np.ndarray]]:
            nonlocal repeated, before
            for k, frame in enumerate(read_frames(settings.video, FPS, counts, settings.folder_rate)):
                repeated += before is not None and np.array_equal(before, frame)
                before = frame
                yield k, crop(frame, settings.size)

        for_each(lambda item: write_image(self.paths.frame(item[0]), item[1]), cropped(), "decoding frames")
        write_json(self.work / "frames.json", {**asdict(counts), "repeated": repeated})

    def extract_sound(self) -> None:
        source = self.settings.audio or self.settings.video
        samples = read_sound(source, SAMPLE_RATE)
        wanted = round(self.n_frames * SAMPLE_RATE / FPS)
        write_sound(self.paths.sound, np.pad(samples[:wanted], (0, max(0, wanted - len(samples)))))
        write_json(self.work / "sound.json", {"notes": sound_notes(source)})

    def track(self) -> None:
        face = track_face(self.frames, self.n_frames, progress=True)
        for k in np.flatnonzero(face.valid):
            write_landmarks(self.paths.landmarks(int(k)), ibug_landmarks(face.points[k]))
        write_arrays(
            self.work / "mesh.npz",
            points=face.points,
            valid=face.valid,
            spread=face.spread,
            n_faces=face.n_faces,
            reasons=np.array(face.reasons),
        )

    def fit(self) -> None:
        mesh, size = read_arrays(self.work / "mesh.npz"), self.settings.size
        bundle = fit_head(mesh["points"], mesh["valid"], size, size)
        crops = FaceCrops(self.frames.__getitem__, bundle, progress=True)
        head, refined = refine_poses(crops, bundle, progress=True)
        before, after = measure_alignment(crops, bundle), measure_alignment(crops, head)
        write_arrays(
            self.work / "head.npz",
            focal=np.array(head.focal),
            poses=head.poses,
            shape=head.shape,
            refined=refined,
            shifts=np.stack([region.shifts for region in after.regions.values()]),
        )
        write_json(
            self.work / "alignment.json",
            {
                "focal_px": head.focal,
                "reprojection_mean_px": bundle.error_mean,
                "reprojection_95_px": bundle.error_95,
                "refined_frames": int(refined.sum()),
                "bundle_adjustment": report.alignment_figures(before),
                "refined": report.alignment_figures(after),
            },
        )
        ids = np.flatnonzero(np.isfinite(head.poses).all((1, 2)))
        write_transforms(self.folder, head.focal, (size, size), ids, head.poses[ids])

    def find_person(self) -> None:
        if self.settings.face_parser is None:
            masks = person_masks(self.frames)
        else:
            parser = FaceParser(self.settings.face_parser, self.settings.device)
            masks = map(_coded_mask, map(parser, self.frames))
        for_each(
            lambda item: write_image(self._mask_path(item[0]), item[1]),
            enumerate(masks),
            "computing masks",
            self.n_frames,
        )

    def make_background(self) -> None:
        background = estimate_background(self.frames, self.masks)
        write_image(self.paths.background, background.image)
        write_arrays(self.work / "background.npz", **vars(background))

    def label_parts(self) -> None:
        background, points, ids = self._background(), read_arrays(self.work / "mesh.npz")["points"], self._pose_ids()
        selected = ids[:: max(1, len(ids) // _SKIN_FRAMES)]
        skin = skin_color((self.frames[k], points[k]) for k in selected)

        def label(k: int) -> None:
            if self.settings.face_parser is None:
                frame = self.frames[k]
                labels = part_labels(frame, refine_matte(frame, self.masks[k], background)[0], points[k], skin)
            else:
                labels = read_image(self._mask_path(k))[..., 1]
            write_labels(self.paths.labels(k), labels)

        for_each(label, ids, "labeling parts", len(ids))

    def make_layers(self) -> None:
        background, ids = self._background(), self._pose_ids()

        def composite(k: int) -> None:
            frame = self.frames[k]
            alpha, behind = refine_matte(frame, self.masks[k], background)
            write_image(self.paths.image(k), composite_over_background(frame, alpha, behind, background.image))
            labels = labels_of(read_image(self.paths.labels(k)))
            write_image(self.paths.torso(k), torso_layer(frame, alpha, behind, labels))

        for_each(composite, ids, "compositing layers", len(ids))

    def measure_blinks(self) -> None:
        mesh = read_arrays(self.work / "mesh.npz")
        if self.settings.blinks is None:
            points = np.where(mesh["valid"][:, None, None], mesh["points"], np.nan)
            closure = eye_closure(points)
        else:
            closure = read_blinks(self.settings.blinks, len(mesh["valid"]))
        write_blinks(self.paths.blinks, closure, mesh["valid"])

    def describe(self) -> None:
        found, counts = read_json(self.folder / CROP), read_json(self.work / "frames.json")
        windows = load_windows(self.folder, self.features.extractor)
        description = Description(
            width=self.settings.size,
            height=self.settings.size,
            n_frames=counts["written"],
            extractor=self.features.extractor,
            feature_dimension=windows.shape[2],
            crop=found["crop"],
            source=found["source"],
            versions={name: version(name) for name in _PACKAGES},
        )
        write_description(self.paths.description, description)
        open_capture(self.folder)  # report problems now rather than in training

    def write_report(self) -> None:
        measured = report.measure(open_capture(self.folder), self.work)
        write_json(self.folder / "report.json", measured.figures)
        write_text(self.folder / "report.html", report.page(measured))

    def _mask_path(self, k: int) -> Path:
        return self.masks_folder / f"{k}.png"

    def _background(self) -> Background:
        return Background(**read_arrays(self.work / "background.npz"))

    def _pose_ids(self) -> np.ndarray:
        """Frames with a pose, the only ones used in training."""
        poses = read_arrays(self.work / "head.npz")["poses"]
        return np.flatnonzero(np.isfinite(poses).all((1, 2)))


def _coded_mask(labels: np.ndarray) -> np.ndarray:
    """The person in the first channel and the labels in the second, so that the slow parser runs only once."""
    return np.stack((np.where(labels != BACKGROUND, 255, 0), labels, np.zeros_like(labels)), -1).astype(np.uint8)
