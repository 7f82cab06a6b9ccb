"""The page in Chromium without a window, skipped where there is none."""

import asyncio

import pytest

from ernerf_ti.live_server.protocol import Limits
from tests.live_server.browser import BROWSER, Browser
from tests.live_server.fake_portrait import RATE, FakePortrait
from tests.live_server.running import running, until

# Notes when the picture turns white and when the beep begins, on one clock, and pairs them.
WATCH = """new Promise((resolve) => {
  const video = document.getElementById("video"), canvas = document.createElement("canvas");
  const drawing = canvas.getContext("2d", {willReadFrequently: true});
  const audio = new AudioContext(), analyser = audio.createAnalyser(), samples = new Float32Array(256);
  analyser.fftSize = 256;
  audio.createMediaStreamSource(video.srcObject).connect(analyser);
  const flashes = [], beeps = [];
  let frames = 0, white = false, loud = 0;
  const begin = performance.now();
  const look = (now, data) => {
    frames += 1;
    drawing.drawImage(video, 0, 0, 1, 1);
    const is = drawing.getImageData(0, 0, 1, 1).data[0] > 128;
    if (is && !white) flashes.push(data.expectedDisplayTime);
    white = is;
    video.requestVideoFrameCallback(look);
  };
  video.requestVideoFrameCallback(look);
  const listen = setInterval(() => {
    analyser.getFloatTimeDomainData(samples);
    const now = performance.now(), is = samples.some((value) => Math.abs(value) > 0.1);
    if (is && now - loud > 200) beeps.push(now);
    if (is) loud = now;
    if (now - begin > SECONDS * 1000) {
      clearInterval(listen);
      const offsets = beeps.map((at) => flashes.map((flash) => at - flash)
        .reduce((best, offset) => Math.abs(offset) < Math.abs(best) ? offset : best, 1e9));
      resolve({frames, flashes: flashes.length, beeps: beeps.length, offsets, fps: frames * 1000 / (now - begin)});
    }
  }, 4);
})"""
SECONDS = 3
STATUS = "document.getElementById('status').textContent"


def click(name):
    return f"document.getElementById('{name}').click()"


@pytest.mark.skipif(BROWSER is None, reason="no Chromium here")
def test_a_page_shows_the_portrait_with_its_sound_and_frees_it(tmp_path):
    async def check():
        portrait = FakePortrait((128, 128), signal=True)
        async with running(portrait, Limits(sessions=2)) as at, Browser(tmp_path) as browser:
            page = await browser.open(f"{at.address}/")
            assert portrait.sessions == []
            await page.evaluate(click("start"))
            await page.until("document.getElementById('video').videoWidth === 128")
            found = await page.evaluate(WATCH.replace("SECONDS", str(SECONDS)))
            assert found["frames"] > 0.4 * RATE * SECONDS  # of a machine that does other work
            assert found["flashes"] >= 2 and found["beeps"] >= 2
            offset = sorted(found["offsets"])[len(found["offsets"]) // 2]
            assert abs(offset) < 250  # ms, on a loaded machine, with the delays of Web Audio and of the display
            assert '"synthesized": true' in await page.evaluate("document.getElementById('stage').dataset.synthesized")
            assert await page.evaluate("document.getElementById('error').hidden")

            (session,) = portrait.sessions
            await page.evaluate(click("microphone"))  # a file of beeps that the browser brings
            await until(lambda: len(session.pushed) > 5)
            assert await page.until(f"{STATUS} === 'Speaking'")
            await page.evaluate(click("microphone"))
            await until(lambda: session.n_flushes == 1)
            await page.evaluate(click("interrupt"))
            await until(lambda: session.n_interrupts == 1)
            await page.until(f"{STATUS} === 'Live'")

            await page.evaluate("document.querySelector('[value=transparent]').click()")
            await page.until("!document.getElementById('canvas').hidden")
            opacity = "document.getElementById('canvas').getContext('2d').getImageData(X, 64, 1, 1).data[3]"
            assert await page.until(f"{opacity.replace('X', '20')} === 255")
            assert await page.evaluate(opacity.replace("X", "110")) == 0

            await page.command(
                "Emulation.setDeviceMetricsOverride", width=360, height=740, deviceScaleFactor=1, mobile=True
            )
            assert await page.evaluate("document.documentElement.scrollWidth") == 360

            second = await browser.open(f"{at.address}/")
            await second.evaluate(click("start"))
            await second.until("document.getElementById('video').videoWidth > 0")
            assert at.server.n_sessions == 2
            third = await browser.open(f"{at.address}/")
            await third.evaluate(click("start"))
            await third.until("document.getElementById('error').textContent.includes('try later')")
            await page.close()
            await until(lambda: at.server.n_sessions == 1, 3)
            await second.evaluate(click("start"))  # it says Stop now
            await until(lambda: at.server.n_sessions == 0 and portrait.n_open == 0, 3)
            assert await second.evaluate(STATUS) == "Stopped"

    asyncio.run(check())
