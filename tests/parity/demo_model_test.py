"""The shipped demo model obeys held-out prompts through Kino as well as through diffusers, and the frames agree."""
import os
import sys

import numpy as np
import pytest

ROOT = os.environ["KINO_SOURCE_DIR"]
sys.path.insert(0, os.path.join(ROOT, "tools", "demo_model"))

import engines  # noqa: E402
import held_out  # noqa: E402
import kino_render  # noqa: E402
import score  # noqa: E402
import tasks  # noqa: E402

MODEL = os.path.join(ROOT, "models", "demo")
# Prompts by which Kino may fall below diffusers in one aspect. With equal frames it is 0; 1 leaves room for a pixel on a
# scorer's threshold.
ALLOWED_PROMPTS = 1
# float32 on both sides. Guidance 4 over 25 steps amplifies rounding, the more where tokens are given; 1e-5 is what it comes
# to.
ALLOWED_FRAME_ERROR = 1e-4
# Share of the prompts that diffusers itself must obey in each aspect: the model, not the pipeline, is short of the rest. A
# picture in the middle is the hardest to show exactly.
LEAST_SHARE = {"t2v": 0.85, "i2v": 0.85, "v2v": 0.85, "middle": 0.6}
COUNTS = [("t2v", 8), ("i2v", 4), ("v2v", 4), ("middle", 6),
          *(pytest.param(task, count, marks=pytest.mark.whole)
            for task, count in (("t2v", 24), ("i2v", 12), ("v2v", 12), ("middle", 12)))]


@pytest.fixture(scope="session")
def both_engines():
    return (engines.Diffusers(MODEL), engines.KinoRender(MODEL, kino_render.binary()))


def test_held_out_prompts_are_no_training_captions():
    assert [prompt.text for prompt in held_out.prompts(200) if held_out.is_training_caption(prompt.text)] == []


@pytest.mark.parametrize("task,count", COUNTS)
def test_kino_obeys_prompts_as_well_as_diffusers(task, count, both_engines, pytestconfig):
    prompts = held_out.prompts(count)
    diffusers, kino = both_engines
    theirs, ours = [], []
    errors, wrong = {}, {}
    givens = [tasks.given(task, prompt.scene) for prompt in prompts]
    rendered = kino.render_all([(prompt.text, prompt.seed, given) for prompt, given in zip(prompts, givens)])
    for prompt, given, got in zip(prompts, givens, rendered):
        want = diffusers.render(prompt.text, prompt.seed, given)
        assert got.shape == want.shape, prompt.text
        errors[prompt.text, prompt.seed] = float(np.abs(got - want).max())
        theirs.append(score.score(score.to_uint8(want), prompt.scene, given))
        ours.append(score.score(score.to_uint8(got), prompt.scene, given))
    pytestconfig.kino_note(f"demo model {task}, {len(prompts)} prompts: frames max abs error {max(errors.values()):.2e}")
    for aspect in score.ASPECTS:
        right = sum(getattr(s, aspect) for s in ours)
        wanted = sum(getattr(s, aspect) for s in theirs)
        pytestconfig.kino_note(f"demo model {task}: {aspect} right {right}, diffusers {wanted}")
        if right < wanted - ALLOWED_PROMPTS or wanted < LEAST_SHARE[task] * len(prompts):
            wrong[aspect] = f"right {right}, diffusers {wanted} of {len(prompts)}"
    assert {which: error for which, error in errors.items() if not error <= ALLOWED_FRAME_ERROR} == {}
    assert wrong == {}
