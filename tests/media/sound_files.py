"""Sound files of any format."""

import av
import numpy as np

from ernerf_ti.media.video_sound import VideoSound, add_sound


def write_sound_file(path, codec, samples, rate):
    """Encode [S] mono or [C, S] samples; returns the path."""
    with av.open(str(path), "w") as file:
        sound = add_sound(file, VideoSound.of_samples(np.asarray(samples), rate), codec, frozenset())
        sound.finish(0.0)
    return path
