"""Writes videos of each readable kind, made by the ffmpeg program, and the frames that diffusers' load_video gives.

load_video reads through imageio, which has imageio_ffmpeg's program write the frames: so does this. The index lists one
case a line:
  video FILE EXPECTED.npy CODEC FPS_NUM FPS_DEN MAX   frames [T, H, W, 3] uint8, off by at most MAX
  refused FILE WORD                                   what is not read or broken; the error has the word
"""

import concurrent.futures
import pathlib
import struct
import subprocess
import sys

import imageio_ffmpeg
import numpy as np

folder = pathlib.Path(sys.argv[1])
rng = np.random.default_rng(7)
# Of the encoder's side alone, so that lossless RGB stays what it is.
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
    ffmpeg(*raw, "-sws_flags", FLAGS, "-threads", "1", *options, folder / name, data=source.tobytes())


def load_video(path):
    reader = imageio_ffmpeg.read_frames(str(path))
    width, height = next(reader)["size"]
    return np.stack([np.frombuffer(frame, np.uint8).reshape(height, width, 3) for frame in reader])


def case(name, make, codec, num, den, count=None, exact=None):
    """make() writes the file; exact: the very frames it must give, else those that load_video gives."""
    make()
    expected = load_video(folder / name)
    if exact is not None:
        assert (expected == exact).all(), name
    assert count is None or len(expected) == count, (name, len(expected), count)
    np.save(folder / (name + ".npy"), expected)
    return f"video {name} {name}.npy {codec} {num} {den} {3 if exact is None else 0}"


small = frames(9, 48, 64)
odd = frames(4, 47, 63)
x264 = ["-c:v", "libx264", "-pix_fmt", "yuv420p"]
x265 = ["-c:v", "libx265", "-x265-params", "log-level=none:pools=none"]
sound = ["-f", "lavfi", "-i", "sine=duration=1", "-c:a", "aac", "-map", "0:v", "-map", "1:a"]
tagged = ["-vf", "scale=out_color_matrix={0}:out_range=tv", "-colorspace", "{1}", "-color_primaries", "{2}", "-color_trc", "{3}"]
bt709 = [word.format("bt709", "bt709", "bt709", "bt709") for word in tagged]
bt2020 = [word.format("bt2020", "bt2020nc", "bt2020", "smpte2084") for word in tagged]

# FILE: source, rate, codec, options.
KINDS = {
    "h264.mp4": (small, "24", "h264", x264),
    "h264_ntsc.mkv": (small, "30000/1001", "h264", x264),
    "h264_bt709.mp4": (small, "25", "h264", [*x264, *bt709, "-bf", "2"]),
    "h264_full.mp4": (small, "25", "h264", ["-c:v", "libx264", "-vf", "scale=out_range=pc", "-pix_fmt", "yuvj420p"]),
    "h264_422.mp4": (small, "25", "h264", ["-c:v", "libx264", "-pix_fmt", "yuv422p"]),
    "h264_422_10bit.mp4": (small, "25", "h264", ["-c:v", "libx264", "-pix_fmt", "yuv422p10le"]),
    "h264_444.mp4": (small, "25", "h264", ["-c:v", "libx264", "-pix_fmt", "yuv444p"]),
    "h264_444_odd.mp4": (odd, "25", "h264", ["-c:v", "libx264", "-pix_fmt", "yuv444p"]),
    "h264_10bit.mp4": (small, "25", "h264", ["-c:v", "libx264", "-pix_fmt", "yuv420p10le"]),
    "h264_odd_crop.mp4": (frames(3, 46, 62), "25", "h264", x264),
    "h264_fragments.mp4": (small, "25", "h264", [*x264, "-g", "3", "-movflags", "frag_keyframe+empty_moov"]),
    "h264_sound.mp4": (small, "24", "h264", [*sound, *x264]),
    "h264.ts": (small, "25", "h264", x264),
    "h264_sound.ts": (small, "25", "h264", [*sound, *x264]),
    "h264.m2ts": (small, "25", "h264", [*x264, "-mpegts_m2ts_mode", "1"]),
    "hevc.mp4": (small, "25", "hevc", [*x265, "-pix_fmt", "yuv420p"]),
    "hevc_10bit.mkv": (small, "24", "hevc", [*x265, "-pix_fmt", "yuv420p10le"]),
    "hevc_bt2020.mp4": (small, "24", "hevc", [*x265, *bt2020, "-pix_fmt", "yuv420p10le"]),
    "hevc_422.mp4": (small, "24", "hevc", [*x265, "-pix_fmt", "yuv422p10le"]),
    "hevc.ts": (small, "25", "hevc", [*x265, "-pix_fmt", "yuv420p"]),
    "av1.mp4": (small, "24", "av1", ["-c:v", "libaom-av1", "-cpu-used", "8", "-pix_fmt", "yuv420p10le"]),
    "av1.webm": (odd, "24", "av1", ["-c:v", "libaom-av1", "-cpu-used", "8", "-pix_fmt", "yuv420p"]),
    "vp9.webm": (small, "12", "vp9", ["-c:v", "libvpx-vp9", "-b:v", "500k"]),
    "vp9.mp4": (small, "12", "vp9", ["-c:v", "libvpx-vp9", "-crf", "20", "-b:v", "0"]),
    "vp9_odd.mp4": (odd, "12", "vp9", ["-c:v", "libvpx-vp9", "-pix_fmt", "yuv420p"]),
    "vp8.webm": (small, "25", "vp8", ["-c:v", "libvpx", "-b:v", "500k"]),
    "vp8_odd.mkv": (odd, "25", "vp8", ["-c:v", "libvpx", "-b:v", "500k"]),
    "mjpeg.mkv": (small, "25", "mjpeg", ["-c:v", "mjpeg", "-pix_fmt", "yuvj420p"]),
    "mjpeg_odd.mov": (odd, "25", "mjpeg", ["-c:v", "mjpeg", "-pix_fmt", "yuvj422p"]),
    "mpeg4.mp4": (small, "25", "mpeg4", ["-c:v", "mpeg4", "-bf", "2"]),
    "mpeg4.mkv": (small, "25", "mpeg4", ["-c:v", "mpeg4"]),
    "mpeg4.ts": (small, "25", "mpeg4", ["-c:v", "mpeg4"]),
    **{
        f"ffv1_{layout}.mkv": (source, "8", "ffv1", ["-c:v", "ffv1", "-level", "3", "-pix_fmt", layout])
        for layout in ("gbrp", "bgr0", "yuv420p", "yuv444p", "gray", "yuv422p10le")
        for source in [small]
    },
    "ffv1_420_odd.mkv": (odd, "8", "ffv1", ["-c:v", "ffv1", "-pix_fmt", "yuv420p"]),
    "ffv1_422_odd.mkv": (odd, "8", "ffv1", ["-c:v", "ffv1", "-pix_fmt", "yuv422p"]),
    "h264_rgb.mp4": (small, "25", "h264", ["-c:v", "libx264rgb", "-qp", "0"]),
}
LOSSLESS = {"h264_rgb.mp4", "ffv1_gbrp.mkv", "ffv1_bgr0.mkv"}


def constant(name):
    source, fps, codec, options = KINDS[name]
    num, _, den = fps.partition("/")
    exact = source if name in LOSSLESS else None
    # The sound of a transport stream begins before its picture, which stays a frame longer.
    count = None if name == "h264_sound.ts" else len(source)
    return case(name, lambda: encode(name, source, fps, *options), codec, num, den or 1, count, exact)


def changed(name, origin, change):
    """A file of KINDS with its bytes changed."""
    source, fps, codec, _ = KINDS[origin]
    make = lambda: (folder / name).write_bytes(change((folder / origin).read_bytes()))
    return case(name, make, codec, fps, 1, len(source))


def matrix_86(row):
    """A matrix that no standard has: FFmpeg keeps Matroska's number as it is, in a field of an enum's type. Newer ffmpeg
    programs refuse it; here it counts as none, which is 2."""
    row = row.split()
    data = (folder / row[1]).read_bytes()
    assert data.count(b"\x55\xb1\x81\x02") == 1
    (folder / "matrix_86.mkv").write_bytes(data.replace(b"\x55\xb1\x81\x02", b"\x55\xb1\x81\x56"))
    return " ".join([row[0], "matrix_86.mkv", *row[2:]])


def matrix_2(data):
    assert data.count(b"\x55\xb1\x81\x01") == 1
    return data.replace(b"\x55\xb1\x81\x01", b"\x55\xb1\x81\x02")


def no_ftyp(data):
    """As old QuickTime files begin: what was the first box is skipped."""
    return data.replace(b"ftyp", b"skip", 1)


def turned(a, b, c, d):
    """The track's display matrix replaced: x' = a x + c y, y' = b x + d y."""

    def change(data):
        matrix = lambda *four: struct.pack(">9i", four[0] << 16, four[1] << 16, 0, four[2] << 16, four[3] << 16, 0, 0, 0, 1 << 30)
        at = data.index(matrix(1, 0, 0, 1), data.index(b"tkhd"))
        return data[:at] + matrix(a, b, c, d) + data[at + 36 :]

    return change


KINDS["ffv1_bt709.mkv"] = (small, "8", "ffv1", ["-c:v", "ffv1", "-pix_fmt", "yuv420p", "-colorspace", "bt709"])
TURNS = {"90": (0, 1, -1, 0), "180": (-1, 0, 0, -1), "270": (0, -1, 1, 0), "mirror": (-1, 0, 0, 1), "flip": (1, 0, 0, -1),
         "transpose": (0, 1, 1, 0), "transverse": (0, -1, -1, 0)}
CHANGED = {
    "matrix_2.mkv": ("ffv1_bt709.mkv", matrix_2),
    "no_ftyp.mov": ("mjpeg_odd.mov", no_ftyp),
    **{f"h264_turned_{turn}.mp4": ("h264.mp4", turned(*matrix)) for turn, matrix in TURNS.items()},
    # Chroma that is coarser across than down, or in both ways of an odd size or of 10 bits, shows whether planes or pixels
    # are turned.
    **{
        f"{pathlib.Path(origin).stem}_turned_{turn}.mp4": (origin, turned(*TURNS[turn]))
        for origin in ("h264_422.mp4", "hevc_bt2020.mp4", "vp9_odd.mp4")
        for turn in ("90", "180", "transpose")
    },
}


def sei_turned():
    """H.264 that tells its rotation itself."""
    name = "h264_sei.ts"
    make = lambda: ffmpeg("-i", folder / "h264.ts", "-c", "copy", "-bsf:v", "h264_metadata=display_orientation=insert:rotate=90", folder / name)
    return case(name, make, "h264", 25, 1, len(small))


def two_tracks(name, other, *options):
    """The frames of ffv1_yuv420p.mkv, and beside them others."""

    def make():
        encode(f"other_{name}", other, "8", *ffv1)
        ffmpeg("-i", folder / "ffv1_yuv420p.mkv", "-i", folder / f"other_{name}", "-map", 0, "-map", 1, "-c", "copy", *options, folder / name)

    return case(name, make, "ffv1", 8, 1, len(small))


def with_cover(name):
    """A picture beside the video that is larger than it."""
    picture = ["-frames:v", 1, "-vf", "scale=2560:2560", "-c:v", "mjpeg", "-pix_fmt", "yuvj420p", folder / "cover.jpg"]
    both = ["-i", folder / "h264.mp4", "-i", folder / "cover.jpg", "-map", 0, "-map", 1, "-c", "copy", "-disposition:v:1", "attached_pic"]
    make = lambda: (ffmpeg("-i", folder / "h264.mp4", *picture), ffmpeg(*both, folder / name))
    return case(name, make, "h264", 24, 1, len(small))


def two_matrices(name):
    """Colours that change their meaning in the middle."""

    def make():
        streams = b""
        for matrix in ("bt709", "smpte170m"):
            options = [word.format(matrix, matrix, matrix, matrix) for word in tagged]
            encode("half.h264", small, "25", *x264, *options, "-bf", "0")
            streams += (folder / "half.h264").read_bytes()
        (folder / "both.h264").write_bytes(streams)
        ffmpeg("-r", "25", "-i", folder / "both.h264", "-c", "copy", folder / name)

    return case(name, make, "h264", 25, 1, 2 * len(small))


def at_times(name, times, options, codec, num, den=1, time_base="1/90000"):
    """Frames that are shown at these seconds."""
    source = frames(len(times), 32, 48)
    expression = "+".join(f"eq(N\\,{i})*{time:.6f}" for i, time in enumerate(times))
    timed = ["-vf", f"settb={time_base},setpts='({expression})/TB'", "-fps_mode", "passthrough", "-enc_time_base", time_base]
    # What the encoder says of the rate, whatever the times.
    says = num if den == 1 else 24
    return case(name, lambda: encode(name, source, str(says), *options, *timed), codec, num, den)


def steps(*lengths):
    """Each frame stays for so many twenty-fourths of a second."""
    return list(np.cumsum([0, *lengths]) / 24)


jitter = [max(0, i / 30 + e) for i, e in enumerate(np.random.default_rng(3).uniform(-0.006, 0.006, 40))]
ffv1 = ["-c:v", "ffv1", "-pix_fmt", "yuv420p"]
VARIABLE = [
    ("gaps.mkv", steps(1, 1, 2, 1, 5, 1, 1, 3, 1, 1), ffv1, "ffv1", 24, 1),
    ("gaps.mp4", steps(1, 1, 2, 1, 5, 1, 1, 3, 1, 1), [*x264, "-bf", "2"], "h264", 24, 1),
    ("gaps.webm", steps(1, 1, 2, 1, 5, 1, 1, 3, 1, 1), ["-c:v", "libvpx", "-b:v", "300k"], "vp8", 24, 1),
    ("long_gap_last.mkv", steps(1, 1, 1, 30), ffv1, "ffv1", 24, 1),
    ("three_gaps_last.mkv", steps(1, 1, 4, 4, 4), ffv1, "ffv1", 24, 1),
    ("jitter.mp4", jitter, [*x264, "-bf", "2"], "h264", 30000, 1001),
    ("jitter_hevc.mp4", jitter, [*x265, "-pix_fmt", "yuv420p"], "hevc", 30000, 1001),
    ("jitter.mkv", jitter, ffv1, "ffv1", 24, 1),
    ("two_speeds.mkv", [i / 48 for i in range(10)] + [10 / 48 + i / 12 for i in range(6)], ffv1, "ffv1", 24, 1),
    ("crowded.mkv", [0, 0.001, 0.002, 0.04, 0.08, 0.081, 0.12, 0.16, 0.2, 0.24], ffv1, "ffv1", 24, 1),
    ("late.mkv", [0.5 + i / 24 for i in range(6)], ffv1, "ffv1", 24, 1),
    ("late_sound.mkv", [0.5 + i / 24 for i in range(6)], [*sound, *ffv1], "ffv1", 24, 1),
    ("late_sound.mp4", [0.25 + i / 24 for i in range(6)], [*sound, *x264, "-bf", "0"], "h264", 24, 1),
    # Just between two ticks, of which Matroska's milliseconds hold 40 each.
    ("halves.mkv", [0, 0.1, 0.2, 0.32, 0.42, 0.52, 0.62], ffv1, "ffv1", 25, 1),
    # A time more than 30 hours away is none; a gap of more than 30 * 30 hours at one frame a second drops what follows.
    ("broken_time.mkv", [0, 1 / 24, 2 / 24, 150000, 150000 + 1 / 24], ffv1, "ffv1", 24, 1),
    ("broken_gap.mkv", [0, 1 / 60, 2 / 60, 60000, 60000 + 1 / 60], ffv1, "ffv1", 60, 1),
    # The clock of a transport stream is set anew.
    ("jump.ts", [i / 25 for i in range(5)] + [20 + i / 25 for i in range(6)], [*x264, "-bf", "0"], "h264", 25, 1),
    ("jump_reordered.ts", [i / 25 for i in range(8)] + [12 + i / 25 for i in range(8)], [*x264, "-bf", "2"], "h264", 25, 1),
    # A gap of less is one.
    ("pause.ts", [0, 1 / 25, 2 / 25, 3, 3 + 1 / 25], [*x264, "-bf", "0"], "h264", 25, 1),
    ("one.mkv", [0], ffv1, "ffv1", 24, 1),
]


def refuse(name, word, data):
    (folder / name).write_bytes(data)
    return f"refused {name} {word}"


def refuse_encoded(name, word, *options):
    encode(name, small, "25", *options)
    return f"refused {name} {word}"


def refuse_all():
    whole = (folder / "h264.mp4").read_bytes()
    # A fragment of 2^25 frames, none with a byte of its own, for which FFmpeg would make an index of 0.8 GB.
    fragments = (folder / "h264_fragments.mp4").read_bytes()
    flags = fragments.index(b"trun") + 4
    many = fragments[:flags] + b"\0\0\0\0" + b"\x02\0\0\0" + fragments[flags + 8 :]
    (folder / "many_frames.mp4").write_bytes(many)
    ffmpeg("-f", "lavfi", "-i", "sine=duration=1", "-c:a", "aac", folder / "sound_only.mp4")
    return [
        "refused sound_only.mp4 track",
        refuse_encoded("mpeg2.ts", "mpeg2video", "-c:v", "mpeg2video"),
        refuse_encoded("prores.mov", "prores", "-c:v", "prores"),
        refuse_encoded("theora.mkv", "theora", "-c:v", "libtheora"),
        refuse_encoded("raw.mkv", "rawvideo", "-c:v", "rawvideo", "-allow_raw_vfw", "1"),
        refuse_encoded("h264.avi", "AVI", *x264),
        refuse_encoded("h264.flv", "FLV", *x264),
        refuse_encoded("theora.ogv", "Ogg", "-c:v", "libtheora"),
        refuse_encoded("wmv.wmv", "Windows", "-c:v", "wmv2"),
        refuse_encoded("mpeg.vob", "program", "-c:v", "mpeg2video"),
        refuse_encoded("raw.nut", "none", "-c:v", "rawvideo"),
        refuse_encoded("moving.gif", "GIF"),
        refuse("playlist.m3u8", "none", b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile:///etc/passwd\n"),
        refuse("concat.txt", "none", b"ffconcat version 1.0\nfile /etc/passwd\n"),
        refuse("empty.mp4", "none", b""),
        refuse("no_moov.mp4", "opened", whole[:400]),
        refuse("turned_45.mp4", "degrees", turned(1, 1, -1, 1)(whole)),
        refuse("header_only.mkv", "opened", (folder / "ffv1_gbrp.mkv").read_bytes()[:300]),
        refuse("cut.ts", "video", (folder / "h264.ts").read_bytes()[: 188 * 6]),
    ]


with concurrent.futures.ThreadPoolExecutor(4) as threads:
    index = list(threads.map(constant, KINDS))
    index += threads.map(lambda name: changed(name, *CHANGED[name]), CHANGED)
    index += threads.map(lambda row: at_times(*row), VARIABLE)
index += [
    two_tracks("no_default.mkv", 255 - small, "-disposition", "0"),
    two_tracks("second_default.mkv", 255 - small, "-disposition:v:0", "0", "-disposition:v:1", "default"),
    two_tracks("first_default.mkv", frames(9, 96, 128), "-disposition:v:0", "default", "-disposition:v:1", "0"),
    with_cover("cover.mp4"),
    two_matrices("two_matrices.ts"),
]
index += [sei_turned(), matrix_86(next(row for row in index if " matrix_2.mkv " in row)), *refuse_all()]
(folder / "index").write_text("\n".join(index) + "\n")
