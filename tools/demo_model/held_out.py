"""Prompts that training never sees, for judging a trained model.

Training captions (scenes.caption) are random draws from five sentence forms, so a list of them would not prove anything;
what is held out is the sentence itself: no form below can come out of scenes.caption, whatever its random numbers, and
`is_training_caption` checks that. The words are the training words plus a few that only the tokenizer knows. Shape,
motion and colours go through all their values; spinning circles, which cannot be told from resting ones, are left out.
"""
import dataclasses
import random
import re

import scenes

FORMS = (
    "a clip of {thing} {verb} over {ground}",
    "the {plain} is {verb} over {ground}",
    "{thing}, {verb}, on {ground}",
    "{thing} slowly {verb}, {ground}",
    "over {ground} {thing} is {verb}",
    "video: {thing} {verb} in front of {ground}",
)


@dataclasses.dataclass
class Prompt:
    text: str
    scene: scenes.Scene
    seed: int


def prompts(count, seed=4242):
    """The same `count` prompts for the same seed."""
    rng = random.Random(seed)
    result = []
    for index in range(count):
        geometry = scenes.sample_geometry(rng)
        geometry.motion = scenes.MOTIONS[index % len(scenes.MOTIONS)]
        geometry.shape = scenes.SHAPES[(index // len(scenes.MOTIONS) + index) % len(scenes.SHAPES)]
        if geometry.motion == "spin" and geometry.shape == "circle":
            geometry.shape = "star"
        scene = scenes.Scene(geometry, *rng.choice(scenes.PAIRS))
        plain = f"{scene.color} {geometry.shape}"
        text = rng.choice(FORMS).format(
            plain=plain, thing=scenes.article(plain), verb=rng.choice(scenes.PHRASES[geometry.motion]),
            ground=scenes.article(scene.background + " background"))
        result.append(Prompt(text, scene, seed=1000 + index))
    return result


def is_training_caption(text):
    """Whether scenes.caption and scenes.written_by_hand could write `text`."""
    def one_of(words):
        return "(?:" + "|".join(re.escape(w) for w in words) + ")"

    thing = f"an? (?:(?:small|large) )?{one_of(scenes.COLORS)} {one_of(scenes.SHAPES)}"
    verb = one_of(phrase for phrases in scenes.PHRASES.values() for phrase in phrases)
    ground = f"an? {one_of(scenes.BACKGROUNDS)} background"
    where = f"(?: {one_of(scenes.PREPOSITIONS)} {ground})?"
    pattern = f"(?:(?:a video of )?{thing} (?:that is )?{verb}{where}|{ground}, {thing} {verb})\\.?"
    return re.fullmatch(pattern, text, re.IGNORECASE) is not None
