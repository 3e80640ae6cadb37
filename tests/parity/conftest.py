"""Shared by the parity tests: one thread, slices of the matrices, and a summary of the worst errors at the end of a run."""
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import kino_render  # noqa: E402

kino_render.keep_cpu_limits()

import oracle  # noqa: E402,F401  keeps the Hugging Face libraries offline before they are imported

import torch  # noqa: E402

import matrix  # noqa: E402

torch.set_num_threads(1)

_lines = []


def note(line):
    """Adds a line to the summary that is printed after the last test, passed or failed."""
    _lines.append(line)


def pytest_configure(config):
    config.kino_note = note
    config.addinivalue_line("markers", "whole: a case of the whole matrix only (see matrix.py)")


def pytest_collection_modifyitems(config, items):
    if matrix.is_whole():
        return
    left_out = [item for item in items if item.get_closest_marker("whole")]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if not item.get_closest_marker("whole")]


def pytest_terminal_summary(terminalreporter):
    if _lines:
        terminalreporter.section("parity")
        for line in _lines:
            terminalreporter.write_line(line)
