"""Drives a headless Chromium over its debugging pipe (Chrome DevTools Protocol), with the standard library only."""

import base64
import json
import os
import shutil
import subprocess
import time
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--window-size=1100,760",
    "--remote-debugging-pipe",
]


class Page:
    """One page. Use as a context manager; `profile` is a new, empty folder."""

    def __init__(self, profile: str):
        own_read, browser_write = os.pipe()
        browser_read, own_write = os.pipe()
        os.set_inheritable(browser_read, True)
        os.set_inheritable(browser_write, True)
        # The browser reads commands from descriptor 3 and writes answers to 4; a shell moves ours there.
        redirect = f'exec "$@" 3<&{browser_read} 4>&{browser_write}'
        command = [
            "bash",
            "-c",
            redirect,
            "browser",
            CHROMIUM or "",
            *FLAGS,
            f"--user-data-dir={profile}",
            "about:blank",
        ]
        self._process = subprocess.Popen(
            command, pass_fds=(browser_read, browser_write), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        os.close(browser_read)
        os.close(browser_write)
        self._in, self._out = os.fdopen(own_read, "rb"), os.fdopen(own_write, "wb")
        self._buffer, self._id, self._session = b"", 0, None
        target = next(t for t in self.call("Target.getTargets")["targetInfos"] if t["type"] == "page")
        attached = self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self._session = attached["sessionId"]
        self.errors: list[str] = []
        self.call("Runtime.enable")

    def __enter__(self) -> "Page":
        return self

    def __exit__(self, *error: object) -> None:
        self._process.terminate()
        self._process.wait(20)
        self._in.close()
        self._out.close()

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command of the protocol, and its result."""
        self._id += 1
        message = {"id": self._id, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        self._out.write(json.dumps(message).encode() + b"\0")
        self._out.flush()
        while True:
            answer = self._receive()
            if answer.get("method") == "Runtime.exceptionThrown":
                self.errors.append(answer["params"]["exceptionDetails"]["text"])
            if answer.get("id") == self._id:
                assert "error" not in answer, answer
                return answer["result"]

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            data = os.read(self._in.fileno(), 1 << 16)
            assert data, "the browser is gone"
            self._buffer += data
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)

    def open(self, url: str) -> None:
        self.call("Page.navigate", url=url)

    def evaluate(self, script: str) -> Any:
        result = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def wait_for(self, script: str, seconds: float = 40) -> Any:
        """Waits until the expression is true, and returns it."""
        end = time.monotonic() + seconds
        while not (value := self.evaluate(script)):
            assert time.monotonic() < end, f"{script} never became true"
            time.sleep(0.05)
        return value

    def click(self, selector: str, x: float = 0.5, y: float = 0.5) -> None:
        """A real mouse click at the share (x, y) of the element."""
        box = self.evaluate(
            f"(b => [b.left, b.top, b.width, b.height])(document.querySelector('{selector}').getBoundingClientRect())"
        )
        place = {"x": box[0] + x * box[2], "y": box[1] + y * box[3], "button": "left", "clickCount": 1}
        self.call("Input.dispatchMouseEvent", type="mousePressed", **place)
        self.call("Input.dispatchMouseEvent", type="mouseReleased", **place)

    def screenshot(self) -> bytes:
        return base64.b64decode(self.call("Page.captureScreenshot")["data"])
