"""Every executable of the build that loads OpenMP waits passively in it, unless its user says otherwise.

libgomp itself says what it goes by (OMP_DISPLAY_ENV): a spin count of 0 is passive, 300000 is what it does when nothing is set.
"""

import os
import pathlib
import re
import subprocess

import pytest

BIN = pathlib.Path(os.environ["KINO_BIN_DIR"])
SOURCE = pathlib.Path(os.environ["KINO_SOURCE_DIR"])
NAMES = (BIN.parent / "executables.txt").read_text().split()
SETTINGS = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")


def loads_openmp(file):
    dynamic = subprocess.run(["readelf", "-d", file], check=True, capture_output=True, text=True).stdout
    return bool(re.search(r"NEEDED.*\[lib(gomp|torch_cpu)\.", dynamic))


OPENMP = [name for name in NAMES if (BIN / name).exists() and loads_openmp(BIN / name)]


def spin_count(command, executable=None, **settings):
    env = {key: value for key, value in os.environ.items() if key not in SETTINGS}
    result = subprocess.run(command, executable=executable, capture_output=True, text=True, timeout=120,
                            env={**env, "OMP_DISPLAY_ENV": "verbose", **settings})
    assert result.returncode == 0, result.stderr
    counts = set(re.findall(r"GOMP_SPINCOUNT = '(\d+)'", result.stderr))
    assert len(counts) == 1, result.stderr
    return int(counts.pop())


def test_the_programs_that_compute_are_among_them():
    assert "kino-render" in OPENMP and "tests_engine" in OPENMP
    assert "kino-worker" in OPENMP or "kino-worker" not in NAMES
    assert not {"kinod", "kino-frontend", "kino-media", "kino"} & set(OPENMP)


@pytest.mark.parametrize("name", OPENMP)
def test_waits_passively(name):
    flag = "--gtest_list_tests" if name.startswith("tests_") else "--version"
    assert spin_count([BIN / name, flag]) == 0


@pytest.mark.parametrize("settings, count", [
    ({"GOMP_SPINCOUNT": "7"}, 7), ({"OMP_WAIT_POLICY": "active"}, 30_000_000_000),
    ({"OMP_WAIT_POLICY": "active", "GOMP_SPINCOUNT": "7"}, 7)])
def test_the_users_setting_wins(settings, count):
    assert spin_count([BIN / "kino-render", "--version"], **settings) == count


def test_a_setting_with_a_longer_name_is_another():
    assert spin_count([BIN / "kino-render", "--version"], OMP_WAIT_POLICY_OTHER="active") == 0


def test_it_may_be_called_by_another_name_from_its_own_folder(monkeypatch):
    monkeypatch.chdir(BIN)
    assert spin_count(["any name", "--version"], executable="./kino-render") == 0


def running(tmp_path, **settings):
    """kino-render as the system shows it while it reads its request: the command that was given, its arguments, its environment."""
    request = tmp_path / "request.json"
    os.mkfifo(request)
    command = [str(BIN / "kino-render"), "--model", str(SOURCE / "models/demo"), "--request", str(request),
               "--out", str(tmp_path / "two words.npy"), "--quiet"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=settings) as process:
        with open(request, "w") as end:  # opens once the program, which is then in main(), does
            shown = [pathlib.Path(f"/proc/{process.pid}/{file}").read_text().split("\0")[:-1]
                     for file in ("cmdline", "environ")]
            name = pathlib.Path(f"/proc/{process.pid}/comm").read_text().strip()
            end.write("no request")
        told = process.communicate(timeout=120)[1]
    assert process.returncode == 3, told
    assert name == "kino-render"
    return command, *shown


def test_process_id_name_arguments_and_environment_stay(tmp_path):
    command, arguments, environment = running(tmp_path, A="1", EMPTY="")
    assert arguments == command
    assert environment == ["A=1", "EMPTY=", "OMP_WAIT_POLICY=passive"]


@pytest.mark.parametrize("name, value", [("GOMP_SPINCOUNT", "7"), ("OMP_WAIT_POLICY", "active"), ("OMP_WAIT_POLICY", "")])
def test_nothing_is_added_to_the_users_setting(tmp_path, name, value):
    assert running(tmp_path, **{name: value})[2] == [f"{name}={value}"]


def test_an_empty_environment_will_do(tmp_path):
    assert running(tmp_path)[2] == ["OMP_WAIT_POLICY=passive"]
