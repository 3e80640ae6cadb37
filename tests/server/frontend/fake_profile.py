"""Profiles as a worker would give them, made up: the weights of models/demo in their real groups, activations that grow
with the video. tests/engine/trace holds the real ones."""
import json
import re
import struct

from frontend_fixture import SOURCE, video, worker

BYTES_PER_PIXEL = 18
_STACKS = {"transformer": re.compile(r"transformer_blocks\.(\d+)\."), "text_encoder": re.compile(r"encoder\.block\.(\d+)\.")}


def _names(component):
    path, = (SOURCE / "models" / "demo" / component).glob("*.safetensors")
    with open(path, "rb") as file:
        size, = struct.unpack("<Q", file.read(8))
        return [name for name in json.loads(file.read(size)) if name != "__metadata__"]


def _places(component):
    places = worker.ComponentPlaces(component=component)
    for name in _names(component):
        place = places.weights.add(name=name, dtype="float32", may_quantize=name.endswith(".weight") and "norm" not in name,
                                   may_cast="norm" not in name, part="", group="rest")
        block = _STACKS[component].match(name) if component in _STACKS else None
        if block:
            place.stack, place.block, place.group = 0, int(block.group(1)), f"block.{block.group(1)}"
        elif component == "vae":
            place.part = place.group = name.split(".")[0]
    return places


def profile(query):
    """Of worker.ProfileQuery."""
    request = query.request
    pixels = request.height * request.width * request.num_frames
    out = worker.RunProfile()
    if not query.without_places:
        out.places.extend(_places(component) for component in ("text_encoder", "transformer", "vae"))
    for variant in query.variants:
        phases = out.variants.add(variant=variant).phases
        tiled = 0.5 if variant.HasField("vae_tiling") else 1
        chunked = 0.9 if variant.HasField("chunk_feed_forward") else 1

        def add(stage, component, part, share):
            phases.add(stage=stage, component=component, part=part, rows=pixels // 8192 + 1, linear_flops=1e9,
                       device_activations=int(pixels * BYTES_PER_PIXEL * share), passes=1)

        add(video.ENCODE_TEXT, "text_encoder", "", 0.1)
        if request.conditions:
            add(video.ENCODE_MEDIA, "vae", "encoder", 0.3 * tiled)
        add(video.DENOISE, "transformer", "", 0.9 * chunked)
        add(video.DECODE, "vae", "decoder", tiled)
    return out
