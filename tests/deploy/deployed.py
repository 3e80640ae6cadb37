"""What tests of deploy/ share: its files, the metrics that the frontend has, and a real Prometheus."""

import json
import os
import pathlib
import re
import socket
import subprocess
import sys
import time
import urllib.request

SOURCE = pathlib.Path(os.environ["KINO_SOURCE_DIR"])
DEPLOY = SOURCE / "deploy"
DEADLINE = 60  # seconds; only ever reached by a failure

sys.path.insert(0, str(SOURCE / "tests" / "server" / "frontend"))  # frontend_fixture: a frontend and a scripted worker


def defined_metrics():
    """Every series' name that metrics.cc makes, histograms' with their endings."""
    text = (SOURCE / "server" / "frontend" / "metrics" / "metrics.cc").read_text(encoding="utf-8")
    names = set()
    for kind, name in re.findall(r'prometheus::Build(Counter|Gauge|Histogram)\(\),\s*\*registry_,\s*"(kino_[a-z_]+)"', text):
        names |= {f"{name}_{end}" for end in ("bucket", "sum", "count")} if kind == "Histogram" else {name}
    assert len(names) > 30
    return names


def used_metrics(query):
    return set(re.findall(r"\bkino_[a-z_]+", query))


def run(*arguments, cwd=None):
    return subprocess.run([str(argument) for argument in arguments], cwd=cwd, capture_output=True, text=True, timeout=DEADLINE,
                          check=False)


def eventually(condition, what):
    end = time.monotonic() + DEADLINE
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.05)
    raise AssertionError(f"did not happen: {what}")


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Service:
    """A program that serves HTTP on loopback until it is stopped."""

    def __init__(self, folder, name, *arguments):
        self.log = pathlib.Path(folder) / f"{name}.log"
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen([name, *map(str, arguments)], stdout=log, stderr=log, cwd=folder)

    def get(self, url):
        """The answer, JSON read; None where there is none yet."""
        assert self.process.poll() is None, self.log.read_text()
        try:
            with urllib.request.urlopen(url, timeout=DEADLINE) as reply:
                text = reply.read().decode()
        except OSError:
            return None
        return json.loads(text) if text.startswith("{") else text

    def stop(self):
        self.process.terminate()
        self.process.wait(DEADLINE)


class Prometheus(Service):
    def __init__(self, folder, config):
        self.url = f"http://127.0.0.1:{(port := free_port())}"
        super().__init__(folder, "prometheus", f"--config.file={config}", f"--web.listen-address=127.0.0.1:{port}",
                         f"--storage.tsdb.path={folder}/tsdb")

    def query(self, expression):
        """The samples of an instant query; None: it does not answer yet."""
        answer = self.get(f"{self.url}/api/v1/query?query={urllib.request.quote(expression)}")
        return answer and answer["data"]["result"]
