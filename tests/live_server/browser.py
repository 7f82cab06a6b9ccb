"""Chromium without a window, driven over its debugging socket."""

import asyncio
import contextlib
import itertools
import json
import os
import shutil
import signal
import subprocess

import aiohttp

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
_OPTIONS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-audio-output"),
    *("--autoplay-policy=no-user-gesture-required", "--remote-debugging-port=0"),
    *("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"),
)


class Tab:
    """A page that is open."""

    def __init__(self, socket, browser, target):
        self._socket, self._browser, self._target = socket, browser, target
        self._ids, self._answers = itertools.count(1), {}
        self._reader = asyncio.create_task(self._read())

    async def command(self, method, **parameters):
        number = next(self._ids)
        self._answers[number] = future = asyncio.get_running_loop().create_future()
        await self._socket.send_json({"id": number, "method": method, "params": parameters})
        answer = await asyncio.wait_for(future, 30)
        assert "error" not in answer, answer
        return answer["result"]

    async def evaluate(self, script):
        """Value of an expression, of its promise if it is one."""
        result = await self.command(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True, userGesture=True
        )
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    async def until(self, script, seconds=10):
        """Wait for an expression to be true."""
        for _ in range(round(seconds / 0.05)):
            if value := await self.evaluate(script):
                return value
            await asyncio.sleep(0.05)
        raise AssertionError(f"{script} did not become true; {await self.evaluate('document.body.innerText')}")

    async def close(self):
        await self._browser.close_tab(self._target)
        self._reader.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._reader
        await self._socket.close()

    async def _read(self):
        async for message in self._socket:
            answer = json.loads(message.data)
            if waiting := self._answers.pop(answer.get("id"), None):
                waiting.set_result(answer)


class Browser:
    """`async with Browser(folder) as browser`, then `await browser.open(url)`."""

    def __init__(self, folder):
        self._profile = folder / "profile"

    async def __aenter__(self):
        with open(os.devnull, "w") as nowhere:
            self._process = subprocess.Popen(
                [BROWSER, *_OPTIONS, f"--user-data-dir={self._profile}", "about:blank"],
                stdout=nowhere,
                stderr=nowhere,
                start_new_session=True,
            )
        self._client = aiohttp.ClientSession()
        port = self._profile / "DevToolsActivePort"
        for _ in range(600):
            if port.exists() and port.read_text().count("\n"):
                break
            await asyncio.sleep(0.05)
        self._address = f"http://127.0.0.1:{port.read_text().split()[0]}/json"
        return self

    async def __aexit__(self, *error):
        await self._client.close()
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    async def open(self, url):
        async with self._client.put(f"{self._address}/new?{url}") as answer:
            target = await answer.json(content_type=None)
        socket = await self._client.ws_connect(target["webSocketDebuggerUrl"], max_msg_size=1 << 26)
        tab = Tab(socket, self, target["id"])
        for _ in range(200):
            with contextlib.suppress(AssertionError):  # between two documents there is nowhere to evaluate
                if await tab.evaluate("location.href !== 'about:blank' && document.readyState === 'complete'"):
                    break
            await asyncio.sleep(0.05)
        return tab

    async def close_tab(self, target):
        async with self._client.get(f"{self._address}/close/{target}") as answer:
            await answer.read()
