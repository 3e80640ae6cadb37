"""Generates a clip with a Kino server and saves it, made from the protos alone.

Once: pip install grpcio grpcio-tools googleapis-common-protos
Then: python examples/python_client.py 127.0.0.1:50051 "a red star moving to the right" clip.mp4

As `kino` does, it reads KINO_TOKEN, and KINO_TLS_CA, KINO_TLS_CERT, KINO_TLS_KEY and KINO_TLS_SERVER_NAME.
"""
import os
import pathlib
import sys

import grpc

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..")
sys.path.insert(0, os.path.join(ROOT, "proto"))
video, video_grpc = grpc.protos_and_services("kino/v1/video.proto")


def read(variable):
    """The file that an environment variable names, if it does."""
    path = os.environ.get(variable)
    return pathlib.Path(path).read_bytes() if path else None


def connect(server):
    authority, certificate, key = (read(f"KINO_TLS_{name}") for name in ("CA", "CERT", "KEY"))
    if not (authority or certificate):
        return grpc.insecure_channel(server)
    name = os.environ.get("KINO_TLS_SERVER_NAME")
    return grpc.secure_channel(server, grpc.ssl_channel_credentials(authority, key, certificate),
                               options=[("grpc.ssl_target_name_override", name)] if name else [])


def main(server, prompt, path):
    stub = video_grpc.VideoServiceStub(connect(server))
    token = os.environ.get("KINO_TOKEN")
    metadata = [("authorization", f"Bearer {token}")] if token else None
    request = video.GenerateRequest(model="demo", prompt=prompt, height=64, width=64, num_frames=17, fps=8,
                                    num_inference_steps=25, guidance_scale=4, seed=7,
                                    ltx=video.LtxOptions(frame_rate=8))
    with open(path, "wb") as file:
        for event in stub.Generate(request, metadata=metadata):
            if event.HasField("progress"):
                print(f"{event.progress.fraction:4.0%}", end="\r", flush=True)
            elif event.HasField("video_chunk"):  # in order; a new attempt starts again at offset 0
                file.seek(event.video_chunk.offset)
                file.truncate()
                file.write(event.video_chunk.data)
            elif event.HasField("finished"):
                job = event.finished
    if job.state != video.SUCCEEDED:
        sys.exit(f"{video.JobState.Name(job.state)}: {job.error.message}")
    print(f"{path}: {job.artifact.num_frames} frames, {job.artifact.size_bytes} bytes, seed {job.request.seed}")


if __name__ == "__main__":
    main(*sys.argv[1:])
