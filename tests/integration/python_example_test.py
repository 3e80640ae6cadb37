"""README's Python client, run as README says."""
import os
import re
import subprocess
import sys

import kino_client


def test_example_saves_a_clip(kinod, client, tmp_path):
    out = tmp_path / "clip.mp4"
    script = os.path.join(os.environ["KINO_SOURCE_DIR"], "examples", "python_client.py")
    done = subprocess.run([sys.executable, script, kinod.address, kino_client.DEMO_PROMPT, str(out)],
                          capture_output=True, text=True, timeout=60, cwd=tmp_path, check=False,
                          env={**os.environ, "PYTHONPATH": os.environ["KINO_GOOGLEAPIS_DIR"]})
    assert done.returncode == 0, done.stderr
    assert "17 frames" in done.stdout
    assert out.read_bytes() == bytes(client.generate(client.demo_request()).data)
    assert sorted(os.listdir(tmp_path)) == ["clip.mp4"]  # no generated files are left behind


def test_example_tells_why_it_failed(kinod, tmp_path):
    script = os.path.join(os.environ["KINO_SOURCE_DIR"], "examples", "python_client.py")
    done = subprocess.run([sys.executable, script, kinod.address, "x" * 9000, str(tmp_path / "clip.mp4")],
                          capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode != 0 and "prompt" in done.stderr


def test_readme_program_runs_as_it_stands(kinod, client, tmp_path):
    root = os.environ["KINO_SOURCE_DIR"]
    with open(os.path.join(root, "README.md"), encoding="utf-8") as file:
        programs = re.findall(r"^```python\n(.*?)^```", file.read(), re.MULTILINE | re.DOTALL)
    assert len(programs) == 1 and "127.0.0.1:50051" in programs[0]
    path = os.pathsep.join([os.path.join(root, "proto"), os.environ["KINO_GOOGLEAPIS_DIR"]])
    done = subprocess.run([sys.executable, "-c", programs[0].replace("127.0.0.1:50051", kinod.address)],
                          capture_output=True, text=True, timeout=60, cwd=tmp_path, check=False,
                          env={**os.environ, "PYTHONPATH": path})
    assert done.returncode == 0, done.stderr
    assert len(kino_client.rgb_frames((tmp_path / "clip.mp4").read_bytes())) == 17 * 64 * 64 * 3
