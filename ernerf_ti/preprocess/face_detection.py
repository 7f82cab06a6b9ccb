"""Face detection with MediaPipe."""

import contextlib

import numpy as np

from ernerf_ti.preprocess.mediapipe_models import quiet, solutions


class FaceDetector(contextlib.AbstractContextManager):
    """Detects faces of at least a tenth of the image width; raises ImportError without mediapipe."""

    def __init__(self) -> None:
        detection = solutions().face_detection
        with quiet():
            # The long-range model (up to 5 m) comes first, as the other misses small faces.
            self._detectors = [detection.FaceDetection(model_selection=far) for far in (1, 0)]
            for detector in self._detectors:  # start them here: their threads write to stderr
                detector.process(np.zeros((64, 64, 3), np.uint8))

    def __exit__(self, *exception: object) -> None:
        for detector in self._detectors:
            detector.close()

    def __call__(self, frame: np.ndarray) -> np.ndarray:
        """[H, W, 3] uint8 RGB -> [B, 3] center x, center y and side in px of each face, brows to chin."""
        height, width = frame.shape[:2]
        for detector in self._detectors:
            detections = detector.process(frame).detections or ()
            boxes = [detection.location_data.relative_bounding_box for detection in detections]
            if boxes:
                break
        else:
            return np.empty((0, 3))
        x, y, w, h = np.array([(box.xmin, box.ymin, box.width, box.height) for box in boxes]).T
        return np.column_stack(((x + w / 2) * width, (y + h / 2) * height, np.maximum(w * width, h * height)))
