"""Synthetic input pictures: smooth, deterministic, not symmetric."""
import numpy as np


def synthetic_frames(count, height, width, seed):
    """uint8 [count, height, width, 3]: a moving gradient with a bright block."""
    random = np.random.RandomState(seed)
    a, b, c = random.uniform(0.5, 2.0, 3)
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    out = np.zeros((count, height, width, 3), np.uint8)
    for index in range(count):
        t = index / max(count - 1, 1)
        base = np.stack([np.sin(a * x / width * 3 + 2 * t), np.cos(b * y / height * 3 - t),
                         np.sin(c * (x + y) / (height + width) * 4)], -1)
        frame = 127.5 + 110 * base
        top, left = int(t * height * 0.5), int((1 - t) * width * 0.5)
        frame[top:top + height // 4, left:left + width // 4] = (250, 240 - 200 * t, 20 + 200 * t)
        out[index] = np.clip(np.round(frame), 0, 255).astype(np.uint8)
    return out
