"""How much of each pixel at the person's outline is the person."""

import cv2
import numpy as np

from ernerf_ti.preprocess.background import PERSON, BackgroundPlate, distance_to_person, margin_of

_SEPARATED = 20.0, 60.0  # gray levels between the two colors: below the mask decides, above the colors do


def refine_matte(frame: np.ndarray, mask: np.ndarray, plate: BackgroundPlate) -> tuple[np.ndarray, np.ndarray]:
    """Alpha from the line between the colors of person and background, in a band around the mask's edge.

    In the band alpha = (I - B).(F - B) / |F - B|^2 with F the mean color of the person nearby and B the
    plate, or the mean color of the background nearby where the plate was never seen. Where F and B are
    alike the mask itself is taken.

    Args:
        frame: [H, W, 3] uint8 RGB.
        mask: [H, W] uint8, 255 for the person.
        plate: the background of the clip.

    Returns:
        alpha [H, W] float32 in [0, 1], and the background [H, W, 3] float32: the plate, and in the band the frame's
        own nearby background where the plate is unknown.
    """
    reach = margin_of(mask.shape)
    outside = distance_to_person(mask)
    inside = distance_to_person(255 - mask)
    certain = mask >= PERSON
    rim = np.where(certain, inside, outside) / reach
    alpha, background = certain.astype(np.float32), plate.image.astype(np.float32)
    band = rim < 1  # all else is certain, and most of the picture
    if not band.any():
        return alpha, background

    image = frame.astype(np.float32)
    person = _local_mean(image, inside > reach, 2 * reach, band)
    unseen = ~plate.seen[band]
    behind = background[band]
    if unseen.any():
        behind[unseen] = _local_mean(image, outside > reach, 2 * reach, band)[unseen]
    line = person - behind
    length = np.square(line).sum(-1)
    by_color = np.clip(((image[band] - behind) * line).sum(-1) / np.maximum(length, 1.0), 0, 1)
    low, high = _SEPARATED
    trust = np.clip((np.sqrt(length) - low) / (high - low), 0, 1)
    # At the outer rim of the band the mask is right, so that nothing of alike color far away comes in.
    trust *= np.clip(2 * (1 - rim[band]), 0, 1)
    alpha[band] = trust * by_color + (1 - trust) * (mask[band].astype(np.float32) / 255)
    background[band] = behind
    return alpha, background


def _local_mean(image: np.ndarray, where: np.ndarray, radius: int, at: np.ndarray) -> np.ndarray:
    """[N, 3] mean of the pixels in `where` near those in `at`; of all of them where none is near."""
    if not where.any():
        return image[at]
    size = (2 * radius + 1, 2 * radius + 1)
    weight = where.astype(np.float32)
    near = cv2.blur(weight, size)[at]
    mean = cv2.blur(cv2.copyTo(image, where.astype(np.uint8)), size)[at] / np.maximum(near, 1e-6)[:, None]
    return np.where(near[:, None] > 1e-4, mean, image[where].mean(0)).astype(np.float32)
