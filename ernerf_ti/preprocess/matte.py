"""Alpha matting along the outline of the person."""

import cv2
import numpy as np

from ernerf_ti.preprocess.background import PERSON, Background, distance_to_person, margin_of

_SEPARATED = 20.0, 60.0  # distance of the two colors in gray levels: below, use the mask; above, use the colors


def refine_matte(frame: np.ndarray, mask: np.ndarray, background: Background) -> tuple[np.ndarray, np.ndarray]:
    """Refine a mask to an alpha matte in a band around its edge.

    In the band alpha = (I - B).(F - B) / |F - B|^2, where F is the mean color of the person nearby and B the
    background, or the mean color of the frame's background nearby where the background was never visible. Where F and
    B are similar, alpha is taken from the mask.

    Args:
        frame: [H, W, 3] uint8 RGB.
        mask: [H, W] uint8, 255 for the person.
        background: of the clip.

    Returns:
        alpha [H, W] float32 in [0, 1], and B [H, W, 3] float32.
    """
    reach = margin_of(mask.shape)
    outside = distance_to_person(mask)
    inside = distance_to_person(255 - mask)
    certain = mask >= PERSON
    rim = np.where(certain, inside, outside) / reach
    alpha, behind = certain.astype(np.float32), background.image.astype(np.float32)
    band = rim < 1  # everything else is certain
    if not band.any():
        return alpha, behind

    image = frame.astype(np.float32)
    person = _local_mean(image, inside > reach, 2 * reach, band)
    unseen = ~background.seen[band]
    behind_band = behind[band]
    if unseen.any():
        behind_band[unseen] = _local_mean(image, outside > reach, 2 * reach, band)[unseen]
    line = person - behind_band
    length = np.square(line).sum(-1)
    by_color = np.clip(((image[band] - behind_band) * line).sum(-1) / np.maximum(length, 1.0), 0, 1)
    low, high = _SEPARATED
    trust = np.clip((np.sqrt(length) - low) / (high - low), 0, 1)
    # At the outer rim of the band trust the mask, so that distant pixels of a similar color stay out.
    trust *= np.clip(2 * (1 - rim[band]), 0, 1)
    alpha[band] = trust * by_color + (1 - trust) * (mask[band].astype(np.float32) / 255)
    behind[band] = behind_band
    return alpha, behind


def _local_mean(image: np.ndarray, where: np.ndarray, radius: int, at: np.ndarray) -> np.ndarray:
    """[N, 3] mean of the pixels in `where` within `radius` of those in `at`; of all in `where` if none is that near."""
    if not where.any():
        return image[at]
    size = (2 * radius + 1, 2 * radius + 1)
    weight = where.astype(np.float32)
    near = cv2.blur(weight, size)[at]
    mean = cv2.blur(cv2.copyTo(image, where.astype(np.uint8)), size)[at] / np.maximum(near, 1e-6)[:, None]
    return np.where(near[:, None] > 1e-4, mean, image[where].mean(0)).astype(np.float32)
