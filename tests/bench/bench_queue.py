#!/usr/bin/env python3
"""How fast a server takes jobs and starts them, what watchers cost, and how long a frontend takes to serve a long history: kinod with
a worker that does what prompts say, and bench_queue and bench_watchers as its clients, on a server each; then a frontend by itself
over a store that bench_store has made.

Usage: bench_queue.py --kino-render build/bin/kino-render [--folder DIR] [--clients 16] [--seconds 10] [--starts 200]
                      [--waiting 10000] [--live 1000] [--stalled 200] [--queued 100000] [--ended 1000000] [--markdown FILE] [--tiny]

The other programs lie beside kino-render. DIR is on the disk that is meant: the fsyncs are real, and how many of them that disk does
a second is told too. --markdown appends the table to a file. --tiny: seconds, whose figures mean nothing.
"""
import argparse
import contextlib
import json
import os
import pathlib
import shutil
import subprocess
import tempfile
import time

import provenance

ROOT = pathlib.Path(__file__).resolve().parents[2]
HISTORY_MODELS = ["ltx", "mochi", "wan", "rare"]  # bench_store.cc's


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


@contextlib.contextmanager
def fake_server(built, folder):
    """A kinod with fake-worker in `folder`; gives its address and its frontend's process."""
    (folder / "bin").mkdir(parents=True)
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
        children = pathlib.Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text(encoding="ascii").split()
        frontend = next(pid for pid in children if b"kino-frontend" in pathlib.Path(f"/proc/{pid}/cmdline").read_bytes())
        yield address.read_text().strip(), frontend
    finally:
        server.terminate()
        server.wait()


def figures_of(program, arguments, *names):
    command = [program] + [str(word) for name in names for word in (f"--{name}", getattr(arguments, name.replace("-", "_")))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def start_over_history(built, folder, arguments):
    """Seconds until a frontend serves its first call, and what it holds then."""
    data = folder / "data"
    data.mkdir(parents=True, mode=0o700)
    subprocess.run([built / "bench_store", "--folder", data, "--queued", str(arguments.queued), "--ended", str(arguments.ended),
                    "--rounds", "1", "--keep"], check=True, stdout=subprocess.DEVNULL)
    (data / "jobs.db").rename(data / "kino.db")
    size = (data / "kino.db").stat().st_size
    demo = str(ROOT / "models" / "demo")
    config = {"data_dir": str(data), "listen": {"address": "127.0.0.1:0"}, "metrics": {"address": "127.0.0.1:0"},
              "limits": {"max_queued_jobs": 10_000_000, "min_free_disk": "0"}, "log": {"level": "warning"},
              "models": [{"name": name, "folder": demo} for name in HISTORY_MODELS]}
    (folder / "kino.yaml").write_text(json.dumps(config), encoding="utf-8")
    address = data / "frontend.addr"
    with open(folder / "log", "wb") as log:
        begin = time.monotonic()
        server = subprocess.Popen([built / "kino-frontend", "--config", folder / "kino.yaml"], stderr=log)
        try:
            while not address.exists():
                assert server.poll() is None, (folder / "log").read_text()
                time.sleep(0.001)
            subprocess.run([built / "kino", "jobs", "--server", address.read_text().strip()], check=True, stdout=subprocess.DEVNULL,
                           stderr=subprocess.DEVNULL)
            seconds = time.monotonic() - begin
            status = pathlib.Path(f"/proc/{server.pid}/status").read_text(encoding="ascii")
        finally:
            server.terminate()
            server.wait()
    resident = int(status.split("VmRSS:")[1].split()[0]) / 1024
    return "\n".join([
        "### A start over a long history", "",
        f"{provenance.line()}; {arguments.queued} queued and {arguments.ended} ended jobs in a file of {size >> 20} MiB.", "",
        "| from its start | figure |", "|---|---|",
        f"| until a frontend has answered its first list (s) | {seconds:.2f} |",
        f"| what it holds then (MiB) | {resident:.0f} |", ""])


def watchers_table(figures, fsyncs, arguments):
    def calls(name):
        return " | ".join(f"{figures[f'{name}_{call}_{p}_ms']:.2f}" for call in ("get", "submit") for p in ("p50", "p99"))

    def fan_out(name):
        return (f"{figures[f'{name}_p50_ms']:.1f} | {figures[f'{name}_p99_ms']:.1f} | {figures[f'{name}_more_mib']:.0f} | "
                f"{figures[f'{name}_threads']:.0f}")

    return [
        "### Watchers", "",
        f"{provenance.line()}; {fsyncs} fsyncs of 4 KiB a second; server and clients on one machine.", "",
        "| one client's calls, one after another | GetJob, median (ms) | p99 | SubmitJob, median (ms) | p99 |",
        "|---|---|---|---|---|",
        f"| no watchers | {calls('alone')} |",
        f"| beside {arguments.waiting} watchers of as many queued jobs | {calls('beside')} |",
        f"| while the queue moves and each of them is told | {calls('moving')} |", "",
        f"The frontend grows by {figures['bytes_of_a_watcher'] / 1024:.1f} KiB for each of these watchers, from "
        f"{figures['threads_alone']:.0f} threads to {figures['threads_beside']:.0f}. When the queue moved, the last of them was told after "
        f"{figures['all_told_ms']:.0f} ms at most.", "",
        "| one running job's pieces, from the first watcher that has one to each | median (ms) | p99 (ms) | the frontend grows by "
        "(MiB) | threads |",
        "|---|---|---|---|---|",
        f"| {arguments.live} watchers, all reading | {fan_out('all_live')} |",
        f"| {arguments.live - arguments.stalled} reading, {arguments.stalled} that do not | {fan_out('some_stalled')} |", ""]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--kino-render", required=True, type=pathlib.Path)
    parser.add_argument("--folder")
    parser.add_argument("--markdown")
    parser.add_argument("--tiny", action="store_true")
    for name, value in (("clients", 16), ("seconds", 10), ("starts", 200), ("waiting", 10_000), ("live", 1000), ("stalled", 200),
                        ("calls", 2000), ("pace-ms", 400), ("queued", 100_000), ("ended", 1_000_000)):
        parser.add_argument(f"--{name}", default=value, type=int)
    arguments = parser.parse_args()
    built = arguments.kino_render.resolve().parent
    if arguments.tiny:
        arguments.seconds, arguments.starts = 1, 5
        arguments.waiting, arguments.live, arguments.stalled, arguments.calls, arguments.pace_ms = 20, 5, 2, 10, 10
        arguments.queued, arguments.ended = 100, 1000
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = pathlib.Path(name)
        with fake_server(built, folder / "queue") as (arguments.server, arguments.pid):
            figures = figures_of(built / "bench_queue", arguments, "server", "clients", "seconds", "starts")
        provenance.publish("\n".join([
            "### Submissions and starts", "",
            f"{provenance.line()}; {fsyncs_per_second(name)} fsyncs of 4 KiB a second; "
            f"server and clients on one machine.", "",
            "| what | figure |", "|---|---|",
            f"| from submission to RUNNING on an idle worker, median (ms) | {figures['start_p50_ms']:.2f} |",
            f"| the same, p99 (ms) | {figures['start_p99_ms']:.2f} |",
            f"| durable submissions a second, {figures['clients']} clients | {figures['submits_per_second']:.0f} |",
            f"| one submission among them, median (ms) | {figures['submit_p50_ms']:.2f} |",
            f"| the same, p99 (ms) | {figures['submit_p99_ms']:.2f} |",
            f"| one of the jobs that wait is cancelled, median (ms) | {figures['cancel_p50_ms']:.2f} |",
            f"| the same, p99 (ms) | {figures['cancel_p99_ms']:.2f} |", ""]), arguments.markdown)
        with fake_server(built, folder / "watchers") as (arguments.server, arguments.pid):
            figures = figures_of(built / "bench_watchers", arguments, "server", "pid", "waiting", "live", "stalled", "calls",
                                 "pace-ms")
        provenance.publish("\n".join(watchers_table(figures, fsyncs_per_second(name), arguments)), arguments.markdown)
        provenance.publish(start_over_history(built, folder / "start", arguments), arguments.markdown)


if __name__ == "__main__":
    main()
