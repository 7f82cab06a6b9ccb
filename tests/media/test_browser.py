"""Videos as a browser plays them: Chromium without a window, skipped where there is none."""

import http.server
import json
import os
import queue
import shutil
import signal
import subprocess
import threading
from functools import partial

import numpy as np
import pytest

from ernerf_ti.media.video_formats import Encoding
from ernerf_ti.media.video_sound import VideoSound
from ernerf_ti.media.video_writer import VideoWriter
from tests.media.sound_files import write_sound_file

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
WIDTH, HEIGHT, RATE, SECONDS = 128, 96, 30, 1.0
COLORS = np.array([[200, 40, 40], [40, 180, 60], [50, 60, 200], [220, 210, 60]], np.uint8)
FILES = {"h264.mp4": "h264", "av1.mp4": "av1", "vp9.webm": "vp9", "av1.webm": "av1", "h264.mkv": "h264"}

# Plays each file through, and reports the colors in the middle of the four quarters of its last picture.
PAGE = """<!doctype html><meta charset="utf-8"><body><script>
async function play(name) {
  const video = document.createElement("video"), result = {name};
  const event = (kind) => new Promise((resolve, reject) => {
    video.addEventListener(kind, resolve, {once: true});
    video.addEventListener("error", () => reject(new Error(video.error.message)), {once: true});
  });
  video.src = name;
  document.body.append(video);
  try {
    await event("loadedmetadata");
    Object.assign(result, {width: video.videoWidth, height: video.videoHeight, duration: video.duration});
    const ended = event("ended");
    await video.play();
    await ended;
    const canvas = document.createElement("canvas"), context = canvas.getContext("2d");
    [canvas.width, canvas.height] = [video.videoWidth, video.videoHeight];
    context.drawImage(video, 0, 0);
    result.colors = [[1, 1], [3, 1], [1, 3], [3, 3]].map(([x, y]) =>
      [...context.getImageData(x * canvas.width / 4, y * canvas.height / 4, 1, 1).data].slice(0, 3));
    Object.assign(result, {time: video.currentTime, sound: video.webkitAudioDecodedByteCount,
                           frames: video.getVideoPlaybackQuality().totalVideoFrames});
  } catch (error) { result.error = String(error); }
  await fetch("/", {method: "POST", body: JSON.stringify(result)});
}
FILES.forEach(play);
</script>"""


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves a folder, and keeps what is posted."""

    def __init__(self, *arguments, results, **options):
        self.results = results
        super().__init__(*arguments, **options)

    def do_POST(self):
        self.results.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *arguments):
        pass


@pytest.fixture(scope="module")
def played(tmp_path_factory):
    """File name -> what the browser reported."""
    folder = tmp_path_factory.mktemp("browser")
    tone = 0.3 * np.sin(2 * np.pi * 440 * np.arange(round(48_000 * SECONDS)) / 48_000)
    sound = write_sound_file(folder / "sound.wav", "pcm_s16le", np.stack([tone, tone]), 48_000)
    image = np.repeat(np.repeat(COLORS.reshape(2, 2, 3), HEIGHT // 2, 0), WIDTH // 2, 1)
    for name, codec in FILES.items():
        writer = VideoWriter(folder / name, RATE, VideoSound.of_file(sound, SECONDS), Encoding(codec))
        for _ in range(round(RATE * SECONDS)):
            alpha = np.full((HEIGHT, WIDTH, 1), 255, np.uint8)
            writer.write(np.concatenate((image, alpha), 2) if codec == "vp9" else image)
        writer.finish()
    (folder / "page.html").write_text(PAGE.replace("FILES", json.dumps(list(FILES))))
    results = queue.Queue()
    handler = partial(Handler, directory=str(folder), results=results)
    options = ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-audio-output")
    options += ("--autoplay-policy=no-user-gesture-required", "--remote-debugging-port=0")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        page = f"http://127.0.0.1:{server.server_port}/page.html"
        with open(os.devnull, "w") as nowhere:
            browser = subprocess.Popen(
                [BROWSER, *options, f"--user-data-dir={folder / 'profile'}", page],
                stdout=nowhere,
                stderr=nowhere,
                start_new_session=True,
            )
        try:
            found = [results.get(timeout=60) for _ in FILES]
        finally:
            os.killpg(browser.pid, signal.SIGKILL)
            browser.wait()
            server.shutdown()
    return {result["name"]: result for result in found}


@pytest.mark.skipif(BROWSER is None, reason="no Chromium here")
@pytest.mark.parametrize("name", FILES)
def test_a_browser_plays_the_video_with_its_sound_to_the_end(name, played):
    result = played[name]
    assert "error" not in result
    assert (result["width"], result["height"]) == (WIDTH, HEIGHT)
    assert result["duration"] == pytest.approx(SECONDS, abs=0.03)
    assert result["time"] == pytest.approx(SECONDS, abs=0.03)
    assert result["frames"] >= RATE * SECONDS - 2
    assert result["sound"] > 10_000  # bytes
    # The browser calculates coarsely; another matrix or range would be off by more than 20.
    np.testing.assert_allclose(result["colors"], COLORS, atol=12)
