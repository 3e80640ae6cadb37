"""Writes pictures of every kind, and what diffusers' load_image makes of them, into a folder.

The index lists one case a line:
  image FILE EXPECTED.npy            the very pixels
  refused FILE                       Pillow refuses it
  resize SOURCE.npy W H LANCZOS.npy BICUBIC.npy   Image.resize
"""

import io
import pathlib
import struct
import subprocess
import sys
import warnings
import zlib

import numpy as np
from diffusers.utils import load_image
from PIL import Image

warnings.simplefilter("ignore")
rng = np.random.default_rng(20240607)


def picture(height, width, channels):
    """Smooth colour with an edge and noise, so that upsampling, clipping and rounding all show."""
    y, x = np.mgrid[0:height, 0:width]
    planes = [127 + 120 * np.sin(x / (3 + c) + y / (7 - c) + c) for c in range(channels)]
    image = np.stack(planes, -1) + rng.normal(0, 12, (height, width, channels))
    image[height // 2 :, width // 3 :] = 255 - image[height // 2 :, width // 3 :]
    return np.clip(image, 0, 255).astype(np.uint8)


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def scanlines(samples, bits):
    """samples: [H, W, C] -> filtered rows (each with a filter byte of its own kind)."""
    out = b""
    for row in samples:
        flat = row.reshape(-1)
        if bits == 16:
            data = flat.astype(">u2").tobytes()
        elif bits == 8:
            data = flat.astype(np.uint8).tobytes()
        else:
            as_bits = ((flat[:, None] >> np.arange(bits - 1, -1, -1)) & 1).astype(np.uint8)
            data = np.packbits(as_bits.reshape(-1)).tobytes()
        out += b"\0" + data
    return out


def png(samples, bits, color_type, before=b"", after=b"", interlaced=False):
    height, width = samples.shape[:2]
    if interlaced:
        adam7 = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
        passes = [samples[y::dy, x::dx] for y, x, dy, dx in adam7]
        raw = b"".join(scanlines(p, bits) for p in passes if p.size)
    else:
        raw = scanlines(samples, bits)
    header = struct.pack(">IIBBBBB", width, height, bits, color_type, 0, 0, int(interlaced))
    data = zlib.compress(raw)
    half = len(data) // 2
    idat = chunk(b"IDAT", data[:half]) + chunk(b"IDAT", data[half:])
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + before + idat + after + chunk(b"IEND", b"")


def tiff(orientation, order="<", kind=3):
    entry = struct.pack(order + "HHI", 274, kind, 1)
    value = struct.pack(order + ("HH" if kind == 3 else "I"), *([orientation, 0] if kind == 3 else [orientation]))
    maker = struct.pack(order + "HHII", 271, 2, 2, 0)
    head = (b"II" if order == "<" else b"MM") + struct.pack(order + "HI", 42, 8)
    return head + struct.pack(order + "H", 2) + maker + entry + value + struct.pack(order + "I", 0)


def xmp(orientation, as_attribute=True):
    tag = f'tiff:Orientation="{orientation}"' if as_attribute else f"<tiff:Orientation>{orientation}</tiff:Orientation>"
    return f"<x:xmpmeta><rdf:Description {tag}/></x:xmpmeta>".encode()


def itxt(key, value, compressed):
    body = zlib.compress(value) if compressed else value
    return chunk(b"iTXt", key + b"\0" + bytes([int(compressed), 0]) + b"\0\0" + body)


def saved(image, form, **options):
    out = io.BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


def app1_inserted(jpeg, *segments):
    extra = b"".join(b"\xff\xe1" + struct.pack(">H", len(s) + 2) + s for s in segments)
    return jpeg[:2] + extra + jpeg[2:]


def png_cases():
    sizes = [(1, 1), (3, 5), (13, 17), (48, 64)]
    for height, width in sizes:
        for interlaced in (False, True):
            tag = f"{width}x{height}{'i' if interlaced else ''}"
            for bits in (1, 2, 4, 8, 16):
                grey = rng.integers(0, 1 << bits, (height, width, 1))
                if bits == 16:
                    grey[::2] %= 300  # around Pillow's clipping point
                yield f"png_grey{bits}_{tag}.png", png(grey, bits, 0, interlaced=interlaced)
            for bits in (1, 2, 4, 8):
                entries = min(1 << bits, 200)
                indices = rng.integers(0, 1 << bits, (height, width, 1))  # at 8 bits some lie past the palette
                palette = chunk(b"PLTE", rng.integers(0, 256, 3 * entries).astype(np.uint8).tobytes())
                yield f"png_palette{bits}_{tag}.png", png(indices, bits, 3, palette, interlaced=interlaced)
                alpha = chunk(b"tRNS", rng.integers(0, 256, entries).astype(np.uint8).tobytes())
                yield f"png_palette{bits}_alpha_{tag}.png", png(indices, bits, 3, palette + alpha, interlaced=interlaced)
            for bits in (8, 16):
                for color_type, channels in ((2, 3), (4, 2), (6, 4)):
                    samples = rng.integers(0, 1 << bits, (height, width, channels))
                    yield f"png_type{color_type}_{bits}_{tag}.png", png(samples, bits, color_type, interlaced=interlaced)
    rgb = picture(11, 14, 3).astype(int)
    grey = rgb[..., :1]
    yield "png_grey_trns.png", png(grey, 8, 0, chunk(b"tRNS", struct.pack(">H", grey[0, 0, 0])))
    yield "png_grey1_trns.png", png(grey & 1, 1, 0, chunk(b"tRNS", struct.pack(">H", 1)))
    yield "png_grey16_trns.png", png(grey, 16, 0, chunk(b"tRNS", struct.pack(">H", grey[0, 0, 0])))
    yield "png_rgb_trns.png", png(rgb, 8, 2, chunk(b"tRNS", struct.pack(">3H", *rgb[0, 0])))
    one_clear = chunk(b"PLTE", bytes(range(24))) + chunk(b"tRNS", b"\xff\x00\xff")
    yield "png_palette_one_clear.png", png(grey % 8, 8, 3, one_clear)
    yield "png_gamma.png", png(rgb, 8, 2, chunk(b"gAMA", struct.pack(">I", 100000)))
    yield "png_srgb.png", png(rgb, 8, 2, chunk(b"sRGB", b"\0"))
    yield "png_16bit_background.png", png(rgb * 257, 16, 2, chunk(b"bKGD", struct.pack(">3H", 1, 2, 3)))
    yield "png_unknown_chunk.png", png(rgb, 8, 2, chunk(b"teSt", b"x" * 99), chunk(b"teSu", b"y"))
    for n in range(0, 10):
        yield f"png_exif{n}.png", png(rgb, 8, 2, chunk(b"eXIf", tiff(n)))
        yield f"png_exif_after{n}.png", png(rgb, 8, 2, after=chunk(b"eXIf", tiff(n, ">")))
        yield f"png_xmp{n}.png", png(rgb, 8, 2, itxt(b"XML:com.adobe.xmp", xmp(n), n % 2 == 0))
        yield f"png_xmp_element{n}.png", png(rgb, 8, 2, after=itxt(b"XML:com.adobe.xmp", xmp(n, False), False))
        hexed = (b"Exif\0\0" + tiff(n)).hex()
        profile = "\nexif\n      {}\n{}\n".format(len(hexed) // 2, "\n".join(hexed[i : i + 72] for i in range(0, len(hexed), 72)))
        yield f"png_raw_profile{n}.png", png(rgb, 8, 2, chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(profile.encode())))
        yield f"png_grey16_exif{n}.png", png(grey, 16, 0, chunk(b"eXIf", tiff(n)))
    yield "png_exif_over_xmp.png", png(rgb, 8, 2, chunk(b"eXIf", tiff(6)) + itxt(b"XML:com.adobe.xmp", xmp(3), False))
    frames = [Image.fromarray(picture(20, 30, 3)) for _ in range(3)]
    yield "apng.png", saved(frames[0], "PNG", save_all=True, append_images=frames[1:], duration=40)
    yield "apng_default.png", saved(frames[0], "PNG", save_all=True, append_images=frames[1:], default_image=True)
    clear = [Image.fromarray(picture(20, 30, 4)) for _ in range(3)]
    yield "apng_rgba.png", saved(clear[0], "PNG", save_all=True, append_images=clear[1:], disposal=1, blend=1)


def jpeg_cases():
    for height, width in [(1, 1), (3, 5), (17, 9), (16, 16), (63, 95), (120, 161)]:
        image = Image.fromarray(picture(height, width, 3))
        tag = f"{width}x{height}"
        for subsampling in (0, 1, 2):
            for quality in (1, 60, 95):
                for progressive in (False, True):
                    name = f"jpeg_s{subsampling}_q{quality}{'p' if progressive else ''}_{tag}.jpg"
                    yield name, saved(image, "JPEG", quality=quality, subsampling=subsampling, progressive=progressive)
        yield f"jpeg_grey_{tag}.jpg", saved(image.convert("L"), "JPEG", quality=80)
        yield f"jpeg_grey_progressive_{tag}.jpg", saved(image.convert("L"), "JPEG", progressive=True)
        yield f"jpeg_rgb_{tag}.jpg", saved(image, "JPEG", keep_rgb=True)
        yield f"jpeg_restart_{tag}.jpg", saved(image, "JPEG", restart_marker_blocks=2, optimize=True)
        cmyk = saved(Image.fromarray(picture(height, width, 4), "CMYK"), "JPEG", quality=85)
        yield f"jpeg_cmyk_{tag}.jpg", cmyk
        adobe = cmyk.index(b"\xff\xee")
        assert cmyk[adobe + 4 : adobe + 9] == b"Adobe" and cmyk[adobe + 15] == 0
        yield f"jpeg_ycck_{tag}.jpg", cmyk[: adobe + 15] + b"\x02" + cmyk[adobe + 16 :]
        yield f"jpeg_cmyk_plain_{tag}.jpg", cmyk[:adobe] + cmyk[adobe + 16 :]
        for layout in ("yuvj440p", "yuvj411p"):
            raw = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-i", "-"]
            code = ["-frames:v", "1", "-pix_fmt", layout, "-f", "mjpeg", "-"]
            run = subprocess.run(["ffmpeg", "-v", "error", *raw, *code], input=image.tobytes(), capture_output=True, check=True)
            yield f"jpeg_{layout}_{tag}.jpg", run.stdout
    plain = saved(Image.fromarray(picture(24, 40, 3)), "JPEG", quality=90)
    for n in range(0, 10):
        yield f"jpeg_exif{n}.jpg", app1_inserted(plain, b"Exif\0\0" + tiff(n))
        yield f"jpeg_exif_big{n}.jpg", app1_inserted(plain, b"Exif\0\0" + tiff(n, ">"))
        yield f"jpeg_exif_long{n}.jpg", app1_inserted(plain, b"Exif\0\0" + tiff(n, ">", 4))
        yield f"jpeg_xmp{n}.jpg", app1_inserted(plain, b"http://ns.adobe.com/xap/1.0/\0" + xmp(n))
    block = tiff(8)
    yield "jpeg_exif_split.jpg", app1_inserted(plain, b"Exif\0\0" + block[:20], b"Exif\0\0" + block[20:])
    yield "jpeg_exif_then_xmp.jpg", app1_inserted(plain, b"Exif\0\0" + tiff(5), b"http://ns.adobe.com/xap/1.0/\0" + xmp(3))
    yield "jpeg_trailing_bytes.jpg", plain + b"more" * 50
    yield "jpeg_comment.jpg", saved(Image.fromarray(picture(8, 8, 3)), "JPEG", comment=b"x" * 1000, dpi=(72, 72))


def webp_cases():
    for height, width in [(1, 1), (3, 5), (48, 63), (70, 101)]:
        tag = f"{width}x{height}"
        for channels, name in ((3, "rgb"), (4, "rgba")):
            image = Image.fromarray(picture(height, width, channels))
            yield f"webp_{name}_lossy_{tag}.webp", saved(image, "WEBP", quality=70)
            yield f"webp_{name}_lossless_{tag}.webp", saved(image, "WEBP", lossless=True)
            yield f"webp_{name}_exact_{tag}.webp", saved(image, "WEBP", lossless=True, exact=True)
    image = Image.fromarray(picture(21, 34, 3))
    for n in range(0, 10):
        yield f"webp_exif{n}.webp", saved(image, "WEBP", exif=b"Exif\0\0" + tiff(n))
        yield f"webp_exif_bare{n}.webp", saved(image, "WEBP", exif=tiff(n, ">"))
        yield f"webp_xmp{n}.webp", saved(image, "WEBP", xmp=xmp(n))
    for lossless in (False, True):
        for channels in (3, 4):
            frames = [Image.fromarray(picture(30, 41, channels)) for _ in range(3)]
            name = f"webp_animated_{channels}{'_lossless' if lossless else ''}.webp"
            yield name, saved(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=lossless, duration=50)


def refused_cases():
    plain_png = png(picture(30, 40, 3).astype(int), 8, 2)
    plain_jpeg = saved(Image.fromarray(picture(60, 70, 3)), "JPEG", quality=90)
    progressive = saved(Image.fromarray(picture(60, 70, 3)), "JPEG", quality=90, progressive=True)
    lossy = saved(Image.fromarray(picture(60, 70, 3)), "WEBP")
    lossless = saved(Image.fromarray(picture(60, 70, 3)), "WEBP", lossless=True)
    for name, data in dict(png=plain_png, jpg=plain_jpeg, progressive_jpg=progressive, webp=lossy, lossless_webp=lossless).items():
        for percent in (1, 10, 30, 50, 80, 95):
            yield f"truncated_{percent}_{name}", data[: len(data) * percent // 100]
    yield "jpeg_no_end_marker.jpg", plain_jpeg[:-2]
    bad = bytearray(png(picture(4, 4, 3).astype(int), 8, 2, chunk(b"gAMA", struct.pack(">I", 45455))))
    bad[bad.index(b"gAMA") + 5] ^= 1
    yield "png_bad_ancillary_checksum", bytes(bad)
    yield "empty", b""
    yield "text", b"not a picture at all, but long enough to look at" * 4
    yield "png_signature_only", b"\x89PNG\r\n\x1a\n"
    yield "png_no_pixels", b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 4, 8, 2, 0, 0, 0)) + chunk(b"IEND", b"")
    yield "png_zero_width", png(np.zeros((1, 1, 3), int), 8, 2).replace(struct.pack(">II", 1, 1), struct.pack(">II", 0, 1), 1)


def resize_cases():
    sizes = [(64, 64, 64, 64), (64, 64, 32, 32), (64, 48, 128, 96), (33, 57, 57, 33), (1, 1, 17, 9), (17, 9, 1, 1),
             (1, 100, 50, 100), (100, 1, 100, 50), (300, 2, 7, 200), (5, 400, 400, 5), (640, 360, 704, 480),
             (1000, 700, 64, 64), (2, 2, 3, 3), (3, 3, 2, 2), (129, 65, 128, 64), (31, 200, 31, 75), (200, 31, 75, 31)]
    # Around the point where Pillow 13 turns the order of its passes.
    sizes += [(40, 60, 30, 40), (40, 60, 30, 39), (50, 70, 49, 68), (50, 70, 49, 67), (40, 60, 50, 59), (50, 900, 40, 90)]
    sizes += [tuple(int(v) for v in rng.integers(1, 220, 4)) for _ in range(120)]
    for width, height, to_width, to_height in sizes:
        kind = rng.integers(0, 3)
        if kind == 0:
            source = rng.integers(0, 256, (height, width, 3)).astype(np.uint8)
        elif kind == 1:
            source = (rng.integers(0, 2, (height, width, 3)) * 255).astype(np.uint8)  # the overshoot must clip
        else:
            source = picture(height, width, 3)
        yield source, to_width, to_height


def main():
    folder = pathlib.Path(sys.argv[1])
    index = []
    for cases in (png_cases(), jpeg_cases(), webp_cases()):
        for name, data in cases:
            (folder / name).write_bytes(data)
            expected = np.asarray(load_image(str(folder / name)))
            assert expected.ndim == 3 and expected.shape[2] == 3 and expected.dtype == np.uint8
            np.save(folder / (name + ".npy"), expected)
            index.append(f"image {name} {name}.npy")
    for name, data in refused_cases():
        (folder / name).write_bytes(data)
        try:
            load_image(str(folder / name))
        except Exception:
            index.append(f"refused {name}")
        else:
            raise SystemExit(f"Pillow accepts {name}")
    for i, (source, width, height) in enumerate(resize_cases()):
        np.save(folder / f"resize{i}.npy", source)
        results = []
        for name in ("LANCZOS", "BICUBIC"):
            expected = np.asarray(Image.fromarray(source).resize((width, height), Image.Resampling[name]))
            np.save(folder / f"resized{i}_{name}.npy", expected)
            results.append(f"resized{i}_{name}.npy")
        index.append(f"resize resize{i}.npy {width} {height} {' '.join(results)}")
    (folder / "index").write_text("\n".join(index) + "\n")


if __name__ == "__main__":
    main()
