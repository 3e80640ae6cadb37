"""Every benchmark script at its tiny size: its own checks pass, and it prints the table of docs/benchmarks.md."""
import glob
import os
import re
import subprocess
import sys

import pytest
from safetensors import safe_open

import provenance

HERE = os.path.dirname(os.path.abspath(__file__))
KINO_RENDER = os.path.join(os.environ["KINO_BIN_DIR"], "kino-render")
# Scripts with a table of their own; the rest is what they import or start.
PARTS = {"bench_test.py", "diffusers_render.py", "gguf_k.py", "mid_size_ltx.py", "mid_size_mochi.py", "provenance.py"}
COMMIT = r"commit ([0-9a-f]{7,}( \+ changes)?|unknown); \d{4}-\d\d-\d\d; "


@pytest.fixture
def tiny(tmp_path):
    """tiny(script, *flags) -> what it printed, which is also what it appended to a page."""
    def run(script, *flags):
        page = tmp_path / "page.md"
        page.write_text("# Page\n", encoding="utf-8")
        done = subprocess.run([sys.executable, os.path.join(HERE, script), "--kino-render", KINO_RENDER, "--tiny",
                               "--markdown", str(page), *flags], capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stdout + done.stderr
        text = page.read_text(encoding="utf-8")
        assert text.startswith("# Page\n") and text.removeprefix("# Page\n").strip() in done.stdout
        assert re.search(COMMIT, text), text
        return text
    return run


def rows(text, first):
    """Cells of the rows of the table whose head begins with `first`."""
    lines = text.splitlines()
    at = next(index for index, line in enumerate(lines) if line.startswith(f"| {first} |"))
    found = []
    for line in lines[at + 2:]:
        if not line.startswith("|"):
            break
        found.append([cell.strip() for cell in line.strip("|").split("|")])
    return found


@pytest.mark.parametrize("family", ["ltx", "mochi"])
def test_a_family_against_diffusers(family, tiny, tmp_path):
    asked = ["float32", "bfloat16"]
    text = tiny("bench_diffusers.py", "--family", family, "--work", str(tmp_path / "work"))
    dtypes = [dtype for dtype in asked if dtype == "float32" or provenance.has_bfloat16_instructions()]
    assert ("bfloat16 frames against diffusers' float32: PSNR" in text) == ("bfloat16" in dtypes)
    assert ("bfloat16: not measured on this CPU" in text) == (asked != dtypes)
    assert [dtype for dtype in ("float32", "bfloat16") if f"| {dtype} |" in text] == dtypes
    error = float(re.search(r"float32 frames: max abs difference (\S+)", text).group(1))
    assert error <= 1e-3
    for dtype in dtypes:
        table = {row[0]: [float(cell) for cell in row[1:]] for row in rows(text, dtype)}
        assert set(table) == {"load (s)", "text encode (s)", "denoise step (s)", "VAE decode (s)", "whole process (s)",
                              "peak resident memory (MiB)", "peak anonymous memory (MiB)"}
        for anonymous, resident in zip(table["peak anonymous memory (MiB)"][:2], table["peak resident memory (MiB)"][:2]):
            assert 0 < anonymous < resident
    # As published checkpoints have it, and as the two read alike.
    with safe_open(tmp_path / "work" / {"ltx": "0.9.5", "mochi": "mochi"}[family] / "model" / "text_encoder" / "model.safetensors", "pt") as file:
        assert [name for name in file.keys() if name.endswith(("shared.weight", "embed_tokens.weight"))] == ["shared.weight"]


def test_lossy_options(tiny):
    text = tiny("bench_lossy.py")
    table = rows(text, "option")
    assert len(table) == 5 + provenance.has_bfloat16_instructions()
    for _, measured, planned, *_ in table:
        assert measured == planned
    assert ("not measured on this CPU" in text) != provenance.has_bfloat16_instructions()


def test_planned_table(tiny, tmp_path):
    table = rows(tiny("plan_table.py", "--work", str(tmp_path / "work")), "plan")
    assert [row[0] for row in table] == ["none", "block:1", "nf4"]
    for column in (1, 4):  # peaks of the two models
        none, block, nf4 = (float(row[column]) for row in table)
        assert block < none and nf4 < none


def test_every_script_with_a_table_is_here():
    scripts = {os.path.basename(path) for path in glob.glob(os.path.join(HERE, "*.py"))} - PARTS
    with open(__file__, encoding="utf-8") as file:
        tested = set(re.findall(r'tiny\("(\w+\.py)"', file.read()))
    assert scripts == tested
