"""Writes videos of each readable kind, made by the ffmpeg program, and the frames that program reads back.

The index lists one case a line:
  video FILE EXPECTED.npy CODEC FPS_NUM FPS_DEN   frames [T, H, W, 3] uint8
  refused FILE                                    a container or codec that is not read, or a broken file
"""

import pathlib
import subprocess
import sys

import numpy as np

folder = pathlib.Path(sys.argv[1])
rng = np.random.default_rng(7)
index = []
FLAGS = "bicubic+accurate_rnd+full_chroma_int+bitexact"


def ffmpeg(*arguments, data=b""):
    command = ["ffmpeg", "-nostdin" if not data else "-y", "-v", "error", "-y", *map(str, arguments)]
    return subprocess.run(command, input=data, capture_output=True, check=True).stdout


def frames(count, height, width):
    t, y, x = np.mgrid[0:count, 0:height, 0:width]
    planes = [127 + 100 * np.sin((x + 2 * t) / (9 + c) + y / (12 - c) + c) for c in range(3)]
    noisy = np.stack(planes, -1) + rng.normal(0, 4, (count, height, width, 3))
    return np.clip(noisy, 0, 255).astype(np.uint8)


def encode(name, source, fps, *options):
    count, height, width, _ = source.shape
    raw = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", fps, "-i", "-"]
    ffmpeg(*raw, "-sws_flags", FLAGS, *options, folder / name, data=source.tobytes())


def accept(name, codec, num, den, shape, expected=None):
    """expected: the frames it must give; else what the ffmpeg program makes of it."""
    if expected is None:
        out = ["-fps_mode", "passthrough", "-map", "0:v:0", "-vf", f"scale=flags={FLAGS}", "-pix_fmt", "rgb24"]
        data = ffmpeg("-i", folder / name, *out, "-f", "rawvideo", "-")
        expected = np.frombuffer(data, np.uint8).reshape(shape)
    assert expected.shape == tuple(shape), (name, expected.shape)
    np.save(folder / (name + ".npy"), expected)
    index.append(f"video {name} {name}.npy {codec} {num} {den}")


small = frames(9, 48, 64)
shape = small.shape
x264 = ["-c:v", "libx264", "-pix_fmt", "yuv420p"]
encode("h264.mp4", small, "24", *x264)
accept("h264.mp4", "h264", 24, 1, shape)
encode("h264_ntsc.mkv", small, "30000/1001", *x264)
accept("h264_ntsc.mkv", "h264", 30000, 1001, shape)
bt709 = ["-vf", "scale=out_color_matrix=bt709:out_range=tv", "-colorspace", "bt709", "-color_primaries", "bt709", "-color_trc", "bt709"]
encode("h264_bt709.mp4", small, "25", *x264, *bt709, "-bf", "2")
accept("h264_bt709.mp4", "h264", 25, 1, shape)
encode("h264_full.mp4", small, "25", "-c:v", "libx264", "-vf", "scale=out_range=pc", "-pix_fmt", "yuvj420p")
accept("h264_full.mp4", "h264", 25, 1, shape)
encode("h264_444.mp4", small, "25", "-c:v", "libx264", "-pix_fmt", "yuv444p")
accept("h264_444.mp4", "h264", 25, 1, shape)
encode("h264_10bit.mp4", small, "25", "-c:v", "libx264", "-pix_fmt", "yuv420p10le")
accept("h264_10bit.mp4", "h264", 25, 1, shape)
encode("h264_rgb.mp4", small, "25", "-c:v", "libx264rgb", "-qp", "0")
accept("h264_rgb.mp4", "h264", 25, 1, shape, small)
encode("h264_odd_crop.mp4", frames(3, 46, 62), "25", *x264)
accept("h264_odd_crop.mp4", "h264", 25, 1, (3, 46, 62, 3))
encode("h264_fragments.mp4", small, "25", *x264, "-g", "3", "-movflags", "frag_keyframe+empty_moov")
accept("h264_fragments.mp4", "h264", 25, 1, shape)
encode("vp9.webm", small, "12", "-c:v", "libvpx-vp9", "-b:v", "500k")
accept("vp9.webm", "vp9", 12, 1, shape)
encode("vp9.mp4", small, "12", "-c:v", "libvpx-vp9", "-crf", "20", "-b:v", "0")
accept("vp9.mp4", "vp9", 12, 1, shape)
for layout in ("gbrp", "bgr0", "yuv420p", "yuv444p", "gray", "yuv422p10le"):
    name = f"ffv1_{layout}.mkv"
    encode(name, small, "8", "-c:v", "ffv1", "-level", "3", "-pix_fmt", layout)
    accept(name, "ffv1", 8, 1, shape, small if layout in ("gbrp", "bgr0") else None)
# A matrix that no standard has: FFmpeg keeps Matroska's number as it is, in a field of an enum's type.
encode("matrix_86.mkv", small, "8", "-c:v", "ffv1", "-pix_fmt", "yuv420p", "-colorspace", "bt709")
named = (folder / "matrix_86.mkv").read_bytes()
assert named.count(b"\x55\xb1\x81\x01") == 1
(folder / "matrix_86.mkv").write_bytes(named.replace(b"\x55\xb1\x81\x01", b"\x55\xb1\x81\x56"))
accept("matrix_86.mkv", "ffv1", 8, 1, shape)
for turn in ("90", "180", "270"):
    name = f"h264_turned{turn}.mp4"
    ffmpeg("-i", folder / "h264.mp4", "-c", "copy", "-metadata:s:v:0", f"rotate={turn}", folder / name)
    turned_shape = shape if turn == "180" else (shape[0], shape[2], shape[1], 3)
    accept(name, "h264", 24, 1, turned_shape)
    # The program turns before it converts colours, which moves some values by one; the turn itself is exact.
    program = np.load(folder / (name + ".npy")).astype(int)
    upright = np.load(folder / "h264.mp4.npy")
    turned = next(r for k in (1, 2, 3) if (r := np.rot90(upright, k, (1, 2))).shape == program.shape and abs(r - program).max() <= 1)
    np.save(folder / (name + ".npy"), turned)
ffmpeg("-i", folder / "h264.mp4", "-f", "lavfi", "-i", "sine=duration=1", "-c:v", "copy", "-c:a", "aac", "-map", "1", "-map", "0", folder / "h264_sound.mp4")
accept("h264_sound.mp4", "h264", 24, 1, shape)


def refuse(name, data=None):
    if data is not None:
        (folder / name).write_bytes(data)
    index.append(f"refused {name}")


for name, options in {
    "mpeg4.mp4": ["-c:v", "mpeg4"],
    "hevc.mp4": ["-c:v", "libx265", "-x265-params", "log-level=none"],
    "vp8.webm": ["-c:v", "libvpx"],
    "mjpeg.mkv": ["-c:v", "mjpeg"],
    "h264.ts": x264,
    "h264.avi": x264,
    "h264.flv": x264,
    "raw.nut": ["-c:v", "rawvideo"],
    "moving.gif": [],
}.items():
    encode(name, small, "25", *options)
    refuse(name)
ffmpeg("-f", "lavfi", "-i", "sine=duration=1", "-c:a", "aac", folder / "sound_only.mp4")
refuse("sound_only.mp4")
refuse("playlist.m3u8", b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile:///etc/passwd\n")
refuse("concat.txt", b"ffconcat version 1.0\nfile /etc/passwd\n")
refuse("empty.mp4", b"")
refuse("no_moov.mp4", (folder / "h264.mp4").read_bytes()[:400])
# A fragment of 2^25 frames, none with a byte of its own, for which FFmpeg would make an index of 0.8 GB.
fragments = (folder / "h264_fragments.mp4").read_bytes()
flags = fragments.index(b"trun") + 4
(folder / "many_frames.mp4").write_bytes(fragments[:flags] + b"\0\0\0\0" + b"\x02\0\0\0" + fragments[flags + 8:])
whole = (folder / "ffv1_gbrp.mkv").read_bytes()
refuse("header_only.mkv", whole[:300])
(folder / "index").write_text("\n".join(index) + "\n")
