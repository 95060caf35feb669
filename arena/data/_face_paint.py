"""The picture of a synthetic face in linear light: background, body, head, ears, hair, glasses, back to front.

Every layer is a soft coverage (N S S, edges one pixel wide) and a colour (N 3 S S or N 3 1 1), lit as in
arena/data/_face_light.py; hair has the Kajiya-Kay highlight (1989). See arena/data/_face_shape.py for the frames.
"""

from types import SimpleNamespace

import torch
from torch import Tensor

from arena.data._face_light import SKIN_WRAP, coverage, gleam, lit, normal, over, texture, tile, tint
from arena.data._face_shape import MIDDLE, Surface, brow_line, bump, cast, edge, lids, lips, nose, root, unroll

Layers = list[tuple[str, Tensor]]


def paint(
    p: SimpleNamespace,
    size: int,
    margins: tuple[int, int, int, int] = (0, 0, 0, 0),
    background: Tensor | None = None,
) -> tuple[Tensor, Tensor, Layers]:
    """Linear light N 3 S S, the face's mask N S S (skin of the face with its features, less what hair hides), and what
    lies over what: (name, coverage N S S) from back to front, of "hair", "skin", "cloth" and "glasses".

    `margins` (left, top, right, bottom pixels, none negative) show what lies about the square; `background`, of the
    whole picture's shape, replaces the one that the numbers give.
    """
    left, top, right, bottom = margins
    gx = ((torch.arange(-left, size + right) + 0.5) / size - 0.5)[None, None]
    gy = ((torch.arange(-top, size + bottom) + 0.5) / size - 0.5)[None, :, None]
    gx, gy = (g.expand(1, top + size + bottom, left + size + right) for g in (gx, gy))
    step = 1 / (size * p.scale)
    bx, by = (gx - p.cx) / p.scale, (gy + (0.5 - MIDDLE) - p.cy) / p.scale  # upright, for the body
    vx, vy = unroll(p, bx, by)
    head = cast(p, vx, vy)
    cover, within = coverage(head.inside, step)
    fine = 0.5 * size * 0.3  # cycles per head unit that a pixel can show

    picture = _background(p, gx, gy, size) if background is None else background.clone()
    hair, curtain, shell_cover, strands = _hair(p, vx, vy, step, fine, -within)
    layers = [("hair", _back_hair(p, picture, vx, vy, step, strands))]
    rows = slice(top + int(0.56 * size), None)
    drop = max(1, round(0.06 * size))
    body = _body(p, picture[:, :, rows], bx[:, rows], by[:, rows], step, head.inside[:, rows], fine, drop)
    layers += [(name, _placed(part, rows, cover)) for name, part in zip(("skin", "cloth"), body, strict=True)]
    rows = slice(top + int(0.06 * size), top + int(0.96 * size))
    columns = slice(left + int(0.11 * size), left + int(0.89 * size))
    middle = Surface(*(field[:, rows, columns].contiguous() for field in head))
    face = _face(p, middle, step, fine, curtain[:, rows, columns])
    over(picture[:, :, rows, columns], face, cover[:, rows, columns])
    hair_cover = shell_cover * edge(curtain, 0.05) * p.hair_on
    hair_cover *= edge(strands.mul(0.12).add_(hair_cover).sub_(0.35), 0.7) * (hair_cover > 0)
    over(picture, hair, hair_cover)
    rows = slice(top + int(0.34 * size), top + int(0.76 * size))
    level = (field[:, rows] for field in (vx, vy, head.depth, cover, hair_cover))
    mask = cover * (1 - hair_cover)
    ears = _ears(p, picture[:, :, rows], *level, step=step)
    mask[:, rows] *= 1 - ears
    layers += [("skin", cover), ("hair", hair_cover), ("skin", _placed(ears, rows, cover))]
    wear = p.glasses.flatten().nonzero()[:, 0]
    if len(wear):
        few = SimpleNamespace(**{name: value[wear] for name, value in vars(p).items()})
        seen = (cover * (1 - hair_cover))[wear]
        picture[wear], rim = _glasses(few, picture[wear], vx[wear], vy[wear], step[wear], seen)
        layers.append(("glasses", torch.zeros_like(cover).index_copy_(0, wear, rim)))
    return picture, mask, layers


def _placed(part: Tensor, rows: slice, like: Tensor) -> Tensor:
    """A coverage of some rows as one of the whole picture."""
    whole = torch.zeros_like(like)
    whole[:, rows] = part
    return whole


def _background(p: SimpleNamespace, gx: Tensor, gy: Tensor, size: int) -> Tensor:
    cloud = texture(tile(0.45 * size, 1.6, 11), gx * 0.8 + p.back_u, gy * 0.8 + p.back_v)
    mixed = (gy * p.back_slope).add_(0.5).add_(cloud, alpha=0.16).clamp_(0, 1)
    picture = p.back + (p.back2 - p.back) * mixed[:, None]
    # blurred discs of light, or the edge of a wall
    wall = (p.back_kind > 0.6).float()
    disc = edge(p.spot_r - root((gx - p.spot_x) ** 2 + (gy - p.spot_y) ** 2), 0.05).mul_(1 - wall)
    side = edge(gx - p.spot_x, 0.03).mul_(wall)
    over(picture, p.spot, 0.45 * (disc + side))
    disc = edge(p.spot2_r - root((gx - p.spot2_x) ** 2 + (gy - p.spot2_y) ** 2), 0.09)
    over(picture, 0.5 * (p.spot + p.back2), disc.mul_(0.5 * (1 - wall)))
    grain = texture(tile(0.25 * size, 1.0, 12), gx * 1.7 + p.back_v, gy * 1.7 + p.back_u)
    return picture.mul_(grain.mul_(0.07).add_(1)[:, None]).clamp_(min=0.002)


def _hair(
    p: SimpleNamespace, vx: Tensor, vy: Tensor, step: Tensor, fine: float, beside: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The hair's shell around the head: its colour, how deep in the hair each pixel is, its coverage and strands."""
    shell = SimpleNamespace(**vars(p))
    shell.crown, shell.width, shell.deep = 1 + p.hair_top, p.width + p.hair_side, p.deep + 0.6 * p.hair_top
    shell.chin_y, shell.jaw, shell.chin, shell.skull = (
        p.hair_low,
        torch.ones_like(p.jaw),
        torch.ones_like(p.jaw),
        p.skull + 0.1,
    )
    s = cast(shell, vx, vy, steps=1)
    soft = texture(tile(min(fine / 0.6, 20.0), 0.8, 21), s.x * 0.6 + p.patch_u, s.y * 0.6 + p.patch_v)
    flow = (s.x - 0.6 * p.hair_part) / (s.y.clamp(min=-1.3) + 2.3)
    bend = soft * (0.012 + 0.035 * p.hair_curl)
    strands = texture(tile(fine / 3.2, 0.45, 22), (flow + bend) * 7.4 + p.patch_u, s.y * 0.16 + p.patch_v)
    strands = 0.75 * strands + 0.6 * texture(
        tile(9.0, 0.6, 23), (flow + bend) * 2.9 + p.patch_v, s.y * 0.10 + p.patch_u
    )
    strands = strands + (soft - strands) * (p.hair_curl * 0.75)
    _, distance = coverage(s.inside, step)
    ragged = strands.clamp(-1.6, 1.6)
    shell_cover = edge(distance + ragged * (0.006 + 0.03 * p.hair_curl * p.hair_on), 1.2 * step + 0.012)
    # the window that leaves the face free
    along = s.x - p.hair_part * (p.hair_sweep > 0.2)
    line = p.hair_line + p.hair_sweep * along * along
    fore = line - s.y
    side = s.x.abs() - p.hair_window * p.width
    corner = fore - side
    curtain = 0.5 * (fore + side + root(corner * corner + 0.018))
    # beside the head there is hair too, down to the neck
    beside = torch.minimum(beside, torch.maximum(0.35 - vy, vx.abs() - 0.62 * p.width))
    rear = torch.minimum(torch.minimum(0.03 - s.z, s.x.abs() - 0.7 * p.width), p.hair_low - 0.10 - s.y)
    curtain = torch.maximum(torch.maximum(curtain, rear), beside).add_(
        ragged * (p.hair_jag * (1 - p.hair_curl) + 0.006) + soft * (0.8 * p.hair_jag * p.hair_curl)
    )
    curtain = torch.minimum(curtain, distance + 0.02)
    # strands shine in a band across
    n = normal(s.depth, step)
    nx, ny, nz = n
    scale = (p.light_x**2 + p.light_y**2 + (p.light_z + 1) ** 2).rsqrt()
    hx, hy, hz = p.light_x * scale, p.light_y * scale, (p.light_z + 1) * scale
    nh = nx * hx + ny * hy + nz * hz
    th = (hy - ny * nh) * (1.02 - ny * ny).rsqrt() + 0.06 * strands - 0.12
    band = (1 - th * th).clamp_(0, 1)
    for _ in range(3):
        band.mul_(band)
    band *= nz.clamp(min=0) * (1 - 0.6 * p.hair_curl)
    depth_in = edge(curtain - 0.02, 0.22).mul_(0.4).add_(0.6)  # darker where it leaves the skin
    colour = lit(p, p.hair * (strands.mul_(0.30).add_(1).clamp_(0.25, 2))[:, None], n, depth_in, (0.25, 0.25, 0.25))
    shine = (0.55 * p.hair + 0.05) * p.key_colour
    colour += shine * (band * depth_in)[:, None]
    return colour, curtain, shell_cover, strands.sub_(1).mul_(3.0)


def _back_hair(p: SimpleNamespace, picture: Tensor, vx: Tensor, vy: Tensor, step: Tensor, strands: Tensor) -> Tensor:
    """The hair behind the head, in place; returns its coverage."""
    x = vx + 0.15 * p.sin_yaw
    low = p.hair_low * 0.97 - vy + 0.02 * strands
    cover = edge(torch.minimum(p.hair_back * p.width - x.abs(), low), 2 * step + 0.05).mul_(vy > -0.5)
    over(
        picture,
        p.hair * (0.16 + 0.05 * strands.clamp(-1.5, 1.5))[:, None] * (p.fill_colour + 0.4 * p.key_colour) * 1.6,
        cover,
    )
    return cover


def _body(
    p: SimpleNamespace, picture: Tensor, bx: Tensor, by: Tensor, step: Tensor, inside: Tensor, fine: float, drop: int
) -> tuple[Tensor, Tensor]:
    """Neck, shoulders and clothes, upright under the head, whose shadow falls on them `drop` pixels down, in place.

    Returns the coverages of skin and cloth.
    """
    by = by.expand_as(bx)
    fallen = torch.cat((inside[:, :1].expand(-1, drop, -1), inside[:, :-drop]), 1)
    shade = 1 - 0.72 * edge(fallen - 0.02, 0.45)
    x = bx + 0.55 * p.sin_roll * (1.35 - by).clamp(0, 1) - 0.10 * p.sin_yaw * (1.5 - by).clamp(0, 1)
    base = (by - 1.12).clamp(0, 1)
    half = p.width * (0.47 + 0.17 * p.build) + 0.9 * base * base + 0.10 * (0.9 - by).clamp(0, 1)
    nx = (x / half).clamp(-0.97, 0.97)
    nz = root(1 - nx * nx)
    pale = p.skin * 0.86
    neck = lit(p, pale.expand(-1, -1, *by.shape[1:]), (nx * 0.9, 0.10 + 0 * nx, nz), shade, SKIN_WRAP)
    ax = bx.abs()
    shoulder = by - 1.25 - 0.20 * ax * ax
    skin = torch.maximum(edge(half - x.abs(), 1.5 * step) * (by > 0.3), edge(shoulder, 1.5 * step))
    over(picture, neck, skin)
    deep = 0.07 + 0.38 * (p.cloth_neck - 0.55).clamp(min=0) / 0.45
    wide = 0.40 + 0.10 * p.cloth_neck
    arc = 1 - (ax / wide) ** 2
    collar = by - 1.24 - deep * arc
    cloth = torch.minimum(shoulder + 0.02, collar)
    folds = texture(tile(fine / 0.5, 1.3, 31), bx * 0.35 + p.back_u, by * 0.35 + p.cloth_hue)
    weave = texture(tile(fine / 2.0, 0.3, 32), bx * 1.9 + p.back_u, by * 1.9)
    tone = 1 + 0.13 * folds + 0.05 * weave - 0.22 * edge(0.045 - (collar - 0.05).abs(), 0.05)
    stripe = ((by + 0.04 * folds) * 7).sub_(0.15 * ax)
    stripe = edge((stripe - stripe.floor() - 0.5).abs() - 0.25, 0.12 + 7 * step)
    tone = tone * (1 + 0.35 * stripe * (p.cloth_vivid > 0.55))
    nx, ny = (bx * 0.5).clamp(-0.9, 0.9) + 0.10 * folds, -0.42 + 0.25 * (by - 1.4)
    nz = root(1.02 - nx * nx - ny * ny)
    shade = shade * (0.72 + 0.28 * edge(collar - 0.1, 0.25))
    clothed = edge(cloth, 1.5 * step)
    over(picture, lit(p, p.cloth * tone[:, None], (nx, ny, nz), shade, (0.1, 0.1, 0.1)), clothed)
    return skin, clothed


def _face(p: SimpleNamespace, head: Surface, step: Tensor, fine: float, curtain: Tensor) -> Tensor:
    """The head's skin with brows, eyes, nose, lips and beard, lit: N 3 S S."""
    x, y = head.x, head.y
    ax = x.abs()
    pores = texture(tile(fine / 0.7, 0.9, 41), x * 0.7 + p.patch_u, y * 0.7 + p.patch_v)
    hairs = texture(tile(fine / 2.5, 0.4, 42), x * 2.5 + p.patch_v, y * 0.9 + p.patch_u)
    albedo = p.skin.expand(-1, -1, *x.shape[1:]).contiguous()
    tint(albedo, (0.020, 0.035, 0.035), pores)

    # colour zones: blood in cheeks, nose and chin, darker rings round the eyes, freckles
    blush = bump(ax - 0.40, 0.27, y - p.cheek_low, 0.23) * 0.8 + bump(x, 0.20, y - p.nose_tip, 0.15) * 0.8
    blush += bump(x, 0.22, y - p.chin_y + 0.12, 0.16) * 0.35
    tint(albedo, (0.03, -0.15, -0.13), blush * (0.55 + 0.9 * p.ruddy))
    rings = bump(ax - p.eye_x, 0.23, y - p.eye_y - 0.01, 0.145)
    tint(albedo, (-0.20, -0.26, -0.22), rings)
    spots = (pores * 0.4 + hairs - 1.15).clamp_(0, 0.6) * bump(ax - 0.22, 0.45, y - 0.25, 0.30)
    tint(albedo, (-0.55, -0.75, -0.85), spots * p.freckles)

    # folds: from the nose to the mouth's corners, under the eyes, forehead lines
    v = ((y - p.wing_y) / (p.mouth_y + 0.04 - p.wing_y)).clamp_(-0.5, 1.5)
    fold = p.nose_wide * 1.02 + (p.mouth_w * 1.17 - p.nose_wide * 1.02) * v
    crease = bump(ax - fold, 0.045, y - 0.5 * (p.wing_y + p.mouth_y) - 0.03, 0.17) * (
        0.10 + 0.45 * p.smile + 0.35 * p.age
    )
    crease += bump(ax - p.eye_x + 0.02, 0.15, y - p.eye_y - 0.115, 0.030) * (0.12 + 0.3 * p.age)
    lines = (y + 0.03 * x * x) * 11
    lines = (1 - (lines - lines.floor() - 0.5).abs() / 0.16).clamp_(min=0)
    crease += lines * bump(x, 0.42, y + 0.42, 0.20) * ((p.age - 0.45).clamp(min=0) + 0.35 * p.brow_raise) * 0.6
    tint(albedo, (-0.30, -0.42, -0.42), crease)

    # stubble, beard and moustache
    cheek_line = 0.66 - 0.66 * ax
    zone = torch.maximum(
        edge(y - cheek_line + 0.03 * hairs, 0.20), edge(bump(x, 0.31, y - p.nose_base - 0.085, 0.11) - 0.25, 0.4)
    )
    zone = zone * edge(ax + 0.5 * (y - 0.4) - 0.04, 0.10).clamp_(min=0.55)
    tint(albedo, (-0.30, -0.26, -0.22), zone * p.stubble * (0.9 + 0.25 * hairs))
    bristle = (zone * p.beard * (0.93 + 0.16 * hairs)).clamp_(0, 1)
    over(albedo, p.hair * (0.62 + 0.30 * hairs[:, None]).clamp_(min=0.15), bristle)

    # brows
    u = (ax - p.brow_x) / p.brow_w
    taper = (1 - u * u * u * u).clamp_(min=0) * (1 - 0.32 * u)
    d = p.brow_thick * taper - (y - brow_line(p, u)).abs() + 0.006 * hairs
    over(
        albedo,
        p.brow.expand_as(albedo),
        edge(d - 0.002, 0.022 + step) * (0.80 + 0.16 * hairs).clamp_(0, 1) * (taper > 0),
    )

    gloss = 0.055 + 0.05 * bump(x, 0.18, y - 0.2, 0.5) + 0.03 * bump(x, 0.45, y + 0.45, 0.3)
    gloss = gloss * (1 + 0.25 * pores)
    # shadows in hollows: under brows, nose and lips, and below the hair
    under_lip = lips(p, torch.zeros_like(p.mouth_y))[3]
    ao = 1 - 0.26 * bump(ax - p.eye_x + 0.07, 0.20, y - p.eye_y + 0.075, 0.10)
    ao -= 0.30 * bump(x, p.nose_wide * 1.05, y - p.nose_base - 0.012, 0.055)
    ao -= 0.28 * bump(x, p.mouth_w * 0.75, y - under_lip - 0.035, 0.055)
    ao -= 0.30 * bump(ax - p.nose_wide * 1.0, 0.05, y - p.wing_y + 0.01, 0.07)
    under_hair = (1 + curtain / 0.16).clamp_(0, 1)
    ao *= 1 - 0.36 * p.hair_on * under_hair * under_hair
    reach = 0.30 * nose(p, x + 0.16 * p.light_x, y + 0.16 * p.light_y) + 0.7 * nose(
        p, x + 0.09 * p.light_x, y + 0.09 * p.light_y
    )
    ao *= 1 - 0.42 * edge(reach - nose(p, x, y) - 0.045, 0.07)
    ao.clamp_(min=0.42)
    nostril = bump(ax - 0.47 * p.nose_wide, 0.34 * p.nose_wide, y - p.nose_base + 0.013, 0.034)
    tint(albedo, (-0.62, -0.74, -0.74), (1.2 * nostril).clamp_(max=1))

    tall = x.shape[1]  # the window holds 0.90 of the picture's rows, from 0.06 on
    low, mid = slice(int(0.50 * tall), None), slice(int(0.25 * tall), int(0.70 * tall))
    _mouth(p, albedo[:, :, low], *(field[:, low] for field in (gloss, x, y, hairs)), step=step)
    glint = torch.zeros_like(x)
    glint[:, mid] = _eyes(p, albedo[:, :, mid], *(field[:, mid] for field in (ao, gloss, x, y, hairs)), step=step)

    n = normal(head.depth, step)
    face = lit(p, albedo, n, ao, SKIN_WRAP)
    sheen = gleam(p, n, 4).mul_(gloss).mul_(ao).mul_((2.5 * n[2]).clamp_(max=1)).add_(glint)
    return face.add_(sheen[:, None] * p.key_colour)


def _mouth(
    p: SimpleNamespace, albedo: Tensor, gloss: Tensor, x: Tensor, y: Tensor, hairs: Tensor, *, step: Tensor
) -> None:
    """Lips, and between them the mouth's inside, on albedo and gloss, in place."""
    u = x / p.mouth_w
    rim, top, bottom, under = lips(p, u)
    ends = (1 - u.abs()).mul_(p.mouth_w * 0.6)
    soft = 0.016 + step
    upper = torch.minimum(torch.minimum(y - rim, bottom - y), ends)
    lower = torch.minimum(torch.minimum(y - top, under - y), ends)
    over(albedo, p.lip * 0.80 * (1 + 0.05 * hairs[:, None]), edge(upper, soft).mul_(0.92))
    low = edge(torch.minimum(lower, y - bottom), soft).mul_(0.92)
    over(albedo, p.lip * 1.06 * (1 + 0.05 * hairs[:, None]), low)
    gloss.add_(low * 0.09)
    # inside: dark, with the upper teeth
    open_ = torch.minimum(torch.minimum(y - top, bottom - y), ends)
    cavity = edge(open_ - 0.4 * step, 0.010 + step) * edge(p.gap - 0.01, 0.02)
    dark = torch.tensor([0.075, 0.018, 0.018])[:, None, None]
    over(albedo, dark, cavity)
    comb = x / 0.056
    comb = (comb - comb.round()).abs()
    tooth = (0.70 - 0.45 * u * u) * (1 - 0.25 * edge(comb - 0.47, 0.06 + 12 * step))
    white = torch.tensor([1.0, 0.94, 0.84])[:, None, None]
    over(albedo, white * tooth[:, None], cavity * edge(top + 0.052 - y, 0.016 + step) * (0.2 + 0.8 * p.smile))
    # the line between closed lips, and the corners
    line = (
        (1 - (y - 0.5 * (top + bottom)).abs() / (0.013 + 0.7 * step)).clamp_(min=0)
        * edge(1.0 - u.abs(), 0.2)
        * (1 - edge(p.gap - 0.02, 0.03))
    )
    line += 0.55 * bump(u.abs() - 1, 0.16, y - lips(p, torch.ones_like(p.gap))[1], 0.035)
    tint(albedo, (-0.62, -0.72, -0.70), line.clamp_(max=1))


def _eyes(
    p: SimpleNamespace, albedo: Tensor, ao: Tensor, gloss: Tensor, x: Tensor, y: Tensor, hairs: Tensor, *, step: Tensor
) -> Tensor:
    """Eyes and lids on the albedo, in place; returns the catch lights, N S S."""
    ax = x.abs()
    u = (ax - p.eye_x) / p.eye_w
    upper, lower = lids(p, u)
    ends = (1 - u.abs()).mul_(p.eye_w * 0.5)
    d = torch.minimum(torch.minimum(y - upper, lower - y), ends)
    eye = edge(d - 0.5 * step, 0.008 + step)
    # the iris looks where the gaze goes, the same way in both eyes
    dx = x - p.eye_x * x.sign() - 0.042 * p.gaze_x
    dy = y - p.eye_y + 0.010 - 0.018 * p.gaze_y
    r = root(dx * dx + dy * dy) / p.iris_size
    white = (0.66 - 0.16 * u * u)[:, None] * torch.tensor([1.0, 0.96, 0.94])[:, None, None]
    ball = white.contiguous()
    rays = (0.85 + 0.55 * dy / p.iris_size + 0.12 * hairs) * (1 - 0.65 * edge(r - 0.90, 0.30))
    over(ball, p.iris * rays.clamp_(min=0.15)[:, None], edge(1 - r, 0.10 + step / p.iris_size))
    over(ball, torch.full((1, 3, 1, 1), 0.006), edge(0.43 - r, 0.08 + step / p.iris_size))
    ball *= (0.45 + 0.55 * edge(y - upper - 0.018, 0.045))[:, None]  # the upper lid's shadow
    over(albedo, ball, eye)
    ao.add_((1 - ao) * eye * 0.6)
    gloss.mul_(1 - 0.8 * eye)
    # lashes, lid creases
    near = edge(1.10 - u.abs(), 0.25)
    thick = (0.017 - 0.005 * p.build) * (1 + 0.25 * u) + 0.55 * step
    lash = (1 - (y - upper + 0.004).abs() / thick).clamp_(min=0).mul_(near).mul_(0.92)
    lash = torch.maximum(lash, (1 - (y - lower).abs() / (0.010 + 0.5 * step)).clamp_(min=0).mul_(near).mul_(0.30))
    tint(albedo, (-0.90, -0.92, -0.92), lash)
    crease = (1 - (y - upper + 0.036 + 0.02 * (1 - p.blink)).abs() / (0.014 + 0.5 * step)).clamp_(min=0).mul_(near)
    tint(albedo, (-0.28, -0.36, -0.36), crease)
    gx, gy = dx - 0.40 * p.iris_size * p.light_x, dy - (0.40 * p.light_y - 0.12) * p.iris_size
    spot = edge(0.20 * p.iris_size - root(gx * gx + gy * gy), 0.012 + step)
    return spot.mul_(eye).mul_(0.85)


def _ears(
    p: SimpleNamespace,
    picture: Tensor,
    vx: Tensor,
    vy: Tensor,
    depth: Tensor,
    cover: Tensor,
    hair: Tensor,
    *,
    step: Tensor,
) -> Tensor:
    """Both ears, in place; returns their coverage."""
    covers = []
    hidden = hair * (p.hair_low > 0.45)
    for side in (-1.0, 1.0):
        out, back = side * (p.width + 0.015), -0.06
        ex, ez = out * p.cos_yaw + back * p.sin_yaw, back * p.cos_yaw - out * p.sin_yaw
        ey = (p.eye_y + 0.17) * p.cos_pitch - ez * p.sin_pitch
        half = 0.085 * p.ear * (1 + 1.3 * side * p.sin_yaw * -1).clamp(0.35, 1.9)
        u, v = (vx - ex) / half, (vy - ey) / (0.20 * p.ear)
        u = u + 0.22 * side * v
        r2 = u * u + v * v
        near = edge(ez + 0.10 - depth, 0.08)
        alpha = edge((1 - r2) * (0.5 * half), 1.5 * step) * (1 - cover * (1 - near)) * (1 - hidden)
        inner = (1 - ((u - 0.10 * side) ** 2 + (v + 0.08) ** 2) / 0.42).clamp_(0, 1)
        albedo = p.skin * (0.90 - 0.42 * inner)[:, None]
        tint(albedo, (0.04, -0.14, -0.14), torch.ones_like(u))
        nz = root((1.15 - r2).clamp(0.1, 1))
        n = (0.5 * u + 0.3 * side, 0.5 * v, nz)
        over(picture, lit(p, albedo, n, 0.62 + 0 * u, SKIN_WRAP), alpha)
        covers.append(alpha)
    return torch.maximum(*covers)


def _glasses(
    p: SimpleNamespace, picture: Tensor, vx: Tensor, vy: Tensor, step: Tensor, cover: Tensor
) -> tuple[Tensor, Tensor]:
    """Frames in a plane before the eyes: the picture with them, and their coverage."""
    z = p.deep + 0.06
    front = (z - vx * p.sin_yaw) / p.cos_yaw
    x = vx * p.cos_yaw - front * p.sin_yaw
    y = (vy + front * p.sin_pitch) / p.cos_pitch
    ax = x.abs()
    u, v = (ax - p.eye_x - 0.005) / (p.eye_x * 0.80), (y - p.eye_y - 0.03) / (0.175 + 0.03 * p.glasses_round)
    u2, v2 = u * u, v * v
    square = root(root(u2 * u2 * u2 * u2 + v2 * v2 * v2 * v2) + 1e-9)  # the fourth power's norm, squared
    square = root(square)
    r = square + (root(u2 + v2) - square) * p.glasses_round
    rim = edge(0.016 - ((r - 1) * 0.2).abs(), 0.006 + step)
    rim = torch.maximum(
        rim, edge(0.014 - (y - p.eye_y + 0.02 - 0.25 * ax * ax).abs(), 0.006 + step) * (ax < p.eye_x * 0.25)
    )
    arm = edge(0.014 - (y - p.eye_y + 0.03).abs(), 0.006 + step) * (ax > p.eye_x * 1.8) * cover
    lens = edge(1 - r, 0.1)
    glare = edge(0.10 - (x + 0.8 * y - 0.10 * p.light_x).abs(), 0.12) * lens
    picture.mul_(1 - 0.06 * lens[:, None]).add_(glare[:, None] * 0.05)
    frame = torch.maximum(rim, arm)
    return over(picture, p.glass * (0.4 + 0.5 * p.key_colour), frame), frame
