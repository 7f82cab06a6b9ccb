"""What is spoken when: segments of sound on the timeline of frames, and the audio features around a frame."""

import threading
from collections import deque
from dataclasses import dataclass, field

import numpy as np

from ernerf_ti.audio.context import AFTER, BEFORE
from ernerf_ti.audio.windows import STEPS_PER_FRAME, WINDOW
from ernerf_ti.live.features import SegmentSteps, StreamingFeatures, Voice
from ernerf_ti.live.frame import FPS, SOUND_PER_FRAME, SOUND_RATE
from ernerf_ti.live.quality import MOST_LATE
from ernerf_ti.live.sound import SegmentSound, SoundQueueFull

_HALF = WINDOW // 2 // STEPS_PER_FRAME
_PAST, _FUTURE = BEFORE + _HALF, AFTER - 1 + _HALF - 1
"""Frames before and after a frame whose steps are in its eight windows: 8 and 6."""
_FADE = (2 / 3, 1 / 3)
"""What the features keep of a speech in the frames after it was interrupted."""
_FADE_SAMPLES = SOUND_RATE // 100


@dataclass(eq=False)
class _Segment:
    number: int
    first_frame: int
    """Not spoken before."""
    sound: SegmentSound
    steps: SegmentSteps
    cut: bool = False
    """Interrupted."""
    faded: bool = False
    """Its sound was faded out."""
    ended: bool = False
    """A frame said that it ends."""

    @property
    def n_frames(self) -> int | None:
        """None while more may come."""
        return -(-self.sound.n_spoken // SOUND_PER_FRAME) if self.sound.ended else None

    def has(self, index: int) -> bool:
        """Whether the sound of a frame is there."""
        n = self.n_frames
        return (index + 1) * SOUND_PER_FRAME <= self.sound.n_spoken if n is None else index < n


_Place = tuple[_Segment, int]
"""A segment and the number of a frame in it."""


@dataclass(frozen=True, eq=False)
class Moment:
    """What a frame has of speech."""

    place: _Place | None
    """None while nobody speaks."""
    around: tuple[_Place | None, ...]
    """From 8 frames before it to 9 frames after it."""
    kept: float = 1.0
    """What remains of the features, as a part, after an interruption."""
    ended: _Segment | None = None
    """A segment whose end was only known after its last frame."""


@dataclass(frozen=True, eq=False)
class Heard:
    """The sound of a frame; see :class:`ernerf_ti.live.frame.LiveFrame`."""

    sound: np.ndarray
    speaking: bool = False
    segment: int | None = None
    starts: bool = False
    ends: bool = False


@dataclass(frozen=True, eq=False)
class _Ahead:
    """Steps that were computed before a frame needed them."""

    segment: _Segment
    n: int
    """The first n of the segment."""
    before: Voice
    """Of the session, without them."""


@dataclass(eq=False)
class SpeechTrack:
    """Segments on the timeline. Not safe for threads, :meth:`steps` and :meth:`prepare` aside: the session has a lock.

    Args:
        features: of the portrait.
        look_ahead: steps of features after a frame that its windows know; beyond them the last one is held.
        limit: seconds of sound that wait at most.
    """

    features: StreamingFeatures
    look_ahead: int
    limit: float
    _voice: Voice = field(init=False)
    _waiting: deque[_Segment] = field(default_factory=deque, init=False)
    """The segment that is spoken and those that follow it."""
    _n_segments: int = field(default=0, init=False)
    _at: _Place | None = field(default=None, init=False)
    """The last frame that was spoken, also while its segment waits for sound."""
    _tail: _Place | None = field(default=None, init=False)
    _past: deque[_Place | None] = field(init=False)
    _fade: int | None = field(default=None, init=False)
    """Frames since an interruption."""
    _heard: _Place | None = field(default=None, init=False)
    _computing: threading.Lock = field(default_factory=threading.Lock, init=False)
    """Held while steps are computed."""
    _ahead: deque[_Ahead] = field(default_factory=deque, init=False)

    def __post_init__(self) -> None:
        self._voice = self.features.voice()
        self._past = deque([None] * _PAST, _PAST)

    @property
    def buffered(self) -> float:
        """Seconds of sound that wait."""
        return sum(len(segment.sound.spoken) for segment in self._waiting) / SOUND_RATE

    def push(self, samples: np.ndarray, rate: int, first_frame: int) -> None:
        """Add [n] mono samples to the open segment, or begin one that is not spoken before a frame.

        Raises SoundQueueFull if there is no room for them.
        """
        after = self.buffered + len(samples) / rate
        if after > self.limit:
            raise SoundQueueFull(
                f"pcm: expected at most {self.limit:g} s of sound that waits, got {after:.1f} s with this piece; "
                "push it later, when LiveSession.buffered is less"
            )
        if not len(samples):
            return
        if not self._waiting or self._waiting[-1].sound.ended:
            sound = SegmentSound()
            steps = SegmentSteps(sound, self.features, self._voice)
            self._waiting.append(_Segment(self._n_segments, first_frame, sound, steps))
            self._n_segments += 1
        self._waiting[-1].sound.push(samples, rate)

    def flush(self) -> None:
        """End the open segment."""
        if self._waiting:
            self._waiting[-1].sound.end()

    def interrupt(self, in_flight: bool) -> float:
        """Drop all sound.

        Args:
            in_flight: whether a frame was made that was not delivered; the sound fades out in the next frame.

        Returns:
            Seconds of the segment that were delivered; 0 if none was being spoken.
        """
        played = 0.0
        if self._heard is not None:
            segment, index = self._heard
            played = min((index + 1) / FPS, segment.sound.n_spoken / SOUND_RATE)
        if self._at is not None:
            segment, index = self._at
            for dropped in (segment, *self._waiting):
                dropped.cut = True
            if not in_flight:
                self._tail = segment, index + 1
            self._fade = 0
        self._at = self._heard = None
        self._waiting.clear()
        return played

    def advance(self, frame: int) -> Moment:
        """Go on to the next frame of the timeline, or a later one."""
        place, ended = self._tail, None
        if place is None:
            following = self._following(self._at, frame)
            if following is not None and following[0].has(following[1]):
                place = following
            if self._at is not None and (following is None or following[0] is not self._at[0]):
                # Its segment is over.
                if not self._at[0].ended:
                    ended = self._at[0]
                    ended.ended = True
                self._waiting.popleft()
                self._at = None
            if place is not None:
                self._at = place
                place[0].ended = place[0].n_frames == place[1] + 1
        self._tail = None
        if self._fade == len(_FADE):
            self._fade = None
            self._past = deque((old if old and not old[0].cut else None for old in self._past), _PAST)
        kept = 1.0 if self._fade is None else _FADE[self._fade]
        self._fade = None if self._fade is None else self._fade + 1
        around = [*self._past, place]
        at = self._at if place is None else place
        for offset in range(1, _FUTURE + MOST_LATE + 1):
            at = self._following(at, frame + offset)
            around.append(at)
        self._past.append(place)
        return Moment(place, tuple(around), kept, ended)

    def steps(self, moment: Moment, n_late: int = 0) -> np.ndarray:
        """[30, C] features from 8 frames before to 6 frames after a frame, or after one of up to 3 frames later, of
        which less is known.

        Call it in the order of the frames, of which any may be left out. It touches only what no other method but
        :meth:`prepare` does: the session calls it without its lock.
        """
        with self._computing:
            return self._strip(moment, n_late)

    def prepare(self, moment: Moment) -> None:
        """Compute the steps of a frame and those that the next one needs, as far as their sound has come.

        It may run in another thread while the frame is rendered. What :meth:`steps` returns does not depend on it, also
        after an interruption: what is known of the voice forgets what no frame has needed by then.
        """
        with self._computing:
            for i in range(self._n_known + STEPS_PER_FRAME):
                place = moment.around[i // STEPS_PER_FRAME]
                if place is not None and not place[0].cut:
                    n = STEPS_PER_FRAME * place[1] + i % STEPS_PER_FRAME + 1
                    if i < self._n_known:
                        self._compute(place[0], n)
                    else:
                        self._compute_ahead(place[0], n)

    def _strip(self, moment: Moment, n_late: int) -> np.ndarray:
        silence, n_known = self.features.silence, self._n_known
        strip = np.empty(((_PAST + 1 + _FUTURE + n_late) * STEPS_PER_FRAME, len(silence)), np.float32)
        last = silence
        for i in range(len(strip)):
            place = moment.around[i // STEPS_PER_FRAME]
            if i < n_known and place is None:
                last = silence
            elif i < n_known and place is not None:
                segment, number = place[0], STEPS_PER_FRAME * place[1] + i % STEPS_PER_FRAME
                self._compute(segment, number + 1)
                known = segment.steps.get(number)
                last = last if known is None else known
            strip[i] = last
        if moment.place is not None:
            moment.place[0].steps.forget(STEPS_PER_FRAME * (moment.place[1] - _PAST))
        strip = strip[n_late * STEPS_PER_FRAME :]
        return silence + np.float32(moment.kept) * (strip - silence) if moment.kept < 1 else strip

    @property
    def _n_known(self) -> int:
        """Steps from 8 frames before a frame that its windows know."""
        return (_PAST + 1) * STEPS_PER_FRAME + self.look_ahead

    def _compute(self, segment: _Segment, n: int) -> None:
        """Compute the first n steps of a segment, which a frame needs."""
        while self._ahead and (self._ahead[0].segment.number, self._ahead[0].n) <= (segment.number, n):
            self._forget_if_cut(self._ahead.popleft(), segment)
        segment.steps.compute(n)

    def _compute_ahead(self, segment: _Segment, n: int) -> None:
        while self._ahead and self._ahead[0].segment.cut:
            self._forget_if_cut(self._ahead.popleft(), segment)
        before = self._voice.copy()
        if segment.steps.compute(n):
            self._ahead.append(_Ahead(segment, n, before))

    def _forget_if_cut(self, ahead: _Ahead, following: _Segment) -> None:
        """Take the steps back if no frame will need them; the segment that is computed now is another one."""
        if ahead.segment.cut and ahead.segment is not following:
            self._voice.restore(ahead.before)
            self._ahead.clear()

    def deliver(self, moment: Moment) -> Heard:
        """The sound of a frame; called for each frame in order."""
        sound = np.zeros((1, SOUND_PER_FRAME), np.float32)
        self._heard = None
        if moment.place is None:
            if moment.ended is None:
                return Heard(sound)
            return Heard(sound, False, moment.ended.number, False, True)
        segment, index = moment.place
        if segment.cut:
            if segment.faded:
                return Heard(sound)
            samples = segment.sound.spoken.take(_FADE_SAMPLES)
            sound[0, : len(samples)] = samples * np.linspace(1, 0, len(samples), dtype=np.float32)
            segment.faded = True
            return Heard(sound, False, segment.number, False, True)
        samples = segment.sound.spoken.take(SOUND_PER_FRAME)
        sound[0, : len(samples)] = samples
        self._heard = moment.place
        return Heard(sound, True, segment.number, index == 0, segment.n_frames == index + 1)

    def _following(self, place: _Place | None, frame: int) -> _Place | None:
        """What comes after a place, at a frame."""
        waiting = iter(self._waiting)
        if place is not None and not place[0].cut:
            segment, index = place
            n = segment.n_frames
            if n is None or index + 1 < n:
                return segment, index + 1
            for other in waiting:
                if other is segment:
                    break
        following = next(waiting, None)
        return (following, 0) if following is not None and following.first_frame <= frame else None


def windows_of(steps: np.ndarray) -> np.ndarray:
    """[30, C] features around a frame -> [8, C, 16], its windows."""
    n = BEFORE + AFTER
    first = STEPS_PER_FRAME * np.arange(n)
    return np.ascontiguousarray(steps[first[:, None] + np.arange(WINDOW)].transpose(0, 2, 1))


def silent_steps(silence: np.ndarray) -> np.ndarray:
    """[C] a step of silence -> [30, C] around a frame in it."""
    return np.tile(silence, ((_PAST + 1 + _FUTURE) * STEPS_PER_FRAME, 1))
