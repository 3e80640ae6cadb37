"""OpenMP waits passively in every program that computes: libgomp itself says what it read."""
import os
import subprocess

import pytest

PROGRAMS = ["kino-render", "kino-worker", "tests_engine_ops"]
FREE = {key: value for key, value in os.environ.items() if key not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}


def told(program, **environment):
    """What libgomp prints at the program's start; the last block is the process that stayed."""
    argument = "--gtest_list_tests" if program.startswith("tests_") else "--help"
    done = subprocess.run([os.path.join(os.environ["KINO_BIN_DIR"], program), argument], capture_output=True, text=True,
                          env={**FREE, "OMP_DISPLAY_ENV": "verbose", **environment}, timeout=120, check=True)
    block = done.stderr.rsplit("OPENMP DISPLAY ENVIRONMENT BEGIN", 1)[1]
    return {line.split("=")[0].split()[-1]: line.split("'")[1] for line in block.splitlines() if "=" in line}


@pytest.mark.parametrize("program", PROGRAMS)
def test_it_waits_passively(program):
    settings = told(program)
    assert settings["OMP_WAIT_POLICY"] == "PASSIVE"
    assert settings["GOMP_SPINCOUNT"] == "0"


def test_what_the_user_sets_stays():
    assert told("kino-render", OMP_WAIT_POLICY="active")["OMP_WAIT_POLICY"] == "ACTIVE"
    assert told("kino-render", GOMP_SPINCOUNT="77")["GOMP_SPINCOUNT"] == "77"


def test_the_process_and_its_arguments_stay():
    with subprocess.Popen([os.path.join(os.environ["KINO_BIN_DIR"], "kino-render"), "--no-such-flag", "a b"],
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=FREE) as process:
        _, error = process.communicate(timeout=120)
    assert process.returncode == 2 and "no-such-flag" in error
