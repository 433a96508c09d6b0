"""Headless Chromium, driven through a pipe by its DevTools protocol; and a folder served to it."""

import base64
import functools
import json
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from io import RawIOBase
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here: apt-get install chromium")

SWITCHES = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-dev-shm-usage",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-extensions",
    "--disable-features=OptimizationHints,MediaRouter", "--remote-debugging-pipe", "--enable-logging=stderr",
)  # fmt: skip
TIMEOUT_S = 120


class Page:
    """A tab. `requests`: addresses that it asked for; `errors`: what the console or an uncaught exception said."""

    def __init__(self, process: subprocess.Popen[bytes], to: int, back: RawIOBase) -> None:
        self._process, self._to, self._back = process, to, back
        self._rest = b""
        self._id = 0
        self._session: str | None = None
        self.requests: list[str] = []
        self.errors: list[str] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "DOM", "Log"):
            self.call(f"{domain}.enable")
        # Workers' requests and messages too.
        self.call("Target.setAutoAttach", autoAttach=True, waitForDebuggerOnStart=False, flatten=True)

    def call(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        self._id += 1
        message: dict[str, Any] = {"id": self._id, "method": method, "params": parameters}
        if session := session or self._session:
            message["sessionId"] = session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        wanted = self._id
        while True:
            answer = self._read()
            if answer.get("id") == wanted:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]
            self._note(answer)

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            part = self._back.read(1 << 20)
            if not part:
                raise RuntimeError(f"Chromium ended: {self._process.wait()}")
            self._rest += part
        message, _, self._rest = self._rest.partition(b"\0")
        return json.loads(message)

    def _note(self, event: dict[str, Any]) -> None:
        parameters = event.get("params", {})
        match event.get("method"):
            case "Target.attachedToTarget":
                worker = parameters["sessionId"]
                for method in ("Runtime.enable", "Network.enable"):
                    self._id += 1
                    message = {"id": self._id, "method": method, "params": {}, "sessionId": worker}
                    os.write(self._to, json.dumps(message).encode() + b"\0")
            case "Network.requestWillBeSent":
                self.requests.append(parameters["request"]["url"])
            case "Runtime.exceptionThrown":
                details = parameters["exceptionDetails"]
                self.errors.append(details.get("exception", {}).get("description", details["text"]))
            case "Log.entryAdded" if parameters["entry"]["level"] == "error":
                self.errors.append(f"{parameters['entry']['text']} {parameters['entry'].get('url', '')}")
            case "Runtime.consoleAPICalled" if parameters["type"] in ("error", "assert"):
                self.errors.append(str([argument.get("value") for argument in parameters["args"]]))

    def evaluate(self, expression: str) -> Any:
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(str(answer["exceptionDetails"]))
        return answer["result"].get("value")

    def wait(self, expression: str, timeout_s: float = TIMEOUT_S) -> Any:
        """The first true value of a JavaScript expression."""
        end = time.monotonic() + timeout_s
        while not (value := self.evaluate(expression)):
            if time.monotonic() > end:
                raise TimeoutError(f"{expression}; errors: {self.errors}; requests: {self.requests[-5:]}")
            time.sleep(0.05)
        return value

    def go(self, url: str) -> None:
        self.call("Page.navigate", url=url)
        self.wait("location.href != 'about:blank' && document.readyState == 'complete'")

    def choose_file(self, selector: str, path: Path) -> None:
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", nodeId=node, files=[str(path)])

    def point_at(self, selector: str) -> None:
        """Move the mouse onto the first such element."""
        self.evaluate(f"document.querySelector({selector!r}).scrollIntoView()")
        box = self.evaluate(
            f"(() => {{ const b = document.querySelector({selector!r}).getBoundingClientRect();"
            "return [b.x + b.width / 2, b.y + b.height / 2]; })()"
        )
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=box[0], y=box[1])

    def screenshot(self, path: Path) -> None:
        data = self.call("Page.captureScreenshot", captureBeyondViewport=True)["data"]
        path.write_bytes(base64.b64decode(data))


@contextmanager
def open_page(profile: Path, *switches: str, width: int = 1280, height: int = 900) -> Iterator[Page]:
    """A new tab of a new browser, which is ended afterwards."""
    assert CHROMIUM is not None
    here_to, there_from = os.pipe()[::-1]
    there_to, here_from = os.pipe()[::-1]
    words = [CHROMIUM, *SWITCHES, f"--user-data-dir={profile}", f"--window-size={width},{height}", *switches]

    def lay_out_pipes() -> None:
        # Chromium reads from 3 and writes to 4.
        read, write = os.dup(there_from), os.dup(there_to)
        os.dup2(read, 3)
        os.dup2(write, 4)

    with (profile.parent / "chromium.log").open("wb") as log:
        process = subprocess.Popen(
            words, stdout=log, stderr=log, preexec_fn=lay_out_pipes, pass_fds=(3, 4, there_from, there_to)
        )
    os.close(there_from)
    os.close(there_to)
    back = os.fdopen(here_from, "rb", buffering=0)
    try:
        yield Page(process, here_to, back)
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        os.close(here_to)
        back.close()


class _Quiet(SimpleHTTPRequestHandler):
    headers_of_all: tuple[tuple[str, str], ...] = ()

    def end_headers(self) -> None:
        for name, value in self.headers_of_all:
            self.send_header(name, value)
        super().end_headers()

    def log_message(self, *words: Any) -> None:
        pass


@contextmanager
def serve_folder(folder: Path, headers: dict[str, str] | None = None) -> Iterator[str]:
    """The address of a folder's static server on this machine."""
    handler = type("Handler", (_Quiet,), {"headers_of_all": tuple((headers or {}).items())})
    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(handler, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()
