#!/usr/bin/env python3
"""How fast a server takes jobs and starts them: kinod with a worker that takes no time, and bench_queue as its clients.

Usage: bench_queue.py --kino-render build/bin/kino-render [--folder DIR] [--clients 16] [--seconds 10] [--starts 200]
                      [--markdown FILE] [--tiny]

The other programs lie beside kino-render. DIR is on the disk that is meant: the fsyncs are real, and how many of them that disk does
a second is told too. --markdown appends the table to a file. --tiny: seconds, whose figures mean nothing.
"""
import argparse
import json
import os
import pathlib
import shutil
import subprocess
import tempfile
import time

import provenance

ROOT = pathlib.Path(__file__).resolve().parents[2]


def fsyncs_per_second(folder):
    path = os.path.join(folder, "fsync")
    with open(path, "wb", buffering=0) as file:
        begin = time.monotonic()
        count = 0
        while time.monotonic() < begin + 1:
            file.write(b"x" * 4096)
            os.fsync(file.fileno())
            count += 1
    os.remove(path)
    return count


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--kino-render", required=True, type=pathlib.Path)
    parser.add_argument("--folder")
    parser.add_argument("--markdown")
    parser.add_argument("--tiny", action="store_true")
    for name, value in (("clients", 16), ("seconds", 10), ("starts", 200)):
        parser.add_argument(f"--{name}", default=value, type=int)
    arguments = parser.parse_args()
    built = arguments.kino_render.resolve().parent
    if arguments.tiny:
        arguments.seconds, arguments.starts = 1, 5
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = pathlib.Path(name)
        (folder / "bin").mkdir()
        shutil.copy(built / "kinod", folder / "bin" / "kinod")  # it looks for the others beside itself
        for program, other in (("kino-frontend", "kino-frontend"), ("kino-media", "kino-media"), ("kino-worker", "fake-worker")):
            (folder / "bin" / program).symlink_to(built / other)
        demo = ROOT / "models" / "demo"
        config = {"data_dir": str(folder / "data"), "listen": {"address": "127.0.0.1:0"}, "metrics": {"address": "127.0.0.1:0"},
                  "limits": {"max_queued_jobs": 10_000_000, "min_free_disk": "0"},
                  "workers": [{"name": "cpu", "device": "cpu", "threads": 1}], "log": {"level": "warning"},
                  "models": [{"name": "demo", "folder": str(demo)}]}
        (folder / "kino.yaml").write_text(json.dumps(config), encoding="utf-8")
        with open(folder / "log", "wb") as log:
            server = subprocess.Popen([folder / "bin" / "kinod", "--config", folder / "kino.yaml"], stdout=log, stderr=log)
        try:
            address = folder / "data" / "frontend.addr"
            while not address.exists():
                assert server.poll() is None, (folder / "log").read_text()
                time.sleep(0.05)
            time.sleep(2)  # the worker
            done = subprocess.run([built / "bench_queue", "--server", address.read_text().strip(), "--clients",
                                   str(arguments.clients), "--seconds", str(arguments.seconds), "--starts", str(arguments.starts)],
                                  capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
        finally:
            server.terminate()
            server.wait()
        figures = json.loads(done.stdout)
        provenance.publish("\n".join([
            "### Submissions and starts", "",
            f"{provenance.line()}; {fsyncs_per_second(name)} fsyncs of 4 KiB a second; "
            f"server and clients on one machine.", "",
            "| what | figure |", "|---|---|",
            f"| from submission to RUNNING on an idle worker, median (ms) | {figures['start_p50_ms']:.2f} |",
            f"| the same, p99 (ms) | {figures['start_p99_ms']:.2f} |",
            f"| durable submissions a second, {figures['clients']} clients | {figures['submits_per_second']:.0f} |",
            f"| one submission among them, median (ms) | {figures['submit_p50_ms']:.2f} |",
            f"| the same, p99 (ms) | {figures['submit_p99_ms']:.2f} |", ""]), arguments.markdown)


if __name__ == "__main__":
    main()
