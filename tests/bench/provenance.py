"""Where a benchmark's figures come from: commit, date, machine."""
import datetime
import os
import platform
import subprocess

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")


def _git(*arguments):
    return subprocess.run(["git", "-C", ROOT, *arguments], capture_output=True, text=True, check=True).stdout.strip()


def commit():
    """"commit 1a2b3c4", and whether the tree differs from it; the page that figures are appended to does not count."""
    try:
        changed = _git("status", "--porcelain", "--", ".", ":!docs/benchmarks.md")
        return f"commit {_git('rev-parse', '--short', 'HEAD')}{' + changes' if changed else ''}"
    except (OSError, subprocess.CalledProcessError):
        return "commit unknown"


def _cpuinfo(key):
    """The value of the first processor."""
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        for line in file:
            name, _, value = line.partition(":")
            if name.strip() == key:
                return value.strip()
    return ""


def machine():
    name = _cpuinfo("model name") or platform.processor() or platform.machine()
    with open("/proc/meminfo", encoding="utf-8") as file:
        gib = int(file.readline().split()[1]) / 2 ** 20
    return f"{name}, {os.cpu_count()} cores, {gib:.0f} GiB, load before the run {os.getloadavg()[0]:.1f}"


def has_bfloat16_instructions():
    return bool({"avx512_bf16", "amx_bf16"} & set(_cpuinfo("flags").split()))


def publish(text, page):
    """Prints a result, and appends it to the page if there is one."""
    print(text)
    if page:
        with open(page, "a", encoding="utf-8") as file:
            file.write("\n" + text)


def line():
    return f"{commit()}; {datetime.date.today()}; {machine()}"
