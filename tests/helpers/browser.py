"""A headless Chromium over its DevTools pipe: opens a page, runs expressions in it, remembers what went wrong."""

import fcntl
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
    "--disable-background-networking", "--remote-debugging-pipe",
)  # fmt: skip
# Chromium reads commands from descriptor 3 and answers on 4; a small process puts the pipes there and becomes it.
LAUNCH = (
    "import os, sys; os.dup2(int(sys.argv[1]), 3); os.dup2(int(sys.argv[2]), 4); os.execv(sys.argv[3], sys.argv[3:])"
)


def chromium() -> str | None:
    """The path of a Chromium, or None."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Browser:
    """`with Browser() as page: page.open(path); page.run("document.title")`.

    `errors` holds console errors, uncaught exceptions and refused content of the page now open; `requests` the
    addresses that it asked for beyond itself, data URIs aside.
    """

    def __init__(self, patience: float = 60.0):
        self.patience, self.errors, self.requests = patience, list[str](), list[str]()
        self._last, self._session, self._rest, self._events = 0, None, b"", []

    def __enter__(self):
        self._home = tempfile.TemporaryDirectory(prefix="browser", ignore_cleanup_errors=True)
        to_child, from_child = os.pipe(), os.pipe()
        ends = [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (to_child[0], from_child[1])]
        self._write, self._read = to_child[1], from_child[0]
        self._process = subprocess.Popen(
            [sys.executable, "-c", LAUNCH, *map(str, ends), chromium(), *FLAGS, f"--user-data-dir={self._home.name}"],
            pass_fds=ends, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        for end in (*ends, to_child[0], from_child[1]):
            os.close(end)
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")
        return self

    def __exit__(self, *_):
        try:
            self._session = None
            self.send("Browser.close")
            self._process.wait(10)
        except (OSError, RuntimeError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait()
        for end in (self._write, self._read):
            os.close(end)
        self._home.cleanup()

    def send(self, method, **parameters):
        """Send a DevTools command and return its result. Raises RuntimeError where Chromium says no or nothing."""
        self._last += 1
        command = {"id": self._last, "method": method, "params": parameters}
        command |= {"sessionId": self._session} if self._session else {}
        os.write(self._write, json.dumps(command).encode() + b"\0")
        while (answer := self._next()).get("id") != self._last:
            self._note(answer)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']}")
        return answer["result"]

    def open(self, path, width=1280, height=900, dark=False):
        """Open a file of this machine in a window of that size and wait until it has loaded."""
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1,
                  mobile=width < 600)  # fmt: skip
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", features=[scheme])
        self.errors, self.requests, self._events = [], [], []
        self._page = path.resolve().as_uri()
        self.send("Page.navigate", url=self._page)
        while "Page.loadEventFired" not in self._events:
            self._note(self._next())

    def run(self, expression):
        """The value of an expression in the page."""
        found = self.send("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in found:
            raise RuntimeError(str(found["exceptionDetails"].get("exception") or found["exceptionDetails"]))
        return found["result"].get("value")

    def press(self, key):
        """Press and let go of a key: Enter, Tab or a space."""
        code = {"Enter": 13, "Tab": 9, " ": 32}[key]
        text = {"Enter": "\r", " ": " "}.get(key, "")
        for kind in ("keyDown", "keyUp"):
            self.send("Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=code,
                      **({"text": text} if text and kind == "keyDown" else {}))  # fmt: skip

    def _next(self):
        """The next message from Chromium."""
        until = time.monotonic() + self.patience
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._read], [], [], max(0.0, until - time.monotonic()))
            read = os.read(self._read, 1 << 20) if ready else b""
            if not read:
                raise RuntimeError("the browser does not answer")
            self._rest += read
        message, self._rest = self._rest.split(b"\0", 1)
        return json.loads(message)

    def _note(self, event):
        method, told = event.get("method", ""), event.get("params", {})
        self._events.append(method)
        if method == "Runtime.exceptionThrown":
            self.errors.append(str(told["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled" and told["type"] in ("error", "assert"):
            self.errors.append(str(told["args"]))
        elif method == "Log.entryAdded" and told["entry"]["level"] == "error":
            self.errors.append(told["entry"]["text"])
        elif method == "Page.javascriptDialogOpening":
            self.errors.append(f"dialog: {told['message']}")
            # answered without waiting: a dialog holds up every other command
            os.write(self._write, json.dumps({"id": 0, "sessionId": self._session, "method":
                     "Page.handleJavaScriptDialog", "params": {"accept": True}}).encode() + b"\0")  # fmt: skip
        elif method == "Network.requestWillBeSent":
            address = told["request"]["url"]
            if not address.startswith("data:") and address != getattr(self, "_page", None):
                self.requests.append(address)
