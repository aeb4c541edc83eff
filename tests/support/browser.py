"""Chromium without a window, driven over a pipe, to see what a page looks like.

It speaks the Chrome DevTools Protocol: with --remote-debugging-pipe the browser reads messages from descriptor 3 and writes messages to
descriptor 4. A NUL ends each message.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def chromium() -> str | None:
    """The path of the browser, if this machine has one."""
    names = (os.environ.get("CHROMIUM"), "chromium", "chromium-browser", "google-chrome")
    return next((found for name in names if name and (found := shutil.which(name))), None)


class Browser:
    """One browser with one page. `requests` are the addresses that the page asked for, `problems` the complaints on its console."""

    def __init__(self, requests: int, answers: int) -> None:
        self._into, self._out = requests, answers
        self._buffer = b""
        self._last = 0
        self.requests: list[str] = []
        self.problems: list[str] = []
        target = self._ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Log", "Runtime"):
            self.ask(f"{domain}.enable")

    def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        return self._ask(method, self._session, **parameters)

    def evaluate(self, expression: str) -> Any:
        """The value of the expression, once it is there if it is a promise."""
        asked = self.ask("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in asked, asked["exceptionDetails"]
        return asked["result"].get("value")

    def open(self, page: Path | str, *, width: int, dark: bool) -> None:
        """Show the file or the address and wait until it is loaded."""
        self.requests.clear()
        self.problems.clear()
        self.look(width=width, dark=dark)
        self.ask("Page.navigate", url=page.as_uri() if isinstance(page, Path) else page)
        self._wait_for_load()

    def look(self, *, width: int, dark: bool) -> None:
        """The size of the window and the colours that its user prefers, from now on."""
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.ask("Emulation.setEmulatedMedia", features=[scheme])

    def fill(self, form: str, **fields: str) -> None:
        """Fill in fields of the form by their names."""
        filled = "".join(
            f"form.elements[{json.dumps(name)}].value = {json.dumps(value)};" for name, value in fields.items()
        )
        found = self.evaluate(
            f"(() => {{ const form = document.querySelector({json.dumps(form)}); {filled} return form !== null }})()"
        )
        assert found is True, f"there is no form {form}"

    def submit(self, form: str, **fields: str) -> None:
        """Fill in the form, press its last button as a user does, and wait for the next page."""
        self.fill(form, **fields)
        self.press(f"{form} button:last-of-type")

    def press(self, selector: str) -> None:
        """Click the link or button with the mouse, which leads to another page."""
        self.point_at(selector)
        place = self._middle(selector)
        for kind in ("mousePressed", "mouseReleased"):
            self.ask("Input.dispatchMouseEvent", type=kind, button="left", clickCount=1, **place)
        self._wait_for_load()

    def point_at(self, selector: str) -> None:
        """Scroll to the element and move the pointer over it."""
        self.evaluate(
            f"document.querySelector({json.dumps(selector)}).scrollIntoView({{block: 'center', behavior: 'instant'}})"
        )
        self.ask("Input.dispatchMouseEvent", type="mouseMoved", **self._middle(selector))

    def _middle(self, selector: str) -> dict[str, float]:
        box = self.evaluate(
            f"(() => {{ const box = document.querySelector({json.dumps(selector)}).getBoundingClientRect();"
            " return [box.x + box.width / 2, box.y + box.height / 2] })()"
        )
        return {"x": box[0], "y": box[1]}

    def _wait_for_load(self) -> None:
        while self._event() != "Page.loadEventFired":
            pass

    def screenshot(self) -> bytes:
        """The whole page as PNG."""
        return base64.b64decode(self.ask("Page.captureScreenshot", captureBeyondViewport=True)["data"])

    def keep(self, name: str, *, width: int, schemes: tuple[bool, ...] = (False, True)) -> None:
        """Keep pictures of the page in the folder that ARCHISYNC_TEST_SCREENSHOTS names, light and dark, if it is set."""
        if folder := os.environ.get("ARCHISYNC_TEST_SCREENSHOTS"):
            for dark in schemes:
                self.look(width=width, dark=dark)
                (Path(folder) / f"panel-{name}-{width}-{'dark' if dark else 'light'}.png").write_bytes(
                    self.screenshot()
                )

    def _ask(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        self._last += 1
        message = {"id": self._last, "method": method, "params": parameters}
        if session:
            message["sessionId"] = session
        os.write(self._into, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self._last:
                assert "error" not in answer, answer["error"]
                return dict(answer["result"])
            self._note(answer)

    def _event(self) -> str:
        event = self._read()
        self._note(event)
        return str(event.get("method", ""))

    def _note(self, event: dict[str, Any]) -> None:
        match event.get("method"):
            case "Network.requestWillBeSent":
                self.requests.append(event["params"]["request"]["url"])
            case "Log.entryAdded":
                self.problems.append(event["params"]["entry"]["text"])
            case "Runtime.exceptionThrown" | "Runtime.consoleAPICalled":
                self.problems.append(json.dumps(event["params"]))

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            block = os.read(self._out, 1 << 20)
            assert block, "the browser ended"
            self._buffer += block
        message, self._buffer = self._buffer.split(b"\0", 1)
        return dict(json.loads(message))


@contextmanager
def browser(program: str, folder: Path) -> Iterator[Browser]:
    """A running browser with its profile in the folder."""
    their_in, our_out = os.pipe()
    our_in, their_out = os.pipe()

    def descriptors() -> None:  # in two steps, because the pipes' own numbers may be 3 and 4
        into, out = os.dup2(their_in, 60), os.dup2(their_out, 61)
        os.dup2(into, 3)
        os.dup2(out, 4)

    process = subprocess.Popen(
        [
            program, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--remote-debugging-pipe",
            "--no-first-run", "--disable-background-networking", f"--user-data-dir={folder}", "about:blank",
        ],
        preexec_fn=descriptors, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, close_fds=False,
        start_new_session=True,
    )  # fmt: skip
    os.close(their_in)
    os.close(their_out)
    try:
        yield Browser(our_out, our_in)
    finally:
        import signal

        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        os.close(our_in)
        os.close(our_out)
