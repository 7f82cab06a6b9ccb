import pytest

from ernerf_ti.data.synthetic.synthetic_portrait import SyntheticPortrait


@pytest.fixture(scope="session")
def portrait(device) -> SyntheticPortrait:
    return SyntheticPortrait(n_frames=125, size=64, seed=3, voice="alto", device=device)
