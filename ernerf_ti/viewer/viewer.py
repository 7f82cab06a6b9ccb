"""The viewer apart from its window: actions in, screens out."""

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from ernerf_ti.audio.frame_features import SAMPLE_RATE
from ernerf_ti.data.capture_files import FPS
from ernerf_ti.media.provenance.note import write_synthesized_png
from ernerf_ti.media.provenance.signing import EMBEDDED, Signer, UnsignedError
from ernerf_ti.run.folder import RunFolder
from ernerf_ti.run.trained_portrait import TrainedPortrait
from ernerf_ti.synthesis.video import SYNTHESIZED
from ernerf_ti.viewer.camera_control import CapturedDirections, field_of_view, view_intrinsics
from ernerf_ti.viewer.clip import Clip, sound_clip
from ernerf_ti.viewer.clock import PlaybackClock
from ernerf_ti.viewer.drawing import fit_text
from ernerf_ti.viewer.inbox import PICTURES, Inbox
from ernerf_ti.viewer.mesh_export import export_mesh
from ernerf_ti.viewer.panel import PanelFacts, Widget, draw_panel, panel_widgets
from ernerf_ti.viewer.picture_maker import PictureMaker
from ernerf_ti.viewer.recording import ClipExport, SessionRecording, write_camera_path
from ernerf_ti.viewer.render_job import RenderedView
from ernerf_ti.viewer.screen import Layout, compose, draw_curves, waveform
from ernerf_ti.viewer.sound import SoundOutput
from ernerf_ti.viewer.state import DIALS, KEYS, ViewState, transition
from ernerf_ti.viewer.timings import Timings
from ernerf_ti.viewer.training_session import TrainingSession

_MESSAGE_SECONDS = 6.0
_INBOX_EVERY = 0.5  # s
_FILE_ERRORS = (OSError, ValueError, ImportError)


@dataclass(frozen=True)
class RuntimeOptions:
    """Settings that are fixed while the viewer runs."""

    folder: Path
    """Where screenshots, recordings and meshes are written."""
    layout: Layout = field(default_factory=Layout)
    speech_model: Path | None = None
    inbox: Path | None = None
    """Folder whose new audio files are played and whose new images become the background."""
    refine_seconds: float = 0.03
    """Time in each tick for refining a still image."""
    train_seconds: float = 0.08
    """Time in each tick for training; it takes one step at least."""
    wait_for_sound: bool = False
    """Whether loading an audio file blocks, for scripts."""
    mesh_resolution: int = 192
    signer: Signer | None = None
    """Signs videos and screenshots."""


class Viewer:
    """Shows a portrait.

    Args:
        trained: the portrait.
        clip: played first.
        output: where the sound goes; its time drives the clip.
        options: folders and time budgets.
        time: the wall clock, s; that of the script if there is no window.
        training: set if the portrait is being trained.
        own_clip: that of the capture, to return to.
    """

    clock: PlaybackClock

    def __init__(
        self,
        trained: TrainedPortrait,
        clip: Clip,
        output: SoundOutput,
        options: RuntimeOptions,
        time: Callable[[], float] = perf_counter,
        training: TrainingSession | None = None,
        own_clip: Clip | None = None,
    ):
        self.trained, self.output, self.options, self.time = trained, output, options, time
        self.training, self.own_clip = training, own_clip
        head = trained.portrait.head
        lacking = {setting for setting, dial in DIALS.items() if dial not in trained.dial_names}
        if training is not None or not head.audio_encoder.knows_mean:
            lacking.add("mouth_gain")
        gain = head.audio_encoder.gain
        self.state = ViewState(
            *(field_of_view(trained.intrinsics, trained.size[1]), len(head.appearance.embeddings), gain),
            frozenset(lacking),
            mouth_gain=gain,
        )
        self.maker = PictureMaker(trained, training, options.refine_seconds, time)
        self.running = True
        self.message, self._message_until = "", 0.0
        self.timings = Timings()
        self.offsets: deque[float] = deque(maxlen=100_000)
        """For each image shown while playing: position of the audio minus start of the frame, s."""
        self.n_shown = 0
        """Number of different images shown while playing."""
        self.written: list[Path] = []
        """Files written so far."""
        self._export: ClipExport | None = None
        self._recording: SessionRecording | None = None
        self._loading: Future | None = None
        self._loader = ThreadPoolExecutor(1)
        self._inbox = Inbox(options.inbox) if options.inbox else None
        self._next_look = 0.0
        self._latency = 0.0
        self._tick_begin = self.time()
        self._n_pictures_shown = 0
        self._last: tuple | None = None  # contents of the last screen, and the screen
        self._captured = CapturedDirections.of(trained.poses)
        self._panel: tuple[list[Widget], np.ndarray] | None = None  # the controls as drawn last
        self._set_clip(clip)

    # Actions.

    def act(self, action: dict[str, Any]) -> None:
        """Apply an action, see :mod:`ernerf_ti.viewer.state`.

        Raises:
            ValueError, OSError, ImportError: the action failed; nothing has changed then.
        """
        before = self.state
        state, command = transition(before, action)
        if self._export is not None and (command is None or command["do"] not in ("export_clip", "quit")):
            self.say("exporting the clip; press x to stop it")
            return
        if state.head == "frozen" and before.head != "frozen":
            self.maker.frozen_frame = self.clock.frame()
        if state.training and self.training is None:
            state = replace(state, training=False)
            self.say("no training: start the viewer with --train CAPTURE")
        if state.background == "picture" != before.background and not self.maker.has_background:
            where = f", or copy one into {self.options.inbox}" if self.options.inbox else ""
            self.say(f"no background image: start the viewer with --background IMAGE{where}")
        self.state = state
        if state.playing != before.playing:
            self.clock.play() if state.playing else self.clock.pause()
        self.clock.loop, self.output.volume = state.loop, state.volume
        if command is not None:
            try:
                self._do(command)
            except KeyError as error:
                raise ValueError(
                    f"{command['do']}: expected the value {error}, got {command}; see docs/viewer.md"
                ) from None

    def say(self, text: str) -> None:
        """Show a message for some seconds."""
        self.message, self._message_until = text, self.time() + _MESSAGE_SECONDS

    # Output.

    @property
    def clip(self) -> Clip:
        return self._clip

    @property
    def recording(self) -> bool:
        return self._recording is not None

    @property
    def view(self) -> RenderedView | None:
        """The rendered view that is shown."""
        return self.maker.view

    @property
    def widgets(self) -> list[Widget]:
        """The controls on the screen; none if the layout has no panel."""
        layout = self.options.layout
        if not layout.panel:
            return []
        facts = PanelFacts(
            self.own_clip is not None and self.clip is not self.own_clip,
            self.recording,
            self._export is not None,
            self.training.text if self.training is not None else "",
            str(self.options.inbox or ""),
        )
        return panel_widgets(self.state, facts, layout.picture[0])

    def tick(self) -> np.ndarray:
        """Do what is due and return the screen [H, W, 3] uint8, the same object if nothing on it has changed."""
        self._tick_begin = self.time()
        begin = perf_counter()
        self._check_files()
        if self.state.training or self._export is not None:
            self._background_work()
        begin = self.timings.lap("work", begin)
        pictures, legend = self._pictures()
        begin = self.timings.lap("picture", begin)
        screen = self._screen(pictures, legend)
        self.timings.lap("screen", begin)
        if self._recording is not None:
            position = self.clock.position if self.clock.playing and self.state.volume else None
            without_panel = np.ascontiguousarray(screen[:, : self.options.layout.picture[0]])
            self._recording.add(without_panel, self.time(), self.clip, position)
        self.state = replace(self.state, playing=self.clock.playing)  # the clip may have ended
        return screen

    def shown(self) -> None:
        """Call this when the screen of the last tick has become visible."""
        now = self.time()
        new = self.maker.n_pictures > self._n_pictures_shown
        self._n_pictures_shown = self.maker.n_pictures
        if new:
            self.timings.note_image(now)
        if new and self.clock.playing and self.view is not None and self.view.request.clip is self.clip:
            self.n_shown += 1
            offset = self.clock.position - self.view.request.frame / FPS
            if abs(offset) < self.clock.duration / 2:  # not where the loop starts again
                self.offsets.append(offset)
            self._latency += 0.2 * (now - self._tick_begin - self._latency)

    def close(self) -> None:
        """Finish the recording, discard an unfinished export, stop the sound, save the training."""
        self.running = False
        if self._recording is not None:
            self._toggle_recording()
        if self._export is not None:
            self._export.close()
        self._loader.shutdown(wait=False, cancel_futures=True)
        self.output.close()
        if self.training is not None:
            self.training.close()

    # Commands.

    def _do(self, command: dict[str, Any]) -> None:
        name = command["do"]
        if name == "quit":
            self.running = False
        elif name == "seek":
            fraction = command.get("fraction")
            self.clock.seek(command["seconds"] if fraction is None else fraction * self.clock.duration)
        elif name == "step":
            self.clock.step(int(command.get("frames", 1)))
            self.state = replace(self.state, playing=False)
        elif name == "load":
            self._load(Path(command["path"]))
        elif name == "capture_sound":
            if self.own_clip is None:
                raise ValueError("capture: no audio of the capture; start the viewer with --capture CAPTURE")
            self._set_clip(self.own_clip)
        elif name == "background":
            self._take_background(Path(command["path"]))
        elif name == "screenshot":
            self._screenshot()
        elif name == "record":
            self._toggle_recording()
        elif name == "export_clip":
            self._toggle_export()
        elif name == "export_mesh":
            self._export_mesh(command)
        elif name == "export_path":
            self._export_path()
        else:
            self._train(name)

    def _load(self, path: Path) -> None:
        if self._loading is not None and not self._loading.done():
            raise ValueError(f"{path}: still loading another audio file; wait until it plays")
        self.say(f"loading {path.name}")
        self._loading = self._loader.submit(sound_clip, self.trained, path, self.options.speech_model)
        error = self._loading.exception() if self.options.wait_for_sound else None
        if error is not None:
            self._loading = None
            self.say("")
            raise error

    def _set_clip(self, clip: Clip) -> None:
        playing = self.state.playing
        if hasattr(self, "clock"):
            self.clock.pause()
        self._clip = clip
        self.clock = PlaybackClock(self.output, clip.samples, SAMPLE_RATE, FPS)
        self.clock.loop = self.state.loop
        self._strip, self._last = waveform(clip.samples, self.options.layout), None
        self.maker.frozen_frame = min(self.maker.frozen_frame, len(clip) - 1)
        if playing:
            self.clock.play()

    def _take_background(self, path: Path) -> None:
        self.maker.take_background(path)
        self.state = replace(self.state, background="picture")

    def _screenshot(self) -> None:
        image = self.maker.still(self.state, self.clip, self.clock.frame())
        path = self._new_path(self.state.mode.replace(" ", "_"), ".png")
        path.parent.mkdir(parents=True, exist_ok=True)
        write_synthesized_png(path, image, SYNTHESIZED)
        self._wrote(path)

    def _toggle_recording(self) -> None:
        if self._recording is None:
            self._recording = SessionRecording(self._new_path("session", ".mp4"), self.time())
            self.say("recording the screen; press w to stop")
            return
        recording, self._recording = self._recording, None
        recording.finish()
        self._wrote(recording.path)

    def _toggle_export(self) -> None:
        if self._export is not None:
            self._export.close()
            self._export = None
            self.say("export stopped")
            return
        self.act({"set": {"playing": False}})
        self._export = ClipExport(self._new_path("clip", ".mp4"), self.clip, self._export_frame)

    def _export_frame(self, k: int) -> np.ndarray:
        self.maker.view = self.maker.render(self.maker.request(self.state, self.clip, k))
        return np.concatenate(self.maker.pictures(self.state, self.clip)[0], 1)

    def _export_mesh(self, command: dict[str, Any]) -> None:
        field = self.maker.head(self.maker.request(self.state, self.clip, self.clock.frame()))
        path = self._new_path("head", command.get("suffix", ".ply"))
        resolution = command.get("resolution", self.options.mesh_resolution)
        n_vertices, n_faces = export_mesh(field, self.trained.portrait.head_grid, path, resolution)
        self._wrote(path, f" ({n_vertices} vertices, {n_faces} triangles)")

    def _export_path(self) -> None:
        path = self._new_path("camera_path", ".json")
        size = self.trained.size
        intrinsics = view_intrinsics(self.trained.intrinsics, size, self.state, size)
        write_camera_path(path, self.maker.camera_path(self.state, self.clip), intrinsics, size)
        self._wrote(path)

    def _train(self, name: str) -> None:
        if self.training is None:
            raise ValueError("training: nothing is being trained; start the viewer with --train CAPTURE")
        if name == "save_checkpoint":
            self.training.save()
            self._wrote(RunFolder(self.training.trainer.folder).checkpoint)
        else:
            self.state = replace(self.state, training=False)
            self.training.advance(0.0)
            self.maker.next_training_view = 0.0

    def _new_path(self, stem: str, suffix: str) -> Path:
        n = 0
        while (path := self.options.folder / f"{stem}_{n:03d}{suffix}").exists() or path in self.written:
            n += 1
        return path

    def _wrote(self, path: Path, more: str = "") -> None:
        self.written.append(path)
        self.say(f"wrote {path}{more}")
        if self.options.signer is not None and path.suffix in EMBEDDED:
            self.options.signer.sign(path)
            try:
                self.options.signer.finish()
            except UnsignedError as error:
                self.say(str(error))

    # What a tick does.

    def _check_files(self) -> None:
        """Play an audio file that has been loaded, and load new files of the inbox."""
        if self._export is not None:
            return
        if self._loading is not None and self._loading.done():
            loading, self._loading = self._loading, None
            try:
                self._set_clip(loading.result())
                self.say(f"playing {self.clip.name}")
                self.act({"set": {"playing": True}})
            except _FILE_ERRORS as error:
                self.say(str(error))
        now = self.time()
        if self._inbox is not None and now >= self._next_look:
            self._next_look = now + _INBOX_EVERY
            for path in self._inbox.new_files():
                try:
                    self._do({"do": "background" if path.suffix.lower() in PICTURES else "load", "path": path})
                except _FILE_ERRORS as error:
                    self.say(str(error))

    def _background_work(self) -> None:
        """Train for a while, or export the next frame."""
        if self.state.training and self.training is not None:
            self.training.advance(self.options.train_seconds)
            if self.training.finished:
                self.state = replace(self.state, training=False)
                self.say("training finished")
        if self._export is not None and self._export.advance() is None:
            export, self._export = self._export, None
            self._wrote(export.path)

    def _pictures(self) -> tuple[list[np.ndarray], str]:
        """Images to show now, and the meaning of their colors."""
        if self._export is None:
            playing = self.clock.playing
            frame = self.clock.frame(self._latency if playing else 0.0)
            self.maker.update(self.state, self.clip, frame, playing, self._latency)
        return self.maker.pictures(self.state, self.clip)

    def _screen(self, pictures: list[np.ndarray], legend: str) -> np.ndarray:
        clock, state = self.clock, self.state
        now, position = self.time(), clock.position
        view = self.view
        assert view is not None  # the pictures show it
        help_lines = [f"{name}  {key.help}" for name, key in KEYS.items()] if state.help else ()
        message = self.message if now < self._message_until else ""
        if self._export is not None:
            message = self._export.text
        strip_text = (
            f"{fit_text(self.clip.name, 240)}   {position:.2f} of {clock.duration:.2f} s   frame {clock.frame()}"
        )
        strip_text += "" if clock.playing else "   paused"
        strip_text += "   REC" if self.recording else ""
        strip_text += f"   {self.output.note}" if self.output.note else ""
        fraction = position / clock.duration if clock.duration else 0.0
        lines = [legend] if legend else []
        if state.numbers:
            lines = [*self.timings.text(now, view), *lines]
        warning = self._captured.warning(view.pose)
        panel = self._drawn_panel()
        parts = (lines, fraction, strip_text, warning, message, help_lines, self.maker.weights_version)
        if self._last is not None and self._last[0] is pictures and self._last[1] == parts and self._last[3] is panel:
            return self._last[2]
        curves = None
        if self.training is not None and self.training.curve:
            points = self.training.curve
            curves = draw_curves([p.loss for p in points], [p.psnr for p in points], self.training.text)
        screen = compose(
            *(self.options.layout, pictures, lines, self._strip, fraction, strip_text, warning, message, help_lines),
            curves,
            panel,
        )
        self._last = (pictures, parts, screen, panel)
        return screen

    def _drawn_panel(self) -> np.ndarray | None:
        layout, widgets = self.options.layout, self.widgets
        if not widgets:
            return None
        if self._panel is None or self._panel[0] != widgets:
            self._panel = widgets, draw_panel(widgets, layout.picture[0], layout.panel, layout.height)
        return self._panel[1]
