"""The sentences that the tiny tokenizers are trained on and that the tiny pipelines are asked for."""

SUBJECTS = ["a red panda", "an old sailor", "a paper boat", "two dancers", "a glass city",
            "the night train", "a small robot", "a flock of birds", "a wooden bridge",
            "the quiet river", "a yellow taxi", "a chef"]
ACTIONS = ["walks slowly", "turns to the camera", "drifts across the water",
           "runs through the rain", "glows in the dark", "opens the window", "falls from the sky",
           "moves left and right", "waits for dawn"]
STYLES = ["cinematic light", "in the style of a watercolor painting", "4k, sharp focus",
          "slow motion, 24 fps", "soft shadows; warm tones", "handheld camera",
          "from above (aerial view)", "with a shallow depth of field"]
NEGATIVE = "worst quality, inconsistent motion, blurry, jittery, distorted"

# Strings that tell tokenizers apart: accents, dashes, curly quotes, CJK, control characters, special tokens in the text.
AWKWARD = ["", "Café – naïve  “quotes”, 東京 3.14\n\tend", "<|eot_id|>x</s>y"]


def corpus():
    """Training text of the tokenizers; it holds the HunyuanVideo prompt templates too."""
    from diffusers.pipelines.hunyuan_video import pipeline_hunyuan_video
    from diffusers.pipelines.hunyuan_video import pipeline_hunyuan_video_image2video
    lines = [f"{s} {a}, {t}." for s in SUBJECTS for a in ACTIONS for t in STYLES]
    fox = "The quick brown fox jumps over the lazy dog 0123456789 times!"
    lines += [NEGATIVE, NEGATIVE.title(), fox] * 5
    for module in (pipeline_hunyuan_video, pipeline_hunyuan_video_image2video):
        text = module.DEFAULT_PROMPT_TEMPLATE["template"]
        for tag in ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<image>"):
            text = text.replace(tag, " ")
        lines += [text] * 60 + ["system user assistant"] * 60
    return lines


def make_prompt(rng):
    return f"{rng.choice(SUBJECTS)} {rng.choice(ACTIONS)}, {rng.choice(STYLES)}".capitalize()
