"""One module per family; each builds pipelines with random configurations in the style of its published checkpoints.

A module offers TASKS, FPS, `build(rng, work, task, variant) -> Spec` and `small_tiles()`: the arguments of
vae.enable_tiling that make tiles small enough for the tiny clips (None where tiling is not an option).
"""
import dataclasses
import importlib
import typing

NAMES = ("ltx", "hunyuan", "cogvideox", "mochi", "allegro")


@dataclasses.dataclass
class Spec:
    """A pipeline and the call it is to be tested with."""
    pipeline: typing.Any
    # Arguments of the pipeline's call; `height` and `width` are always there.
    call: dict
    # Files that save_pretrained does not write: {subfolder: [path, ...]}.
    extra_files: dict = dataclasses.field(default_factory=dict)
    # What the family wants instead of the usual negative prompt; None: the pipeline gets none.
    negative: str | None = ""
    image: bool = False
    # A second one, that the video is to end with.
    last_image: bool = False
    video: bool = False
    # Frames of the input video, where the call has no num_frames.
    video_frames: int | None = None
    # Prompts between bars, where the pipeline takes several.
    segments: int = 1
    # LTXConditionPipeline's, each (input, frame_index, strength); the input is "image" or "video".
    conditions: list | None = None
    # LTX-Video in two passes: the latent upsampler between them, and the call arguments of the upsampling and of the
    # second pass that differ from the first's.
    upsampler: typing.Any = None
    second_pass: dict | None = None
    # The family's VAE cannot decode without tiles.
    always_tiled: bool = False


def family(name):
    return importlib.import_module(f"{__name__}.{name}")
