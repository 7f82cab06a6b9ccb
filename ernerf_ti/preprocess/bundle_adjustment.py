"""Joint estimation of the focal length, the rigid face shape and the head pose of each frame from mesh points.

Minimizes the image distances between the rigid points of the mesh and the projections of one shape:

    sum over frames, points of  huber(w |project(f, R X + t) - observed| / s),
    u = -f X/Z + cx,  v = f Y/Z + cy,  Z < 0

with Levenberg-Marquardt. The poses are eliminated by the Schur complement, so that each step solves only for the focal
length and the points. [Triggs et al., "Bundle Adjustment: A Modern Synthesis", 2000]

Two priors constrain what the data leave open: the head is on average about one meter away, within a factor of 1.16,
and points lie within 5 mm of the symmetrized average mesh of the clip, because the mesh is lopsided for a face that is
only seen from one side. The data get the weight of a few frames, as they constrain the focal length poorly: on two
clips the mesh alone prefers one so short that the texture of the face matches clearly worse.
"""

from dataclasses import dataclass

import numpy as np

from ernerf_ti.preprocess.rigid_face import (
    CHIN,
    FOREHEAD_TOP,
    LEFT_EYE_CORNERS,
    NOSE_TIP,
    PAIRS,
    RIGHT_EYE_CORNERS,
    RIGID_POINTS,
    RIGID_WEIGHTS,
)

# Meters between the outer corners of the eyes of adults: women 0.0878, men 0.0912.
# [Farkas, "Anthropometry of the Head and Face", 1994: biocular width]
OUTER_EYE_CORNERS = 0.0895
# Meters from the origin of the head frame, which lies in the middle of the head.
NOSE_TIP_IN_FRONT = 0.08
EYES_ABOVE = 0.03

_DISTANCE = 1.0  # m; typical for people who talk to a camera
_LOG_FOCAL_DEVIATION = 0.15
_SHAPE_DEVIATION = 0.005  # m
# Errors of the mesh are correlated between frames: more frames than this add no information on focal length and shape.
_INDEPENDENT_FRAMES = 5
_HUBER = 1.5  # robust standard deviations of the residuals
_MAX_STEPS = 40
_CONVERGED = 1e-5  # relative decrease of the cost


@dataclass(frozen=True)
class HeadFit:
    """A rigid head and the camera poses relative to it.

    The head frame is in meters, with x to the right in an image of the face, y up and z out of the face. Its origin
    lies 8 cm behind the tip of the nose and 3 cm below the eyes. The scale is that of a head whose outer eye corners
    are 89.5 mm apart.
    """

    focal: float
    """px; the principal point is the center of the image."""
    poses: np.ndarray
    """[F, 4, 4] float64 pose_world_from_camera: the camera looks along -z, with x right and y up; the world is the
    head frame. NaN for invalid frames."""
    shape: np.ndarray
    """[478, 3] float64 mesh points in the head frame: rigid points as adjusted, others the median over frames."""
    error_mean: float
    """Mean distance in px between observed and projected rigid points over all valid frames."""
    error_95: float
    """95th percentile of the same distances."""


def fit_head(points: np.ndarray, valid: np.ndarray, width: int, height: int, focal: float | None = None) -> HeadFit:
    """Fit a rigid head to mesh points.

    Args:
        points: [F, 478, 3] as in `FaceTrack`.
        valid: [F] bool, frames to use. Frames with NaN in their points are not used either.
        width: of the frames, px.
        height: of the frames, px.
        focal: initial focal length in px; None for the one that puts the head one meter away.

    Deterministic. Raises ValueError for other shapes, or if no frame is valid.
    """
    valid = _check(points, valid)
    # Camera convention: x right, y up, z towards the camera.
    mesh = (points[valid].astype(np.float64) - (width / 2, height / 2, 0)) * (1, -1, -1)
    average, rotations, sizes, centers = _average_shape(mesh)
    guess = _DISTANCE * float(np.median(sizes)) if focal is None else focal

    prior = _symmetric(average)[RIGID_POINTS]
    depths = guess / sizes
    translations = np.column_stack((centers * (depths / guess)[:, None], -depths))
    translations -= np.einsum("fij,j->fi", rotations, prior.mean(0))
    adjustment = _Adjustment(mesh[:, RIGID_POINTS, :2], RIGID_WEIGHTS, prior, guess)
    focal, rotations, translations, rigid = adjustment.solve(guess, rotations, translations)

    in_head = _into_head(mesh, focal, rotations, translations, rigid)
    shape = np.median(in_head, axis=0)
    shape[RIGID_POINTS] = rigid
    errors = np.linalg.norm(adjustment.residuals(focal, rotations, translations, rigid), axis=-1)

    scale, turn, origin = head_frame(shape)
    rotations, translations = rotations @ turn.T, scale * (translations + rotations @ origin)
    poses = np.full((len(points), 4, 4), np.nan)
    poses[valid] = world_from_camera(rotations, translations)
    return HeadFit(
        float(focal), poses, scale * (shape - origin) @ turn.T, float(errors.mean()), float(np.percentile(errors, 95))
    )


def project(points: np.ndarray, poses: np.ndarray, focal: float, width: int, height: int) -> np.ndarray:
    """Pixels [..., N, 2] (x right, y down, 0 at the top-left corner) of points [N, 3] for camera poses [..., 4, 4]."""
    rotations, translations = camera_from_world(poses)
    x, y, z = np.moveaxis(points @ np.swapaxes(rotations, -1, -2) + translations[..., None, :], -1, 0)
    return np.stack((-focal * x / z + width / 2, focal * y / z + height / 2), -1)


def world_from_camera(rotations: np.ndarray, translations: np.ndarray) -> np.ndarray:
    """Camera poses [..., 4, 4] for X_camera = R X + t, with R [..., 3, 3] and t [..., 3]."""
    poses = np.zeros((*rotations.shape[:-2], 4, 4))
    poses[..., :3, :3] = np.swapaxes(rotations, -1, -2)
    poses[..., :3, 3] = -np.einsum("...ji,...j->...i", rotations, translations)
    poses[..., 3, 3] = 1
    return poses


def camera_from_world(poses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """R [..., 3, 3] and t [..., 3] of X_camera = R X + t from camera poses [..., 4, 4]; inverts `world_from_camera`."""
    rotations = np.swapaxes(poses[..., :3, :3], -1, -2)
    return rotations, -np.einsum("...ij,...j->...i", rotations, poses[..., :3, 3])


def rotation(vectors: np.ndarray) -> np.ndarray:
    """[..., 3] axes times angles in radians -> [..., 3, 3] rotation matrices. [Rodrigues' formula]"""
    squares = (vectors**2).sum(-1)[..., None, None]
    angles = np.sqrt(squares)
    cross = _cross_matrix(vectors)
    half = np.sinc(angles / (2 * np.pi))
    return np.eye(3) + np.sinc(angles / np.pi) * cross + 0.5 * half**2 * cross @ cross


def head_frame(shape: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """Scale s, rotation G [3, 3] and origin o [3] that map mesh points [478, 3] to the head frame by s G (X - o)."""
    across = (shape[PAIRS[:, 1]] - shape[PAIRS[:, 0]]).mean(0)
    x = across / np.linalg.norm(across)
    up = shape[FOREHEAD_TOP] - shape[CHIN]
    y = up - x * (x @ up)
    y /= np.linalg.norm(y)
    turn = np.stack((x, y, np.cross(x, y)))
    scale = OUTER_EYE_CORNERS / np.linalg.norm(shape[LEFT_EYE_CORNERS[0]] - shape[RIGHT_EYE_CORNERS[0]])
    eyes = shape[[*RIGHT_EYE_CORNERS, *LEFT_EYE_CORNERS]].mean(0)
    middle = np.array([eyes @ x, eyes @ y - EYES_ABOVE / scale, shape[NOSE_TIP] @ turn[2] - NOSE_TIP_IN_FRONT / scale])
    return float(scale), turn, turn.T @ middle


def _check(points: np.ndarray, valid: np.ndarray) -> np.ndarray:
    if points.ndim != 3 or points.shape[1:] != (478, 3):
        raise ValueError(f"points: expected shape [F, 478, 3], got {points.shape}; pass the points of track_face")
    if valid.shape != points.shape[:1] or valid.dtype != bool:
        raise ValueError(f"valid: expected [{len(points)}] bool, got {valid.shape} {valid.dtype}; pass FaceTrack.valid")
    valid = valid & np.isfinite(points).all((1, 2))
    if not valid.any():
        raise ValueError(
            f"valid: none of {len(points)} frames is valid; use a video that shows the face from the front"
        )
    return valid


def _average_shape(mesh: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Generalized Procrustes average of meshes [F, 478, 3]. [Gower 1975]

    Returns the average [478, 3] in the head frame, rotations [F, 3, 3] from it, sizes [F] in px per meter and the
    centers [F, 2] of the rigid points in px.
    """
    rigid = mesh[:, RIGID_POINTS]
    centers = rigid.mean(1)
    centered = mesh - centers[:, None]
    spread = np.sqrt((centered[:, RIGID_POINTS] ** 2).sum(-1).mean(-1))
    unit = centered / spread[:, None, None]
    average = unit[0]
    for _ in range(5):
        u, _, vt = np.linalg.svd(np.einsum("fpi,pj->fij", unit[:, RIGID_POINTS], average[RIGID_POINTS]))
        u[..., -1] *= np.linalg.det(u @ vt)[:, None]
        rotations = u @ vt
        average = np.einsum("fpi,fij->pj", unit, rotations) / len(unit)
    scale, turn, origin = head_frame(average)
    return scale * (average - origin) @ turn.T, rotations @ turn.T, spread / scale, centers[:, :2]


def _symmetric(shape: np.ndarray) -> np.ndarray:
    """Shape [478, 3] in the head frame with each pair of rigid points averaged with its mirror image."""
    shape, mirror = shape.copy(), np.array([-1, 1, 1])
    right, left = PAIRS.T
    shape[right] = (shape[right] + shape[left] * mirror) / 2
    shape[left] = shape[right] * mirror
    return shape


def _into_head(
    mesh: np.ndarray, focal: float, rotations: np.ndarray, translations: np.ndarray, rigid: np.ndarray
) -> np.ndarray:
    """Mesh points [F, 478, 3] of each frame, in the coordinates of the rigid shape.

    Their depth is an affine function of the three mesh coordinates, fitted to the rigid points of each frame, because
    the depth of the mesh is biased to one side when the head is turned.
    """
    expected = np.einsum("fij,pj->fpi", rotations, rigid)[..., 2] + translations[:, None, 2]
    basis = np.concatenate((mesh - mesh[:, RIGID_POINTS].mean(1, keepdims=True), np.ones_like(mesh[..., :1])), -1)
    known = basis[:, RIGID_POINTS]
    normal, side = np.swapaxes(known, 1, 2) @ known, np.swapaxes(known, 1, 2) @ expected[..., None]
    z = (basis @ np.linalg.solve(normal, side))[..., 0]
    camera = np.concatenate((mesh[..., :2] * (-z / focal)[..., None], z[..., None]), -1)
    return (camera - translations[:, None]) @ rotations


def _cross_matrix(vectors: np.ndarray) -> np.ndarray:
    """[..., 3] -> [..., 3, 3] with M(a) b = a x b."""
    x, y, z = np.moveaxis(vectors, -1, 0)
    o = np.zeros_like(x)
    return np.stack((o, -z, y, z, o, -x, -y, x, o), -1).reshape(*x.shape, 3, 3)


_State = tuple[float, np.ndarray, np.ndarray, np.ndarray]  # focal length, rotations, translations, shape


class _Adjustment:
    """The least-squares problem of P observed points [F, P, 2] with weights [P] and prior shape [P, 3]."""

    def __init__(self, observed: np.ndarray, weights: np.ndarray, prior: np.ndarray, focal_guess: float):
        self._observed, self._weights, self._prior, self._focal_guess = observed, weights, prior, focal_guess
        self._data_weight = min(1.0, _INDEPENDENT_FRAMES / len(observed))
        self._deviation = 1.0

    def residuals(self, focal: float, rotations: np.ndarray, translations: np.ndarray, shape: np.ndarray) -> np.ndarray:
        """[F, P, 2] px."""
        camera = shape @ np.swapaxes(rotations, -1, -2) + translations[:, None]
        return -focal * camera[..., :2] / camera[..., 2:] - self._observed

    def solve(
        self, focal: float, rotations: np.ndarray, translations: np.ndarray, shape: np.ndarray | None = None
    ) -> _State:
        """Focal length, rotations [F, 3, 3], translations [F, 3] and shape [P, 3] that minimize the cost."""
        state: _State = (focal, rotations, translations, self._prior if shape is None else shape)
        damping = 1e-3
        for step in range(_MAX_STEPS):
            if step % 5 == 0:  # not every step, so that costs stay comparable
                lengths = np.linalg.norm(self.residuals(*state), axis=-1) * self._weights
                self._deviation = max(1e-3, 1.25 * np.median(lengths))  # the median of a 2-D error is 1.18 sigma
                cost = self._cost(state)
            proposal = self._step(state, damping)
            proposed = self._cost(proposal)
            if not proposed < cost:
                if damping > 1e6:
                    break
                damping *= 10
                continue
            gain = (cost - proposed) / cost
            state, cost, damping = proposal, proposed, max(damping / 10, 1e-9)
            if gain < _CONVERGED and step >= 5:
                break
        return state

    def _cost(self, state: _State) -> float:
        lengths = np.linalg.norm(self.residuals(*state), axis=-1) * self._weights / self._deviation
        huber = np.where(lengths < _HUBER, lengths**2, _HUBER * (2 * lengths - _HUBER)).sum()
        focal_error = np.log(state[0] / self._focal_guess) / _LOG_FOCAL_DEVIATION
        return self._data_weight * huber + focal_error**2 + (((state[3] - self._prior) / _SHAPE_DEVIATION) ** 2).sum()

    def _step(self, state: _State, damping: float) -> _State:
        focal, rotations, translations, shape = state
        n_frames, n_points = self._observed.shape[:2]
        turned = shape @ np.swapaxes(rotations, -1, -2)
        camera = turned + translations[:, None]
        depth = -camera[..., 2]
        ray = camera[..., :2] / depth[..., None]
        residuals = focal * ray - self._observed

        lengths = np.linalg.norm(residuals, axis=-1) * self._weights / self._deviation
        robust = np.minimum(1, _HUBER / np.maximum(lengths, 1e-12))
        weights = np.sqrt(robust) * self._weights / self._deviation
        residuals = residuals * weights[..., None]

        by_camera = np.zeros((n_frames, n_points, 2, 3))
        by_camera[..., 0, 0] = by_camera[..., 1, 1] = 1
        by_camera[..., 2] = ray
        by_camera *= (focal * weights / depth)[..., None, None]
        by_pose = np.concatenate((-by_camera @ _cross_matrix(turned), by_camera), -1)  # [F, P, 2, 6]
        by_shape = by_camera @ rotations[:, None]  # [F, P, 2, 3]
        by_focal = focal * ray * weights[..., None]  # derivative by log focal, [F, P, 2]

        # Normal equations in blocks: poses, their coupling to the shared unknowns (log focal, shape), shared.
        flat = by_pose.reshape(n_frames, -1, 6)
        pose_block = np.swapaxes(flat, 1, 2) @ flat
        pose_side = -(np.swapaxes(flat, 1, 2) @ residuals.reshape(n_frames, -1, 1))[..., 0]
        coupling = np.empty((n_frames, 6, 1 + 3 * n_points))
        coupling[..., 0] = np.einsum("fri,fr->fi", flat, by_focal.reshape(n_frames, -1))
        by_points = np.swapaxes(by_pose, 2, 3) @ by_shape  # [F, P, 6, 3]
        coupling[..., 1:] = by_points.transpose(0, 2, 1, 3).reshape(n_frames, 6, -1)
        shared = np.zeros((1 + 3 * n_points,) * 2)
        shared[0, 0] = (by_focal**2).sum()
        of_point = by_shape.transpose(1, 3, 0, 2).reshape(n_points, 3, -1)
        others = np.stack((by_focal, residuals), -1).transpose(1, 0, 2, 3).reshape(n_points, -1, 2)
        with_focal, with_residuals = np.moveaxis(of_point @ others, -1, 0)
        shared[0, 1:] = shared[1:, 0] = with_focal.ravel()
        for point, own in enumerate(of_point @ np.swapaxes(of_point, 1, 2)):
            at = slice(1 + 3 * point, 4 + 3 * point)
            shared[at, at] = own
        shared_side = -np.append((by_focal * residuals).sum(), with_residuals)

        pose_block += damping * pose_block * np.eye(6)
        inverse = np.linalg.inv(np.linalg.cholesky(pose_block))
        half = (inverse @ coupling).reshape(-1, 1 + 3 * n_points)
        half_side = (inverse @ pose_side[..., None]).reshape(-1)
        schur = self._data_weight * (shared + damping * shared * np.eye(len(shared)) - half.T @ half)
        side = self._data_weight * (shared_side - half.T @ half_side)
        prior_weights = np.append(_LOG_FOCAL_DEVIATION**-2, np.full(3 * n_points, _SHAPE_DEVIATION**-2))
        prior_errors = np.append(np.log(focal / self._focal_guess), (shape - self._prior).ravel())
        schur += np.diag(prior_weights)
        side -= prior_weights * prior_errors
        shared_step = np.linalg.solve(schur, side)

        back = (half_side - half @ shared_step).reshape(n_frames, 6, 1)
        pose_step = (np.swapaxes(inverse, 1, 2) @ back)[..., 0]
        # Like the focal length, depth is updated on a log scale: the data determine the ratio of the two.
        moved = translations + pose_step[:, 3:]
        moved[:, 2] = translations[:, 2] * np.exp(pose_step[:, 5] / translations[:, 2])
        return (
            focal * np.exp(shared_step[0]),
            rotation(pose_step[:, :3]) @ rotations,
            moved,
            shape + shared_step[1:].reshape(-1, 3),
        )
