"""What varies in a synthetic face, and from which numbers: tables of ranges, and a hash that fills them.

Every number is a hash of its address (seed, stream, number, column), so that an image is the same alone or in a batch.
The stream is the identity's (by identity number) or the image's (by index). N images; a parameter is N 1 1, a colour
N 3 1 1 in linear light (display value squared: the lab's faces use a gamma of 2).
"""

import math
from types import SimpleNamespace

import torch
from torch import Tensor

# Streams of the hash
POOL, IDENTITY, IMAGE, MOTION, SENSOR = range(5)

# Who: uniform between the two numbers, lengths in half head heights.
WHO = {
    "build": (0.0, 1.0),  # soft 0 to rugged 1: leads brows, jaw, beard and the choice of hair
    "age": (0.0, 1.0),
    "width": (0.68, 0.765), "deep": (0.76, 0.84), "skull": (0.25, 0.6), "jaw": (-0.24, 0.22), "chin": (-0.32, 0.04),
    "cheek_y": (-0.06, 0.06), "chin_y": (0.93, 1.03), "cheek": (0.02, 0.085),
    "nose_length": (0.40, 0.49), "nose_wide": (0.125, 0.185), "nose_high": (0.17, 0.25), "nose_bridge": (0.2, 0.6),
    "eye_x": (0.285, 0.325), "eye_y": (-0.02, 0.03), "eye_w": (0.143, 0.170), "eye_open": (0.060, 0.084),
    "eye_tilt": (-0.008, 0.022), "socket": (0.07, 0.13), "iris_size": (0.058, 0.066),
    "brow_up": (0.150, 0.185), "brow_tilt": (-0.008, 0.016), "brow_arch": (0.012, 0.045), "brow_thick": (0.020, 0.036),
    "mouth_down": (0.135, 0.175), "mouth_w": (0.205, 0.265), "lip_high": (0.034, 0.062), "lip_low": (0.048, 0.082),
    "lip_bow": (0.15, 0.5), "lip_red": (0.0, 1.0), "ear": (0.85, 1.15),
    "melanin": (0.0, 1.0), "ruddy": (0.0, 1.0), "freckles": (-1.6, 1.0),
    "iris_hue": (0.0, 1.0), "iris_light": (0.6, 1.3),
    "hair_kind": (0.0, 1.0), "hair_hue": (0.0, 1.0), "hair_light": (0.75, 1.25), "hair_part": (-0.32, 0.32),
    "hair_line": (0.0, 0.09), "hair_full": (0.8, 1.25), "hair_long": (0.85, 1.15),
    "beard": (0.0, 1.0), "glasses": (0.0, 1.0), "glasses_hue": (0.0, 1.0), "glasses_round": (0.0, 1.0),
    "patch_u": (0.0, 1.0), "patch_v": (0.0, 1.0),
}  # fmt: skip

# How, where and in which light: one image.
SHOT = {
    "yaw": (-32.0, 32.0), "pitch": (-12.0, 12.0), "roll": (-11.0, 11.0),
    "scale": (0.335, 0.375), "cx": (-0.03, 0.03), "cy": (-0.015, 0.03),
    "smile": (-0.10, 1.0), "mouth_open": (-1.2, 1.0), "brow_raise": (-0.6, 1.0), "blink": (-7.0, 0.95),
    "gaze_x": (-1.0, 1.0), "gaze_y": (-0.7, 0.7),
    "light_x": (-0.85, 0.85), "light_y": (-0.75, 0.05), "key": (0.78, 1.10), "fill": (0.36, 0.56), "warm": (0.0, 1.0),
    "back_hue": (0.0, 1.0), "back_turn": (-0.22, 0.22), "back_light": (0.22, 0.78), "back_shift": (0.5, 1.35),
    "back_vivid": (0.05, 0.55), "back_slope": (-1.0, 1.0), "back_u": (0.0, 1.0), "back_v": (0.0, 1.0),
    "back_kind": (0.0, 1.0), "spot_x": (-0.5, 0.5), "spot_y": (-0.5, 0.4), "spot_r": (0.08, 0.28),
    "spot2_x": (-0.5, 0.5), "spot2_y": (-0.5, 0.4), "spot2_r": (0.08, 0.28),
    "cloth_hue": (0.0, 1.0), "cloth_vivid": (0.05, 0.75), "cloth_light": (0.06, 0.75), "cloth_neck": (0.0, 1.0),
    "defocus": (0.25, 0.55), "shot_noise": (0.006, 0.020), "read_noise": (0.001, 0.005), "vignette": (0.05, 0.28),
    "exposure": (0.92, 1.10), "quality": (75.0, 99.0),
}  # fmt: skip

EXPRESSION = ("smile", "mouth_open", "brow_raise", "blink", "gaze_x", "gaze_y")

# Hair styles; the first are for soft builds, the last for rugged ones.
#   top, side: thickness; low: where it ends (chin = 1); line: hairline's height; window: how far it leaves the face
#   free (1 = up to the ears); jag: ragged edge; curl: 0 straight to 1 curly; back: width behind the neck
HAIR_FIELDS = ("top", "side", "low", "line", "window", "sweep", "jag", "curl", "back")
HAIR_STYLES = (
    (0.11, 0.13, 1.90, -0.60, 0.83, 0.55, 0.02, 0.12, 0.98),  # long, parted
    (0.13, 0.22, 1.75, -0.60, 0.84, 0.50, 0.03, 0.60, 0.98),  # long, wavy
    (0.11, 0.14, 1.75, -0.26, 0.84, -0.12, 0.03, 0.05, 0.95),  # long with a fringe
    (0.12, 0.17, 0.98, -0.58, 0.82, 0.50, 0.03, 0.15, 0.60),  # bob
    (0.12, 0.16, 0.85, -0.27, 0.83, -0.10, 0.03, 0.08, 0.55),  # bob with a fringe
    (0.06, 0.035, 0.36, -0.62, 0.93, 0.10, 0.02, 0.10, 0.0),  # tied back
    (0.26, 0.27, 0.50, -0.58, 0.92, 0.05, 0.06, 1.00, 0.0),  # round and curly
    (0.17, 0.08, 0.36, -0.56, 0.93, 0.30, 0.04, 0.25, 0.0),  # short, swept aside
    (0.13, 0.06, 0.34, -0.46, 0.93, -0.08, 0.06, 0.35, 0.0),  # short, tousled, on the forehead
    (0.09, 0.035, 0.32, -0.60, 0.93, 0.02, 0.03, 0.30, 0.0),  # short
    (0.045, 0.018, 0.30, -0.64, 0.93, -0.02, 0.02, 0.60, 0.0),  # cropped
    (0.0, 0.0, 0.30, -1.60, 1.50, 0.0, 0.0, 0.0, 0.0),  # bald
)
# Display colours, 0 to 1
SKINS = (
    (0.95, 0.82, 0.74), (0.93, 0.76, 0.65), (0.89, 0.69, 0.55),
    (0.77, 0.56, 0.42), (0.58, 0.39, 0.28), (0.40, 0.26, 0.19),
)  # fmt: skip
HAIRS = (
    (0.09, 0.075, 0.07), (0.19, 0.13, 0.10), (0.34, 0.22, 0.145), (0.60, 0.27, 0.12),
    (0.66, 0.49, 0.28), (0.86, 0.71, 0.45), (0.66, 0.65, 0.64),
)  # fmt: skip
IRISES = (
    (0.25, 0.15, 0.09), (0.38, 0.24, 0.13), (0.42, 0.36, 0.18),
    (0.33, 0.45, 0.33), (0.36, 0.52, 0.66), (0.48, 0.55, 0.60),
)  # fmt: skip
STYLES = {"any": (0.0, 1.0), "dark": (0.0, 0.30), "fair": (0.50, 0.86)}  # the stretch of HAIRS that each may use


def _signed(x: int) -> int:
    x &= (1 << 64) - 1
    return x - (1 << 64) if x >= 1 << 63 else x


def mix(x: Tensor) -> Tensor:
    """One well-mixed 64-bit integer for each: the finaliser of SplitMix64 (Steele, Lea and Flood 2014, fig. 16)."""
    x = (x ^ (x >> 30 & (1 << 34) - 1)) * _signed(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> 27 & (1 << 37) - 1)) * _signed(0x94D049BB133111EB)
    return x ^ (x >> 31 & (1 << 33) - 1)


def address(seed: int, stream: int, number: Tensor) -> Tensor:
    """A 64-bit hash of (seed, stream, number); number is any int64 tensor."""
    start = mix(torch.tensor(_signed(seed)))
    return mix(mix(start + _signed(stream * 0x9E3779B97F4A7C15)) + mix(number + 1))


def uniform(key: Tensor, columns: int) -> Tensor:
    """Numbers in [0, 1), float64, shape N columns, from N addresses."""
    column = torch.arange(1, columns + 1) * _signed(0x9E3779B97F4A7C15)
    return (mix(key[:, None] + column) >> 11 & (1 << 53) - 1).double() / (1 << 53)


def draw(key: Tensor, table: dict[str, tuple[float, float]]) -> dict[str, Tensor]:
    """One uniform number for each name and image: N 1 1, float64."""
    u = uniform(key, len(table))
    return {name: (low + (high - low) * u[:, k])[:, None, None] for k, (name, (low, high)) in enumerate(table.items())}


def palette(colours: tuple[tuple[float, ...], ...], place: Tensor) -> Tensor:
    """A place in [0, 1] along a row of display colours, N 1 1, to linear light, N 3 1 1."""
    row = torch.tensor(colours, dtype=torch.float64)
    at = place[:, 0, 0].clamp(0, 1) * (len(colours) - 1)
    k = at.long().clamp(max=len(colours) - 2)
    part = (at - k)[:, None]
    return ((row[k] * (1 - part) + row[k + 1] * part) ** 2)[:, :, None, None]


def hue(place: Tensor, vivid: Tensor, light: Tensor) -> Tensor:
    """A colour by hue (turns), vividness and display brightness, each N 1 1, to linear light, N 3 1 1."""
    third = torch.tensor([0.0, 1 / 3, 2 / 3], dtype=torch.float64)[None, :, None, None]
    wave = 0.5 + 0.5 * torch.cos(2 * math.pi * (place[:, None] - third))
    return (light[:, None] * (1 - vivid[:, None] * (1 - wave))) ** 2


def settle(who: dict[str, Tensor], shot: dict[str, Tensor], style: str) -> SimpleNamespace:
    """All numbers that drawing needs, float32, from the draws of the identity and of the image (float64).

    The result's fields are N 1 1, colours N 3 1 1; see the tables above and arena/data/_face_shape.py.
    """
    p = SimpleNamespace(**who, **shot)
    for name in ("smile", "mouth_open", "brow_raise", "blink"):
        setattr(p, name, getattr(p, name).clamp(0, 1))
    for name in ("yaw", "pitch", "roll"):
        angle = getattr(p, name) * (math.pi / 180)
        setattr(p, f"cos_{name}", torch.cos(angle))
        setattr(p, f"sin_{name}", torch.sin(angle))
    rugged, smile = p.build, p.smile

    # the head and its features
    p.width = p.width + 0.012 * rugged
    p.jaw, p.chin = p.jaw + 0.16 * (rugged - 0.5), p.chin + 0.14 * (rugged - 0.5)
    p.gap = 0.13 * p.mouth_open
    p.chin_y = p.chin_y + 0.03 * rugged + 0.5 * p.gap
    p.crown = torch.ones_like(p.width)
    p.brow_ridge = 0.01 + 0.05 * rugged
    p.nose_top = p.eye_y - 0.06
    p.nose_base = p.eye_y + p.nose_length
    p.nose_tip = p.nose_base - 0.12
    p.wing_y = p.nose_base - 0.055
    p.nose_wide = p.nose_wide * (1 + 0.10 * smile)
    p.eye_high = p.eye_open * (1 + 0.22 * p.brow_raise - 0.22 * smile)
    p.eye_low = p.eye_open * (0.62 - 0.12 * smile)
    p.brow_y = p.eye_y - p.brow_up - 0.055 * p.brow_raise + 0.012 * rugged
    p.brow_x, p.brow_w = p.eye_x + 0.005, p.eye_w * 1.18
    p.brow_thick = p.brow_thick * (0.75 + 0.55 * rugged)
    p.mouth_y = p.nose_base + p.mouth_down + 0.01
    p.mouth_w = p.mouth_w * (1 + 0.24 * smile - 0.14 * p.mouth_open * (1 - smile))
    p.mouth_lift = 0.085 * smile + 0.004
    p.lip_high = p.lip_high * (1 - 0.30 * smile)
    p.lip_low = p.lip_low * (1 - 0.22 * smile)
    p.upper_y = p.mouth_y - 0.3 * p.gap - 0.4 * p.lip_high
    p.lower_y = p.mouth_y + 0.7 * p.gap + 0.5 * p.lip_low
    p.cheek = p.cheek + 0.05 * smile
    p.cheek_low = 0.33 - 0.05 * smile

    # hair: rugged builds draw from the end of the list, soft ones from its start, with a broad overlap
    low, high = STYLES[style]
    last = len(HAIR_STYLES) - (1 if style == "any" else 2)
    kind = ((0.56 * p.hair_kind + 0.44 * rugged) * (last + 1)).clamp(0, last).long()[:, 0, 0]
    row = torch.tensor(HAIR_STYLES, dtype=torch.float64)[kind]
    for k, name in enumerate(HAIR_FIELDS):
        setattr(p, f"hair_{name}", row[:, k, None, None])
    p.hair_top, p.hair_side = p.hair_top * p.hair_full, p.hair_side * p.hair_full
    p.hair_line = who["hair_line"] + row[:, 3, None, None] - 0.06 * rugged * p.age
    grown = (p.hair_low > 0.6).double()
    p.hair_low = p.hair_low * (1 + grown * (p.hair_long - 1))
    p.hair_on = (p.hair_line > -1.2).double()
    # in the fair and dark worlds nobody wears glasses, so that hair alone tells them apart
    p.glasses = (p.glasses > 0.80).double() * (style == "any")
    p.beard = ((p.beard - 0.45) / 0.4).clamp(0, 1) * ((rugged - 0.62) / 0.1).clamp(0, 1)
    p.stubble = ((rugged - 0.60) / 0.3).clamp(0, 1) * (0.4 + 0.6 * who["beard"])

    # colours
    melanin = p.melanin
    p.skin = palette(SKINS, melanin)
    p.skin = p.skin * (1 + (p.ruddy[:, None] - 0.5) * torch.tensor([0.06, -0.08, -0.12]).double()[:, None, None])
    p.hair = palette(HAIRS, low + (high - low) * p.hair_hue) * p.hair_light[:, None]
    p.brow = p.hair * (0.55 + 0.1 * p.hair_light[:, None])
    p.iris = palette(IRISES, p.iris_hue) * p.iris_light[:, None]
    red = torch.tensor([0.90, 0.46, 0.44]).double()[:, None, None]
    vivid = (0.45 + 0.55 * p.lip_red * (1 - rugged))[:, None]
    p.lip = p.skin * (1 - vivid + vivid * red) * (1 - 0.12 * vivid)
    p.freckles = p.freckles.clamp(min=0) * (1 - melanin)
    p.glass = hue(p.glasses_hue, 0.6 * p.glasses_hue, 0.12 + 0.25 * p.glasses_hue)
    p.cloth = hue(p.cloth_hue, p.cloth_vivid, p.cloth_light)
    p.back = hue(p.back_hue, p.back_vivid, p.back_light)
    p.back2 = hue(p.back_hue + p.back_turn, p.back_vivid, p.back_light * p.back_shift)
    p.spot = hue(p.back_hue + 2 * p.back_turn, p.back_vivid, (p.back_light * (2 - p.back_shift) + 0.15).clamp(max=0.9))
    warm = (p.warm - 0.5)[:, None] * torch.tensor([0.16, 0.0, -0.20]).double()[:, None, None]
    p.key_colour = (1 + warm) * p.key[:, None]
    p.fill_colour = (1 - 0.5 * warm) * p.fill[:, None]
    norm = (p.light_x**2 + p.light_y**2 + 0.55).rsqrt()
    p.light_x, p.light_y, p.light_z = p.light_x * norm, p.light_y * norm, 0.55**0.5 * norm
    numbers = {name: value.float() for name, value in vars(p).items()}
    return SimpleNamespace(**numbers)
