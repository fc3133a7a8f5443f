"""A headless Chromium of the system's packages, driven over its own protocol on two pipes: no driver has to be installed.

`Browser` opens one page of a program that all tests of a process share; `run` evaluates JavaScript there, `draw` sends pointer
events as a mouse would, and `messages` and `requests` hold what the page's console said and what it asked for. `findings` checks
the page by axe's rules, where axe-core-python is installed.
"""
from __future__ import annotations

import atexit
import base64
import functools
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
COLOURS = ("color-contrast", "link-in-text-block")
"""The accessibility rules that a page may pass in one colour scheme and break in another."""


def installed() -> str:
    """The program; the test is skipped where there is none."""
    return (next((found for name in NAMES if (found := shutil.which(name))), None)
            or pytest.skip("no Chromium here: apt-get install chromium"))


class _Chromium:
    """The program, and the two pipes on which it takes commands and answers."""

    def __init__(self, program: str) -> None:
        self.profile, self.owner = tempfile.mkdtemp(prefix="tcn-browser-"), os.getpid()
        reading, self._write = os.pipe()
        self._read, writing = os.pipe()

        def handles() -> None:  # the browser reads commands from handle 3 and writes answers to handle 4
            low, high = os.dup(reading), os.dup(writing)
            os.dup2(low, 3)
            os.dup2(high, 4)

        self.process = subprocess.Popen(
            [program, "--headless=new", "--remote-debugging-pipe", "--no-sandbox", "--disable-gpu", "--no-first-run",
             "--disable-background-networking", f"--user-data-dir={self.profile}", "about:blank"],
            close_fds=False, preexec_fn=handles, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.close(reading)
        os.close(writing)
        self._rest, self._last = b"", 0
        atexit.register(self._end)

    def _end(self) -> None:
        if os.getpid() == self.owner:  # a fork of this process ends without it
            self.process.kill()
            self.process.wait()
            shutil.rmtree(self.profile, ignore_errors=True)

    def call(self, method: str, session: str, parameters: dict[str, Any], note: Callable[[dict[str, Any]], None]
             ) -> dict[str, Any]:
        """One command of the protocol; its result. `note` gets what is told before it."""
        self._last += 1
        command = {"id": self._last, "method": method, "params": parameters} | ({"sessionId": session} if session else {})
        os.write(self._write, json.dumps(command).encode() + b"\0")
        while True:
            while b"\0" not in self._rest:
                part = os.read(self._read, 1 << 16)
                assert part, "the browser has ended"
                self._rest += part
            text, _, self._rest = self._rest.partition(b"\0")
            found = json.loads(text)
            if found.get("id") == self._last:
                assert "error" not in found, (method, found["error"])
                return dict(found["result"])
            note(found)


@functools.cache
def _chromium(program: str) -> _Chromium:
    """One for all tests of this process: its start takes as long as a test."""
    return _Chromium(program)


class Browser:
    """One page, in a window and with a store of its own; a context manager."""

    def __init__(self, program: str, width: int = 1200, height: int = 900) -> None:
        if _chromium(program).process.poll() is not None:
            _chromium.cache_clear()
        self._program, self._session = _chromium(program), ""
        self.messages: list[str] = []
        self.requests: list[str] = []
        self._context = self.call("Target.createBrowserContext")["browserContextId"]
        target = self.call("Target.createTarget", url="about:blank", browserContextId=self._context, newWindow=True, width=width,
                           height=height)["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *_: object) -> None:
        self._session = ""
        self.call("Target.disposeBrowserContext", browserContextId=self._context)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command of the protocol; its result."""
        return self._program.call(method, self._session, parameters, self._noted)

    def _noted(self, told: dict[str, Any]) -> None:
        if self._session and told.get("sessionId") == self._session:
            self._note(told.get("method", ""), told.get("params", {}))

    def _note(self, event: str, told: dict[str, Any]) -> None:
        if event == "Network.requestWillBeSent":
            self.requests.append(told["request"]["url"])
        elif event == "Runtime.exceptionThrown":
            self.messages.append(str(told["exceptionDetails"].get("exception", told)))
        elif event == "Log.entryAdded" and told["entry"]["level"] in ("error", "warning"):
            self.messages.append(told["entry"]["text"])
        elif event == "Runtime.consoleAPICalled":
            self.messages.append(str(told["args"]))

    def run(self, script: str) -> Any:
        """The value of a JavaScript expression; of a promise, what it becomes."""
        found = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def until(self, script: str, seconds: float = 60) -> None:
        """Wait until an expression is true."""
        end = time.monotonic() + seconds
        while not self.run(script):
            assert time.monotonic() < end, f"not within {seconds} seconds: {script}"
            time.sleep(0.1)

    def open(self, address: str) -> None:
        """Load a page, whole."""
        self.call("Page.navigate", url=address)
        self.until(f"location.href.startsWith({address!r}) && document.readyState === 'complete'")

    def draw(self, points: Sequence[tuple[float, float]]) -> None:
        """One stroke by the mouse, through points in pixels of the window."""
        def mouse(kind: str, point: tuple[float, float], buttons: int) -> None:
            self.call("Input.dispatchMouseEvent", type=kind, x=point[0], y=point[1], button="left", buttons=buttons, clickCount=1)

        mouse("mousePressed", points[0], 1)
        for point in points[1:]:
            mouse("mouseMoved", point, 1)
        mouse("mouseReleased", points[-1], 0)

    def move(self, x: float, y: float) -> None:
        """The mouse at a place of the window, without a button."""
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def press(self, key: str) -> None:
        """A key that writes nothing, such as `Tab` or `ArrowRight`; Enter activates what has the focus."""
        codes = {"Tab": 9, "Enter": 13, "Escape": 27, "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40}
        text = {"text": "\r"} if key == "Enter" else {}
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=codes[key], **text)

    def findings(self, *rules: str, but: Sequence[str] = (), within: str = "body",
                 impacts: Sequence[str] = ("serious", "critical")) -> list[str]:
        """What axe's accessibility rules (those named; else all `but` some) object to within an element, with the first
        place of each;
        the test is skipped without axe."""
        package = pytest.importorskip("axe_core_python", reason="axe-core-python is not installed")
        self.run((Path(package.__file__).with_name("axe.min.js")).read_text(encoding="utf-8") + "; 0")
        chosen = {"resultTypes": ["violations"], "rules": {rule: {"enabled": False} for rule in but}}
        if rules:
            chosen["runOnly"] = {"type": "rule", "values": rules}
        found = self.run(f"axe.run({within!r}, {json.dumps(chosen)}).then(told => told.violations.map(one => "
                         "[one.impact, `${one.id}: ${one.nodes.length} × ${one.nodes[0].html.slice(0, 160)}`]))")
        return [text for impact, text in found if impact in impacts]

    def screenshot(self, path: Path) -> None:
        """The window as a PNG."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))
