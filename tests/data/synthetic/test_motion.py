import numpy as np

from ernerf_ti.data.synthetic.motion import natural_motion


def test_poses_are_rigid_and_move_like_a_head():
    poses = natural_motion(500, 1).poses
    assert poses.dtype == np.float64
    rotations = poses[:, :3, :3]
    identities = np.broadcast_to(np.eye(3), (500, 3, 3))
    np.testing.assert_allclose(rotations @ rotations.transpose(0, 2, 1), identities, atol=1e-12)
    np.testing.assert_allclose(np.linalg.det(rotations), 1)
    distances = np.linalg.norm(poses[:, :3, 3], axis=1)
    assert 0.9 < distances.min() and distances.max() < 1.1
    # The head turns by up to about 12 degrees, and by less than 2 from frame to frame.
    facing = np.degrees(np.arccos(np.clip(rotations[:, 2, 2], -1, 1)))
    assert 5 < facing.max() < 16
    steps = rotations[1:].transpose(0, 2, 1) @ rotations[:-1]
    turns = np.degrees(np.arccos(np.clip((np.trace(steps, axis1=1, axis2=2) - 1) / 2, -1, 1)))
    assert 0.05 < turns.mean() and turns.max() < 2


def test_the_torso_follows_the_head_late():
    motion = natural_motion(2000, 2)
    heads = np.linalg.inv(motion.poses)[:, 0, 2]  # turn to the right
    torsos = motion.torsos
    assert np.allclose(torsos[:, 3], (0, 0, 0, 1))
    trunk = np.linalg.inv(torsos)[:, 0, 2]
    assert np.std(trunk) < 0.5 * np.std(heads)

    def agreement(lag: int) -> float:
        return np.corrcoef(heads[: len(heads) - lag], trunk[lag:])[0, 1]

    best = max(range(30), key=agreement)
    assert 3 <= best <= 12 and agreement(best) > 0.8


def test_blinks_close_fully_and_rarely():
    blinks = natural_motion(1500, 3).blinks
    assert blinks.min() == 0 and blinks.max() == 1
    starts = np.count_nonzero((blinks[1:] > 0.5) & (blinks[:-1] <= 0.5))
    assert 60 / 6 < starts < 60 / 1.5
    assert np.mean(blinks > 0.5) < 0.15


def test_frequent_blinks_hold_closed_eyes_in_the_same_poses():
    natural, frequent = natural_motion(1500, 3), natural_motion(1500, 3, "frequent")
    assert frequent.poses.tobytes() == natural.poses.tobytes()
    closed = frequent.blinks > 0.9
    assert 0.12 < closed.mean() < 0.45
    assert 0.2 < np.mean(frequent.blinks < 0.1)
    # In left and right turns of the head alike.
    turned = frequent.poses[:, 0, 2]
    assert turned[closed].min() < np.quantile(turned, 0.1) and turned[closed].max() > np.quantile(turned, 0.9)


def test_motion_is_that_of_the_seed():
    first, again, other = natural_motion(40, 1), natural_motion(40, 1), natural_motion(40, 2)
    longer = natural_motion(80, 1)
    assert first.poses.tobytes() == again.poses.tobytes()
    assert np.abs(first.poses - other.poses).max() > 0.01
    np.testing.assert_allclose(longer.poses[:40], first.poses, atol=1e-12)
