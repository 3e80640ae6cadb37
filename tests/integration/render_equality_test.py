"""The server and kino-render give the same pixels for the same request and seed."""
import json
import os
import subprocess

import numpy as np
import pytest
from google.protobuf import json_format

import kino_client


def render(folder, request, name):
    """What kino-render makes of a GenerateRequest, as `name` in `folder`."""
    folder.mkdir(exist_ok=True)
    (folder / "request.json").write_text(
        json_format.MessageToJson(request, preserving_proto_field_name=True), encoding="utf-8")
    out = folder / name
    subprocess.run(
        [os.path.join(os.environ["KINO_BIN_DIR"], "kino-render"), "--quiet", "--threads", "1",
         "--model", os.path.join(os.environ["KINO_SOURCE_DIR"], "models", "demo"),
         "--request", str(folder / "request.json"), "--out", str(out)], check=True, timeout=60)
    return out


@pytest.mark.parametrize("fields", [
    dict(seed=1), dict(seed=2**63 + 5, num_frames=33, prompt="a green square moving up over a black background"),
    dict(seed=3, height=96, width=128, num_frames=9)], ids=["demo", "longer", "wider"])
def test_server_and_render_give_the_same_pixels(stubs, client, tmp_path, fields):
    request = client.demo_request(output=stubs.video.OutputOptions(lossless=True), **fields)
    served = client.generate(request)
    assert served.job.state == stubs.video.SUCCEEDED
    shape = (request.num_frames, request.height, request.width, 3)
    pixels = np.frombuffer(kino_client.rgb_frames(bytes(served.data)), np.uint8).reshape(shape)
    rendered = render(tmp_path, request, "clip.mp4").read_bytes()
    assert np.array_equal(np.frombuffer(kino_client.rgb_frames(rendered), np.uint8).reshape(shape), pixels)
    frames = np.load(render(tmp_path, request, "clip.npy"))
    assert frames.shape == shape
    assert np.array_equal(np.round(frames * 255).astype(np.uint8), pixels)
    assert pixels.std() > 1  # a picture, not a plain field


def test_effective_request_makes_the_clip_again(stubs, client, tmp_path):
    """An absent seed is drawn at submission and stored: the stored request alone is enough."""
    request = client.demo_request(output=stubs.video.OutputOptions(lossless=True))
    request.ClearField("seed")
    first = client.generate(request)
    assert first.job.request.HasField("seed")
    assert client.generate(first.job.request).sha256() == first.sha256()
    effective = json.loads(json_format.MessageToJson(first.job.request, preserving_proto_field_name=True))
    assert effective["seed"] == str(first.job.request.seed)
    rendered = render(tmp_path, first.job.request, "clip.mp4").read_bytes()
    assert kino_client.rgb_frames(rendered) == kino_client.rgb_frames(bytes(first.data))
    assert client.generate(request).sha256() != first.sha256()  # another seed was drawn
