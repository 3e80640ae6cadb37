"""The demo model's recipe still runs from end to end, and its scorer still judges right."""
import inspect
import os
import random
import subprocess
import sys

import diffusers
import numpy as np
import pytest
import torch

ROOT = os.environ["KINO_SOURCE_DIR"]
TOOLS = os.path.join(ROOT, "tools", "demo_model")
sys.path.insert(0, TOOLS)

import common  # noqa: E402
import conditions  # noqa: E402
import engines  # noqa: E402
import geometry  # noqa: E402
import latent_code  # noqa: E402
import scenes  # noqa: E402
import score  # noqa: E402
import tasks  # noqa: E402
import tokenizer  # noqa: E402
import train_transformer  # noqa: E402

MODEL = os.path.join(ROOT, "models", "demo")
RIGHT = (True,) * len(score.ASPECTS)


def aspects(result):
    return tuple(getattr(result, name) for name in score.ASPECTS)


def a_scene(motion, shape="star"):
    return scenes.Scene(scenes.Geometry(shape, motion, "medium", 13.0, [.5] * 6), "red", "black")


@pytest.mark.parametrize("draw", range(4))
@pytest.mark.parametrize("motion", scenes.MOTIONS)
@pytest.mark.parametrize("task", tasks.TASKS)
def test_scorer_is_right_on_drawn_clips(task, motion, draw):
    scene = scenes.sample(random.Random(f"{motion} {draw}"))
    scene.geometry.motion = motion
    if motion == "spin" and scene.geometry.shape == "circle":
        scene.geometry.shape = "square"
    result = score.score(scenes.render(scene), scene, tasks.given(task, scene))
    assert aspects(result) == RIGHT, scene


def test_scorer_sees_what_is_wrong():
    rng = random.Random(0)
    scene = scenes.sample(rng)
    shown = scenes.render(scene)
    scene.color = "green" if scene.color != "green" else "red"
    scene.background = "gray" if scene.background != "gray" else "black"
    scene.geometry.motion = "left" if scene.geometry.motion != "left" else "right"
    scene.geometry.shape = "star" if scene.geometry.shape != "star" else "square"
    result = score.score(shown, scene)
    assert aspects(result)[:4] == (False,) * 4


@pytest.mark.parametrize("task", ["i2v", "v2v", "middle"])
def test_scorer_sees_that_given_frames_are_not_shown(task):
    scene = a_scene("right")
    given = tasks.given(task, scene)
    shown = scenes.render(scene)
    assert aspects(score.score(shown, scene, given)) == RIGHT
    elsewhere = np.roll(shown, 4, 2)
    assert aspects(score.score(elsewhere, scene, given)) == (*RIGHT[:4], False)
    scene.color = "green"
    assert not score.score(scenes.render(scene), scene, given).kept
    scene.color, scene.background = "red", "gray"
    assert not score.score(scenes.render(scene), scene, given).kept


def test_scorer_judges_how_a_clip_goes_on_not_what_was_given():
    scene, other = a_scene("right"), a_scene("right", "circle")
    given = tasks.given("v2v", scene)
    count = len(given.frames)
    shown = scenes.render(scene)
    stays = shown.copy()
    stays[count:] = shown[count - 1]
    assert not score.score(stays, scene, given).motion
    changes = shown.copy()
    changes[count:] = scenes.render(other)[count:]
    result = score.score(changes, scene, given)
    assert (result.shape, result.kept) == (False, True)


@pytest.mark.parametrize("task,beginning,picture_frame", [("v2v", 3, None), ("middle", 0, 8)])
def test_training_gives_the_transformer_what_the_condition_pipeline_gives_it(task, beginning, picture_frame):
    prompt = "a red star moving up on a black background"
    engine = engines.Diffusers(MODEL)
    calls = []
    engine.transformer.register_forward_pre_hook(lambda _, args, call: calls.append(call), with_kwargs=True)
    engine.render(prompt, 1, tasks.given(task, a_scene("up")), num_inference_steps=2)
    want = {name: value[1:] for name, value in calls[0].items() if isinstance(value, torch.Tensor)}  # row 0 is unguided

    code = torch.zeros(1, latent_code.TOKENS, latent_code.CHANNELS)
    pictures = () if picture_frame is None else (code[:, :latent_code.FIRST_FRAME_TOKENS], torch.tensor([picture_frame]))
    got = conditions.lay_out(code, code, torch.ones(1), torch.tensor([beginning]), *pictures)
    assert got.latents.shape == want["hidden_states"].shape
    assert torch.equal(got.timestep, want["timestep"])
    assert torch.equal(got.coordinates, want["video_coords"])
    assert torch.equal(got.is_free, want["timestep"][:, -latent_code.TOKENS:] > 0)
    # Given tokens are noisy while the others are.
    noise_scale = inspect.signature(diffusers.LTXConditionPipeline.__call__).parameters["image_cond_noise_scale"].default
    held = got.latents[got.timestep == 0]
    assert noise_scale < held.std() < (noise_scale ** 2 + .2 ** 2) ** .5

    workspace = common.Workspace(MODEL)
    encoder = train_transformer.load(workspace)[0]
    with torch.no_grad():
        states, mask = train_transformer.encode(encoder, tokenizer.load(workspace), [prompt], hides_padding=True)
    count = int(mask.sum())
    assert torch.equal(mask, want["encoder_attention_mask"][:, :mask.shape[1]] != 0)
    assert count == int((want["encoder_attention_mask"] != 0).sum())
    torch.testing.assert_close(states[:, :count], want["encoder_hidden_states"][:, :count], atol=1e-5, rtol=1e-5)


def test_a_picture_is_coded_as_the_first_frame_of_its_clip(tmp_path):
    workspace = common.Workspace(str(tmp_path))
    geometry.draw(workspace, count=2, basis_clips=4)
    store = geometry.Store(workspace)
    basis = latent_code.Basis.load(workspace.geometry)
    for index in range(2):
        clip = scenes.distance_field(store.facts[index])
        for frame in (0, 8):
            begins_there = np.roll(clip, -frame, 0)
            want = basis.code(begins_there)[:latent_code.FIRST_FRAME_TOKENS]
            np.testing.assert_array_equal(store.picture(index, frame), want)


@pytest.mark.whole  # minutes
def test_smoke_training_yields_a_loadable_folder(tmp_path):
    out = tmp_path / "model"
    subprocess.run([sys.executable, os.path.join(TOOLS, "train.py"), "--smoke", "--out", str(out)],
                   check=True, timeout=500, env={**os.environ, "OMP_NUM_THREADS": "1"})
    engine = engines.Diffusers(str(out))
    for task in tasks.TASKS:
        frames = engine.render("a red star moving up", 1, tasks.given(task, a_scene("up")), num_inference_steps=2)
        assert frames.shape == (17, 64, 64, 3)
    files = [os.path.join(d, n) for d, _, names in os.walk(out) for n in names]
    assert sum(os.path.getsize(f) for f in files) < 25e6
    for path in files:
        with open(path, "rb") as file:
            assert str(tmp_path).encode() not in file.read(), f"{path} holds a path of this machine"
