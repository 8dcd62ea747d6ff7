"""pictures.py: photograph the chosen experiment's report and its runs in MLflow -> docs/report.png, docs/mlflow.png.

--labels: of its report the figure of what labels buy alone -> docs/NAME.png."""

import argparse
import base64
import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from selfsup import process

if __name__ == "__main__":
    process.guard()  # first of all: what follows takes seconds to import

from selfsup import config, errors, tracking  # noqa: E402
from selfsup.errors import UserError  # noqa: E402
from selfsup.tracking import store, view  # noqa: E402

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
SIZE = {"report": (1400, 720), "mlflow": (1600, 860)}
PATIENCE = 90  # seconds for a page, and for MLflow's server, which imports for a while
# Of the report: from the results' heading to the first figures, without the notes between them.
REPORT = """(() => {
    for (const list of document.querySelectorAll("ul.notes")) list.remove();
    const from = document.getElementById("results");
    const svg = document.querySelector("h2#results ~ * svg, h2#results ~ svg");
    const end = (svg || document.querySelector("table")).getBoundingClientRect().bottom;
    const top = from.getBoundingClientRect().top + 2;
    return {x: 0, width: innerWidth, y: top + scrollY, height: end - top};
})()"""
# Of the report: the figure of what labels buy, with its heading.
LABELS = """(() => {
    const from = document.getElementById("labels");
    const svg = document.querySelector("h2#labels ~ svg, h2#labels ~ .wide-plot svg");
    if (!svg) return null;
    from.nextElementSibling.remove();
    const box = svg.getBoundingClientRect(), top = from.getBoundingClientRect().top + 2;
    return {x: Math.max(0, box.left - 20), width: box.width + 40, y: top + scrollY, height: box.bottom - top + 10};
})()"""
# Of MLflow: the table of runs with its accuracies, without what covers it.
TABLE = 'document.querySelectorAll("[role=row] a[href*=\'/runs/\']").length > 0'
TIDY = """(() => {
    for (const button of document.querySelectorAll("button[aria-label='Close assistant'], button[aria-label='Close']"))
        button.click();
})()"""


class Browser:
    """Chromium without a window, spoken to by the DevTools protocol through a pair of pipes."""

    def __init__(self, program, profile):
        words = [program, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--remote-debugging-pipe",
                 f"--user-data-dir={profile}", "about:blank"]
        # It reads from descriptor 3 and writes to 4: the shell makes them of our pipes.
        shell = ["sh", "-c", 'exec "$@" 3<&0 4>&1 </dev/null >/dev/null', "sh", *words]
        self.process = subprocess.Popen(shell, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                                        preexec_fn=process.die_with_parent, start_new_session=True)
        self.count, self.rest, self.session = 0, b"", {}
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = {"sessionId": self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]}

    def call(self, method, **params):
        """What the browser answers to a command of the protocol. Raises UserError if it ends before."""
        self.count += 1
        message = {"id": self.count, "method": method, "params": params, **self.session}
        with contextlib.suppress(BrokenPipeError):  # it has ended, and below it says nothing
            self.process.stdin.write(json.dumps(message).encode() + b"\0")
            self.process.stdin.flush()
        while True:
            while b"\0" not in self.rest:
                part = os.read(self.process.stdout.fileno(), 1 << 16)
                if not part:
                    raise UserError("Chromium ended before its picture was taken")
                self.rest += part
            answer, _, self.rest = self.rest.partition(b"\0")
            answer = json.loads(answer)
            if answer.get("id") == self.count:
                if "error" in answer:
                    raise UserError(f"Chromium does not do {method}: {answer['error']['message']}")
                return answer["result"]

    def value(self, script):
        """What a JavaScript expression is in the page."""
        return self.call("Runtime.evaluate", expression=script, returnByValue=True)["result"].get("value")

    def open(self, url, ready, size):
        """Go there and wait until the expression `ready` holds. Raises UserError if it does not come to that."""
        view = {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": False}
        self.call("Emulation.setDeviceMetricsOverride", **view)
        self.call("Page.navigate", url=url)
        self.wait(ready, url)

    def wait(self, ready, url):
        deadline = time.monotonic() + PATIENCE
        while not self.value(ready):
            if time.monotonic() > deadline:
                raise UserError(f"within {PATIENCE} s {url} does not show what is to be photographed")
            time.sleep(0.2)

    def shoot(self, path, clip=None):
        """The page as it stands, or its part `clip` of the page's coordinates, as a PNG."""
        more = {"clip": {"scale": 1, **clip}, "captureBeyondViewport": True} if clip else {}
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png", **more)["data"]))

    def close(self):
        self.process.kill()
        self.process.wait()


@contextlib.contextmanager
def browser():
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        raise UserError(f"pictures are taken by Chromium, and none of {', '.join(PROGRAMS)} is on PATH: install one")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        opened = Browser(program, profile)
        try:
            yield opened
        finally:
            opened.close()


def report(page, out, experiment, part=REPORT):
    """A part of the report: the table of results and the figures below it, unless another is asked for."""
    file = Path("data/report") / experiment / "report.html"
    if not file.exists():
        raise UserError(f"no such file: {file}: `make repro` makes it")
    page.open(file.resolve().as_uri(), 'document.readyState == "complete" && !!document.getElementById("results")',
              SIZE["report"])
    clip = page.value(part)
    if not clip:
        raise UserError(f"{file} has no such figure: no runs that differ in their labels are compared there")
    page.shoot(out, clip)


@contextlib.contextmanager
def server():
    """The address of an MLflow of the moment, on the runs of this folder."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    uri = os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlflow.db"
    words = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", uri, "--port", str(port), "--workers", "1"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    env = {**os.environ, **store.SETTINGS, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}  # which takes ten processes
    started = subprocess.Popen(words, **quiet, env=env, preexec_fn=process.die_with_parent, start_new_session=True)
    try:
        deadline = time.monotonic() + PATIENCE
        while socket.socket().connect_ex(("127.0.0.1", port)):
            if time.monotonic() > deadline or started.poll() is not None:
                raise UserError("`mlflow ui` did not start: `make ui` says why")
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(started.pid, 15)  # with its workers
        started.wait()


def runs(page, out, params):
    """The table of the experiment's runs, as `make ui` opens it."""
    tracking.sync(params)
    with store.client(Path.cwd()) as client:
        experiment = client.get_experiment_by_name(params.experiment).experiment_id
    with server() as address:
        url = address + view.address(experiment)
        page.open(url, TABLE, SIZE["mlflow"])
        page.value(TIDY)
        time.sleep(2)  # what is closed moves away
        page.shoot(out)


@errors.main
def main(words=None):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="docs", type=Path, help="the folder they go to (default: %(default)s)")
    parser.add_argument("--labels", action="store_true", help="only the figure of what labels buy")
    args = parser.parse_args(words)
    params = config.load()
    with browser() as page:
        if args.labels:
            report(page, args.out / f"{params.experiment}.png", params.experiment, LABELS)
            return print(f"the figure of {params.experiment} is in {args.out}")
        report(page, args.out / "report.png", params.experiment)
        runs(page, args.out / "mlflow.png", params)
    print(f"pictures of {params.experiment} are in {args.out}")


if __name__ == "__main__":
    main()
