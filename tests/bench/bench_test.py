"""Every benchmark script at its tiny size: its own checks pass, and it prints the table of docs/benchmarks.md."""
import glob
import json
import os
import re
import subprocess
import sys

import pytest
import torch
from safetensors import safe_open

import bench_diffusers
import fake_counter
import provenance

HERE = os.path.dirname(os.path.abspath(__file__))
KINO_RENDER = os.path.join(os.environ["KINO_BIN_DIR"], "kino-render")
# Scripts with a table of their own; the rest is what they import or start.
PARTS = {"bench_test.py", "diffusers_render.py", "fake_counter.py", "gguf_k.py", "mid_size_allegro.py", "mid_size_cogvideox.py",
         "mid_size_hunyuan.py", "mid_size_ltx.py", "mid_size_mochi.py", "provenance.py"}
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


@pytest.mark.parametrize("family", sorted(bench_diffusers.FAMILIES))
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
                              "processor time of it (s)", "peak resident memory (MiB)",
                              "peak anonymous memory (MiB)"}
        for anonymous, resident in zip(table["peak anonymous memory (MiB)"][:2], table["peak resident memory (MiB)"][:2]):
            assert 0 < anonymous < resident
    # As published checkpoints have it, and as the two read alike.
    with safe_open(tmp_path / "work" / {"ltx": "0.9.5"}.get(family, family) / "model" / "text_encoder" / "model.safetensors", "pt") as file:
        table = "embed_tokens.weight" if family == "hunyuan" else "shared.weight"
        assert [name for name in file.keys() if name.endswith(("shared.weight", "embed_tokens.weight"))] == [table]


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


def test_memory_table(tiny, tmp_path):
    table = rows(tiny("memory_table.py", "--work", str(tmp_path / "work")), "published row")
    predicted = [float(row[4]) for row in table]
    assert len(table) == 4 and predicted == sorted(predicted, reverse=True)


def test_submissions_starts_and_watchers(tiny):
    text = tiny("bench_queue.py")
    table = rows(text, "what")
    assert len(table) == 7 and all(float(figure) > 0 for _, figure in table)
    calls = rows(text, "one client's calls, one after another")
    assert len(calls) == 3 and all(float(figure) > 0 for row in calls for figure in row[1:])
    started = rows(text, "from its start")
    assert len(started) == 2 and all(float(figure) > 0 for _, figure in started)
    pieces = rows(text, "one running job's pieces, from the first watcher that has one to each")
    assert len(pieces) == 2 and all(float(p99) >= float(median) >= 0 and int(threads) > 0 for _, median, p99, _, threads in pieces)


def test_counted_table(tiny, tmp_path):
    path = tmp_path / "counts.json"
    text = tiny("count_diffusers.py", "--work", str(tmp_path / "work"), "--json", str(path))
    with open(path, encoding="utf-8") as file:
        results = json.load(file)
    assert list(results) == ["LTX-Video 2B", "LTX-Video 13B", "Mochi-1"]
    for name, result in results.items():
        theirs, ours = result["diffusers"], result["kino"]
        for part in ("step", "decode"):
            print(name, part, theirs[part], ours[part])
            # The same networks; what Kino computes of the text once for all steps is less than that.
            assert ours[part]["tflop"] == pytest.approx(theirs[part]["tflop"], rel=0.02)
            for side in (theirs, ours):
                computing = side[part]["tflop"] * 1e12 / fake_counter.FLOPS_PER_SECOND
                moving = side[part]["bytes"] / fake_counter.BYTES_PER_SECOND
                # Between the larger of the two and their sum: both sides have the same limits.
                assert max(computing, moving) <= side[part]["roofline_seconds"] * 1.0001 <= (computing + moving) * 1.0002
            # The aim. What is fused here moves its tensors once.
            assert ours[part]["bytes"] < 0.6 * theirs[part]["bytes"]
        # The aim again, for the step: the decode takes frames in runs, each with launches of its own, to hold little.
        assert ours["step"]["launches"] < 0.4 * theirs["step"]["launches"]
    assert [len(row) for row in rows(text, "model")] == [13] * 9


def test_both_sides_have_the_same_limits():
    with open(os.path.join(HERE, "..", "..", "engine", "core", "kernel_counts.h"), encoding="utf-8") as file:
        header = file.read()
    for name, value in (("flops", fake_counter.FLOPS_PER_SECOND), ("bytes", fake_counter.BYTES_PER_SECOND)):
        assert float(re.search(rf"{name}_per_second = ([\de.]+);", header).group(1)) == value


def test_the_counter_of_fake_tensors():
    with fake_counter.fake_gpu(), fake_counter.Counts() as counts:
        def taken(run):
            before = counts.launches, counts.bytes_read, counts.bytes_written, counts.flops
            run()
            after = counts.launches, counts.bytes_read, counts.bytes_written, counts.flops
            return tuple(now - then for now, then in zip(after, before))

        a = torch.empty(10, 100, device="cuda")
        row, x = torch.empty(100, device="cuda"), torch.empty(2, 8, 64, dtype=torch.bfloat16, device="cuda")
        weight, bias = torch.empty(32, 64, dtype=torch.bfloat16, device="cuda"), torch.empty(32, dtype=torch.bfloat16, device="cuda")
        frames, kernel = torch.empty(1, 4, 3, 6, 6, device="cuda"), torch.empty(8, 4, 3, 3, 3, device="cuda")
        functional = torch.nn.functional
        assert taken(lambda: a * a + a) == (2, 3 * 4000, 2 * 4000, 0)
        assert taken(lambda: a + row.expand(10, 100)) == (1, 4400, 4000, 0)
        assert taken(lambda: a[:, :50] + row[::2].expand(10, 50)) == (1, 2200, 2000, 0)
        assert taken(lambda: a.unfold(1, 3, 1) * 2) == (1, 4000, 10 * 98 * 3 * 4, 0)
        assert taken(lambda: a.t()[:, 1:3].unsqueeze(0).detach().reshape(1, 200)) == (1, 800, 800, 0)  # the last copies
        assert taken(lambda: a.view(1000).unflatten(0, (10, 100)).contiguous().float()) == (0, 0, 0, 0)
        assert taken(lambda: torch.empty(5, device="cuda")) == (0, 0, 0, 0)
        assert taken(lambda: a.copy_(torch.empty_like(a))) == (1, 4000, 4000, 0)
        assert taken(a.cpu) == (0, 0, 0, 0)
        assert taken(lambda: functional.linear(x, weight, bias)) == (1, 2048 + 4096 + 64, 1024, 2 * 16 * 64 * 32)
        heads = x.view(2, 8, 4, 16).transpose(1, 2)
        assert taken(lambda: functional.scaled_dot_product_attention(heads, heads, heads)) == (1, 2048, 2048, 4 * 2 * 4 * 8 * 8 * 16)
        # The products, then the bias.
        convolved = 8 * 1 * 4 * 4 * 4
        assert taken(lambda: functional.conv3d(frames, kernel, torch.empty(8, device="cuda"))) == (
            2, 4 * 108 * 4 + 8 * 108 * 4 + convolved + 32, 2 * convolved, 2 * 8 * 16 * 4 * 27)
        assert taken(lambda: functional.pad(a, (1, 1))) == (2, 4000, 4080 + 4000, 0)
        normed = torch.empty(2, 8, 5, device="cuda")
        assert taken(lambda: functional.group_norm(normed, 4)) == (3, 320 + 64 + 320 + 128, 64 + 128 + 320, 0)


def test_every_script_with_a_table_is_here():
    scripts = {os.path.basename(path) for path in glob.glob(os.path.join(HERE, "*.py"))} - PARTS
    with open(__file__, encoding="utf-8") as file:
        tested = set(re.findall(r'tiny\("(\w+\.py)"', file.read()))
    assert scripts == tested
