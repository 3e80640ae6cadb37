"""Judges a clip: is the shape, its colour, its motion and the background what was asked for?

Looks at pixels only. On clips drawn by scenes.render it answers right every time (`python score.py` checks).
"""
import dataclasses
import math

import numpy as np

import scenes
import tasks

_COLOR_NAMES, _BACKGROUND_NAMES = list(scenes.COLORS), list(scenes.BACKGROUNDS)
# CIE Lab distance from the background at which a pixel counts as the object's.
_OBJECT_DISTANCE = 22
# Mean overlap (intersection over union) with the objects of given frames from which on they count as shown. The VAE alone
# comes to .80 to .96; of clips that were given nothing, one in eight comes to this.
_KEPT_OVERLAP = .75
_AREA_AT_RADIUS_1 = {"circle": math.pi, "square": 1.68 ** 2,
                     "triangle": .75 * math.sqrt(3) * 1.15 ** 2, "star": 1.763}
_COMPASS = ("right", "up-right", "up", "up-left", "left", "down-left", "down", "down-right")


@dataclasses.dataclass
class Seen:
    """What a clip shows; None where there is no object to speak of."""
    background: str
    color: str | None = None
    motion: str | None = None
    shape: str | None = None
    # Overlap (intersection over union) of the object with the best placed shape of each kind.
    overlap: dict = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class Score:
    color: bool
    motion: bool
    background: bool
    shape: bool
    kept: bool  # Are given frames shown where they belong? True where none were given.
    iou: float
    seen: Seen


ASPECTS = ("color", "motion", "background", "shape", "kept")


def score(frames, scene, given=None):
    """`frames`: uint8 [T, H, W, 3]; `scene`: the scenes.Scene asked for; `given`: the tasks.Given or None.

    A clip that goes on from given frames is judged from the last of them on: what was given proves nothing.
    """
    made = frames
    if given is not None and given.frame_index == 0:
        made = frames[len(given.frames) - 1:]
    seen = look(made)
    return Score(color=seen.color == scene.color, motion=seen.motion == scene.geometry.motion,
                 background=seen.background == scene.background,
                 shape=seen.shape == scene.geometry.shape, kept=given is None or _keeps(frames, given),
                 iou=float(seen.overlap.get(scene.geometry.shape, 0.0)), seen=seen)


def totals(scores):
    """Share of right answers by aspect, and the mean overlap."""
    return {name: float(np.mean([getattr(s, name) for s in scores])) for name in (*ASPECTS, "iou")}


def to_uint8(frames):
    """float [.., 3] in 0..1 -> uint8, rounded."""
    return (np.clip(frames, 0, 1) * 255 + 0.5).astype(np.uint8)


def _lab(rgb):
    """sRGB in 0..255 -> CIE Lab (D65), [..., 3]."""
    rgb = np.asarray(rgb, np.float32) / 255
    linear = np.where(rgb > .04045, ((rgb + .055) / 1.055) ** 2.4, rgb / 12.92)
    to_xyz = np.array([[.4124, .3576, .1805], [.2126, .7152, .0722], [.0193, .1192, .9505]],
                      np.float32)
    xyz = linear @ to_xyz.T / np.array([.9505, 1, 1.089], np.float32)
    f = np.where(xyz > .008856, np.cbrt(np.maximum(xyz, 1e-9)), 7.787 * xyz + 16 / 116)
    return np.stack([116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]),
                     200 * (f[..., 1] - f[..., 2])], -1)


def _nearest(lab, names, table):
    palette = _lab(np.array([table[n] for n in names], np.float32))
    return names[int(np.argmin(((palette - lab) ** 2).sum(-1)))]


class _Object:
    """Where the object is in frames [T, H, W, 3], with its blurred edge (mask) and without (core), and the colours' names."""

    def __init__(self, frames):
        ground, lab = _lab(np.median(frames.reshape(-1, 3), 0)), _lab(frames)
        distance = np.sqrt(((lab - ground) ** 2).sum(-1))
        self.mask = distance > _OBJECT_DISTANCE
        self.areas = self.mask.reshape(len(self.mask), -1).sum(1)
        self.color, self.core = None, self.mask
        if self.mask.any():
            self.core = distance > max(_OBJECT_DISTANCE, .6 * np.percentile(distance[self.mask], 80))
            self.color = _nearest(np.median(lab[self.core], 0), _COLOR_NAMES, scenes.COLORS)
        self.background = _nearest(ground, _BACKGROUND_NAMES, scenes.BACKGROUNDS)


def _keeps(frames, given):
    shown = _Object(frames[given.frame_index:given.frame_index + len(given.frames)])
    want = _Object(given.frames)
    if (shown.color, shown.background) != (want.color, want.background):
        return False
    both, either = (shown.core & want.core).sum((1, 2)), (shown.core | want.core).sum((1, 2))
    return bool((both / np.maximum(1, either)).mean() > _KEPT_OVERLAP)


def look(frames):
    frames = np.asarray(frames)
    thing = _Object(frames)
    mask, areas = thing.mask, thing.areas
    seen = Seen(background=thing.background)
    visible = np.where(areas > 12)[0]
    if len(visible) < len(frames) * .7:
        return seen
    y, x = np.mgrid[0:frames.shape[1], 0:frames.shape[2]]
    centres = np.array([((x * m).sum() / max(1, m.sum()), (y * m).sum() / max(1, m.sum()))
                        for m in mask])
    seen.color = thing.color
    seen.motion = _motion(mask, areas, centres, visible)
    angles = np.linspace(0, 2 * math.pi, 36, endpoint=False) if seen.motion == "spin" else [0.0]
    seen.overlap = {shape: _overlap(shape, mask, areas, centres, visible[::4], angles)
                    for shape in scenes.SHAPES}
    seen.shape = max(seen.overlap, key=seen.overlap.get)
    return seen


def _motion(mask, areas, centres, visible):
    dx, dy = centres[visible[-2:]].mean(0) - centres[visible[:2]].mean(0)
    if math.hypot(dx, dy) >= 8:
        return _COMPASS[int(round(math.degrees(math.atan2(-dy, dx)) / 45)) % 8]
    growth = areas[visible[-3:]].mean() / areas[visible[:3]].mean()
    least = 1.7 if len(mask) > scenes.FRAMES // 2 + 1 else 1.3  # of half a clip
    if growth > least:
        return "grow"
    if growth < 1 / least:
        return "shrink"
    if np.ptp(centres[visible, 1]) >= 8:
        return "bounce"
    # In place: does the outline turn?
    first = visible[0]
    least = 1.0
    for frame in visible[1::2]:
        shift = np.round(centres[first] - centres[frame]).astype(int)
        moved = np.roll(mask[frame], (shift[1], shift[0]), (0, 1))
        either = max(1, (moved | mask[first]).sum())
        least = min(least, (moved & mask[first]).sum() / either)
    return "spin" if least < .8 else "still"


def _overlap(shape, mask, areas, centres, frames, angles):
    """Mean over `frames` of the best overlap with the shape of equal area and centre at one of `angles`."""
    if shape == "circle":
        angles = [0.0]
    result = []
    for frame in frames:
        radius = math.sqrt(areas[frame] / _AREA_AT_RADIUS_1[shape])
        best = 0.0
        for angle in angles:
            cx, cy = centres[frame] + 0.5
            if shape == "triangle":  # drawn about a point beside its centroid
                cy -= .12 * radius * math.cos(angle)
            stamp = scenes.stamp(shape, cx, cy, radius, angle)
            best = max(best, (stamp & mask[frame]).sum() / max(1, (stamp | mask[frame]).sum()))
        result.append(best)
    return float(np.mean(result))


def _check(count=160):
    import random
    drawn = [scenes.sample(random.Random(900000 + seed)) for seed in range(count)]
    for task in tasks.TASKS:
        scores = [score(scenes.render(scene), scene, tasks.given(task, scene)) for scene in drawn]
        print(f"{task} {count} rendered clips:", {k: round(v, 3) for k, v in totals(scores).items()})


if __name__ == "__main__":
    _check()
