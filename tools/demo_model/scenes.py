"""The demo model's world: one coloured shape on a plain background, moving as its caption says.

Geometry (a signed distance field per frame) and colours are kept apart, so that a clip can be recoloured for nothing.
Frames: T=17 of H=W=64 pixels. Everything is drawn from the `rng` (random.Random) that is handed in.
"""
import dataclasses

import numpy as np

SIZE_PX = 64
FRAMES = 17

COLORS = {"red": (225, 30, 30), "green": (30, 170, 50), "blue": (40, 70, 230),
          "yellow": (245, 220, 40), "orange": (245, 135, 20), "purple": (140, 50, 190),
          "cyan": (40, 210, 225), "pink": (250, 120, 180), "white": (245, 245, 245)}
BACKGROUNDS = {"black": (8, 8, 8), "gray": (120, 120, 120), "dark blue": (12, 18, 80),
               "dark green": (8, 60, 25), "brown": (95, 60, 35), "light blue": (165, 205, 245),
               "beige": (230, 215, 180), "dark red": (85, 10, 15)}
# Pairs that are hard to see apart; never drawn.
_TOO_CLOSE = {("white", "beige"), ("white", "light blue"), ("red", "dark red"),
              ("cyan", "light blue"), ("yellow", "beige"), ("green", "dark green"),
              ("blue", "dark blue"), ("orange", "brown")}
PAIRS = [(c, b) for c in COLORS for b in BACKGROUNDS if (c, b) not in _TOO_CLOSE]
# Words shared between object and background colours: the binding that the model finds hardest.
HARD_PAIRS = [(c, b) for c, b in PAIRS
              if c in ("red", "green", "blue") and b.startswith(("dark", "light"))]

SHAPES = ("circle", "square", "triangle", "star")
DIRECTIONS = {"right": (1, 0), "left": (-1, 0), "up": (0, -1), "down": (0, 1),
              "up-right": (1, -1), "up-left": (-1, -1), "down-right": (1, 1),
              "down-left": (-1, 1)}
MOTIONS = (*DIRECTIONS, "bounce", "grow", "shrink", "spin")
PHRASES = {
    "right": ("moving to the right", "moving right", "sliding to the right"),
    "left": ("moving to the left", "moving left", "sliding to the left"),
    "up": ("moving up", "rising", "floating upwards"),
    "down": ("moving down", "falling", "dropping downwards"),
    "up-right": ("moving diagonally up and to the right", "moving up and right"),
    "up-left": ("moving diagonally up and to the left", "moving up and left"),
    "down-right": ("moving diagonally down and to the right", "moving down and right"),
    "down-left": ("moving diagonally down and to the left", "moving down and left"),
    "bounce": ("bouncing", "bouncing up and down"),
    "grow": ("growing", "getting bigger", "growing larger"),
    "shrink": ("shrinking", "getting smaller"),
    "spin": ("spinning", "rotating", "spinning in place")}
PREPOSITIONS = ("over", "on", "in front of")
# Radius ranges in pixels, and how often each size is drawn.
_RADII = {"small": (10.5, 12.0), "medium": (12.5, 14.5), "large": (15.0, 17.0)}
_SIZE_WEIGHTS = (0.15, 0.6, 0.25)

# Corners at radius 1.
_CORNERS = {
    "square": np.array([[-.84, -.84], [.84, -.84], [.84, .84], [-.84, .84]]),
    "triangle": np.array([[np.sin(a) * 1.15, -np.cos(a) * 1.15 + .12]
                          for a in (0, 2 * np.pi / 3, 4 * np.pi / 3)]),
    "star": np.array([[np.sin(i * np.pi / 5) * (1.2 if i % 2 == 0 else .5),
                       -np.cos(i * np.pi / 5) * (1.2 if i % 2 == 0 else .5)]
                      for i in range(10)])}

_Y, _X = np.mgrid[0:SIZE_PX, 0:SIZE_PX].astype(np.float32) + np.float32(0.5)


@dataclasses.dataclass
class Geometry:
    """What moves and how, without its colours."""
    shape: str
    motion: str
    size: str
    radius_px: float
    # Six numbers in 0..1 that displace the path.
    jitter: list


@dataclasses.dataclass
class Scene:
    geometry: Geometry
    color: str
    background: str


def sample_geometry(rng):
    shape, motion = rng.choice(SHAPES), rng.choice(MOTIONS)
    while motion == "spin" and shape == "circle":
        shape = rng.choice(SHAPES)
    size = rng.choices(list(_RADII), _SIZE_WEIGHTS)[0]
    return Geometry(shape, motion, size, rng.uniform(*_RADII[size]),
                    [rng.random() for _ in range(6)])


def sample(rng):
    geometry = sample_geometry(rng)
    return Scene(geometry, *rng.choice(PAIRS))


def _polygon_distance(x, y, corners):
    """Signed distance to a polygon, negative inside (Inigo Quilez, "2D distance functions": the exact polygon)."""
    squared = np.full(x.shape, 1e9, np.float32)
    outside = np.ones(x.shape, bool)
    corners = corners.astype(np.float32)
    for i in range(len(corners)):
        a, b = corners[i], corners[i - 1]
        edge = b - a
        wx, wy = x - a[0], y - a[1]
        along = np.clip((wx * edge[0] + wy * edge[1]) / (edge @ edge), 0, 1)
        px, py = wx - edge[0] * along, wy - edge[1] * along
        np.minimum(squared, px * px + py * py, out=squared)
        above, below, left = y >= a[1], y < b[1], edge[0] * wy > edge[1] * wx
        outside ^= (above & below & left) | ~(above | below | left)
    return np.where(outside, 1, -1) * np.sqrt(squared)


def unit_distance(shape, x, y):
    """Signed distance to the shape of radius 1 at the origin."""
    if shape == "circle":
        return np.sqrt(x * x + y * y) - 1
    return _polygon_distance(x, y, _CORNERS[shape])


def path(geometry):
    """Centre x, centre y, radius (pixels) and angle (radians), each [T]."""
    radius, motion = geometry.radius_px, geometry.motion
    jitter = [2 * j - 1 for j in geometry.jitter]
    time = np.linspace(0, 1, FRAMES)
    margin = radius * 1.06 + 1.5
    radii, angles = np.full(FRAMES, radius), np.zeros(FRAMES)
    x, y = np.full(FRAMES, 32 + 7 * jitter[0]), np.full(FRAMES, 32 + 7 * jitter[1])
    travel = min(25 + 3 * jitter[2], SIZE_PX - 2 * margin)
    if motion in DIRECTIONS:
        dx, dy = DIRECTIONS[motion]
        if dx:
            x = 32 + 2 * jitter[0] + dx * (time - 0.5) * travel
        if dy:
            y = 32 + 2 * jitter[1] + dy * (time - 0.5) * travel
    elif motion == "bounce":
        floor = SIZE_PX - margin - 1.5 - 1.5 * jitter[1]
        y = floor - travel * np.abs(np.sin(2 * np.pi * time))
    elif motion in ("grow", "shrink"):
        largest = min(radius * 1.3, 20.0)
        radii = np.linspace(largest * .38, largest, FRAMES)
        if motion == "shrink":
            radii = radii[::-1]
        margin = largest * 1.15 + .5
        x, y = np.full(FRAMES, 32 + 4 * jitter[0]), np.full(FRAMES, 32 + 4 * jitter[1])
    elif motion == "spin":
        angles = time * np.pi
        margin = radius * 1.2 + .5
        x, y = np.full(FRAMES, 32 + 5 * jitter[0]), np.full(FRAMES, 32 + 5 * jitter[1])
    x, y = np.clip(x, margin, SIZE_PX - margin), np.clip(y, margin, SIZE_PX - margin)
    return x, y, radii, angles


def distance_field(geometry, frames=slice(None)):
    """Signed distance in pixels, float32 [T, H, W]; of some `frames` only, if told."""
    cx, cy, radius, angle = (np.asarray(v, np.float32)[frames, None, None] for v in path(geometry))
    x, y = (_X[None] - cx) / radius, (_Y[None] - cy) / radius
    cos, sin = np.cos(angle), np.sin(angle)
    return unit_distance(geometry.shape, cos * x + sin * y, cos * y - sin * x) * radius


def coverage(distance):
    """How much of each pixel the shape covers, 0..1."""
    return np.clip(0.5 - distance, 0, 1)


def stamp(shape, cx, cy, radius, angle):
    """bool [H, W]: the pixels mostly covered by one shape."""
    x, y = (_X - cx) / radius, (_Y - cy) / radius
    cos, sin = np.cos(angle), np.sin(angle)
    turned_x = (cos * x + sin * y).astype(np.float32)
    turned_y = (cos * y - sin * x).astype(np.float32)
    return coverage(unit_distance(shape, turned_x, turned_y) * radius) > 0.5


def paint(alpha, color, background):
    """uint8 [..., 3] from coverage [...]."""
    front, back = (np.array(v, np.float32) for v in (COLORS[color], BACKGROUNDS[background]))
    return (back + alpha[..., None].astype(np.float32) * (front - back) + 0.5).astype(np.uint8)


def render(scene):
    """The clip as it should look, uint8 [T, H, W, 3]."""
    return paint(coverage(distance_field(scene.geometry)), scene.color, scene.background)


def article(words):
    return ("an " if words[0] in "aeiou" else "a ") + words


def caption(scene, rng):
    """A training caption: one of five sentence forms, three prepositions, two or three verbs; the size is told now and
    then, the background almost always."""
    geometry = scene.geometry
    size = ""
    tells_size = geometry.size != "medium" and geometry.motion not in ("grow", "shrink")
    if tells_size and rng.random() < .6:
        size = geometry.size + " "
    thing = article(f"{size}{scene.color} {geometry.shape}")
    verb = rng.choice(PHRASES[geometry.motion])
    ground = article(scene.background + " background")
    where = f" {rng.choice(PREPOSITIONS)} {ground}" if rng.random() >= .06 else ""
    form = rng.random()
    if form < .7:
        return f"{thing} {verb}{where}"
    if form < .8:
        return f"{thing} that is {verb}{where}"
    if form < .9:
        return f"a video of {thing} {verb}{where}"
    return f"{ground}, {thing} {verb}" if where else f"{thing} {verb}"


def written_by_hand(text, rng):
    """Now and then a capital letter, now and then a full stop."""
    if rng.random() < .25:
        text = text[0].upper() + text[1:]
    if rng.random() < .15:
        text += "."
    return text
