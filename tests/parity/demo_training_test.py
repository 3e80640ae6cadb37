"""The demo model's recipe still runs from end to end, and its scorer still judges right."""
import os
import random
import subprocess
import sys

import pytest

ROOT = os.environ["KINO_SOURCE_DIR"]
TOOLS = os.path.join(ROOT, "tools", "demo_model")
sys.path.insert(0, TOOLS)

import engines  # noqa: E402
import scenes  # noqa: E402
import score  # noqa: E402


@pytest.mark.parametrize("draw", range(4))
@pytest.mark.parametrize("motion", scenes.MOTIONS)
def test_scorer_is_right_on_drawn_clips(motion, draw):
    scene = scenes.sample(random.Random(f"{motion} {draw}"))
    scene.geometry.motion = motion
    if motion == "spin" and scene.geometry.shape == "circle":
        scene.geometry.shape = "square"
    result = score.score(scenes.render(scene), scene)
    assert (result.color, result.motion, result.background, result.shape) == (True,) * 4, scene


def test_scorer_sees_what_is_wrong():
    rng = random.Random(0)
    scene = scenes.sample(rng)
    shown = scenes.render(scene)
    scene.color = "green" if scene.color != "green" else "red"
    scene.background = "gray" if scene.background != "gray" else "black"
    scene.geometry.motion = "left" if scene.geometry.motion != "left" else "right"
    scene.geometry.shape = "star" if scene.geometry.shape != "star" else "square"
    result = score.score(shown, scene)
    assert (result.color, result.motion, result.background, result.shape) == (False,) * 4


@pytest.mark.whole  # minutes
def test_smoke_training_yields_a_loadable_folder(tmp_path):
    out = tmp_path / "model"
    subprocess.run([sys.executable, os.path.join(TOOLS, "train.py"), "--smoke", "--out", str(out)],
                   check=True, timeout=500, env={**os.environ, "OMP_NUM_THREADS": "1"})
    frames = engines.Diffusers(str(out)).render("a red star moving up", 1, num_inference_steps=2)
    assert frames.shape == (17, 64, 64, 3)
    files = [os.path.join(d, n) for d, _, names in os.walk(out) for n in names]
    assert sum(os.path.getsize(f) for f in files) < 25e6
    for path in files:
        with open(path, "rb") as file:
            assert str(tmp_path).encode() not in file.read(), f"{path} holds a path of this machine"
