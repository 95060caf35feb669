"""What a container leaves in the pixels, and crude statistics of a picture: features, and what they tell, cross-fitted.

Grid. JPEG cuts a picture into 8 x 8 blocks, and with them into 16 x 16 where its chroma is halved; H.264 has blocks of
16. At a block's edge the step from pixel to pixel is larger than those beside it, and stays so when the picture is
decoded and saved as PNG. So steps are averaged at each of the 8 (16) offsets, over columns and over rows. (The step at
an edge less the mean of its neighbours': Fan and de Queiroz 2003, IEEE TIP 12(2), section II.) Only the difference of
offsets half a period apart is kept: it is blind to patterns of period 2 and 4, as up-sampling nets leave them.

Colour and spectrum are no container's: a generator's pixels may honestly differ there.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

Floats = NDArray[np.float64]
Bytes = NDArray[np.uint8]

PERIODS = (8, 16)
SOFT = 4.0  # grey levels: a step counts as step / (step + SOFT), so that the edges of things do not drown the grid
SMALLEST = 24  # px: a side below this holds too few edges of blocks
RINGS = 16  # of the spectrum, from 0 to the corner
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601
CB = (-0.1687, -0.3313, 0.5)
PRESENT = 0.7  # strength from which on there is a grid


class Grid(NamedTuple):
    """Where the edges of a set's blocks lie, and how surely.

    strength: the mean over images, in standard deviations of one image, of how far steps at the edges stand above those
    half a period away; of columns and rows the weaker. Measured (64 px faces): 0.5 without JPEG, 1.1 after JPEG 95, 2.3
    after 90, 4 after 75.
    """

    column: int
    row: int
    strength: float


def edges(images: Bytes, period: int = 8) -> Floats:
    """How much larger steps are at each offset than on average: uint8 N 3 H W to N 2 P, log ratios, columns then rows.

    Offset k is the step into column (row) k, k + P, k + 2 P ... Of luma for a period of 8, of blue chroma for 16 (which
    is where halved chroma shows). Zeros for images below 24 px, or with no step at all.
    """
    n, _, height, width = images.shape
    if min(height, width) < SMALLEST:
        return np.zeros((n, 2, period))
    weights = np.array(LUMA if period == 8 else CB, dtype=np.float32)
    plane = np.tensordot(weights, images.astype(np.float32), axes=(0, 1))
    found = []
    for turned in (plane, plane.swapaxes(1, 2)):  # N H W: steps along the last axis
        first = np.diff(turned, axis=2)
        step = np.abs(first[..., 1:-1] - (first[..., :-2] + first[..., 2:]) / 2)  # into columns 2, 3, ..., W - 2
        column = (step / (step + SOFT)).mean(1, dtype=np.float64)
        at = (np.arange(column.shape[1]) + 2) % period
        found.append(np.stack([column[:, at == k].mean(1) for k in range(period)], axis=1))
    profile = np.stack(found, axis=1)
    return np.log(profile + 1e-3) - np.log(profile.mean(2, keepdims=True) + 1e-3)


def contrast(profile: Floats) -> Floats:
    """`edges` against those half a period away: N 2 P. Blind to whatever has half the period."""
    return profile - np.roll(profile, profile.shape[2] // 2, axis=2)


def grid(profile: Floats) -> Grid:
    """The grid that a set of images shares, from what `edges` found of them."""
    against = contrast(profile)
    mean, deviation = against.mean(0), against.std(0, ddof=min(1, len(against) - 1))
    column, row = (int(np.argmax(way)) for way in mean)
    strength = (mean / np.maximum(deviation, 0.02)).max(1).min()
    return Grid(column, row, float(strength))


def grid_odds(profile: Floats, is_fake: NDArray[np.bool_], fold: NDArray[np.int64]) -> Floats:
    """Log odds of being fake by the steps at the places where reals, and where fakes, have a grid: N, cross-fitted.

    Zeros where what is learnt from has none: what is left then is where things stand in the pictures.
    """
    against, found = contrast(profile), np.zeros(len(profile))
    for held in range(int(fold.max()) + 1):
        seen = fold != held
        grids = [grid(profile[seen & (is_fake == label)]) for label in (False, True)]
        places = {(way, place) for g in grids if g.strength >= PRESENT for way, place in enumerate((g.column, g.row))}
        if places:
            rows = np.column_stack([against[:, way, place] for way, place in sorted(places)])
            found[~seen] = _fitted(rows, is_fake, seen)[~seen]
    return found


def colour(images: Bytes) -> Floats:
    """Mean and standard deviation of each channel, and mean saturation (HSV's): N 3 H W to N x 7, of 255."""
    pixels = images.reshape(len(images), 3, -1).astype(np.float32) / 255
    high, low = pixels.max(1), pixels.min(1)
    saturation = ((high - low) / np.maximum(high, 1 / 255)).mean(1)
    return np.column_stack([pixels.mean(2), pixels.std(2), saturation]).astype(np.float64)


def spectrum(images: Bytes) -> Floats:
    """Mean log power of luma in 16 rings of frequency, the brightness left out: N 3 H W to N x 16."""
    plane = np.tensordot(np.array(LUMA, dtype=np.float32), images.astype(np.float32) / 255, axes=(0, 1))
    power = np.abs(np.fft.rfft2(plane, norm="ortho")) ** 2
    return np.log(power + 1e-6).reshape(len(images), -1) @ _rings(*images.shape[-2:])


@lru_cache(maxsize=64)
def _rings(height: int, width: int) -> Floats:
    radius = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)).ravel()
    ring = np.minimum((radius / 0.5**0.5 * RINGS).astype(int), RINGS - 1)
    member = (ring[:, None] == np.arange(RINGS)) & (radius > 0)[:, None]
    return member / np.maximum(member.sum(0), 1)


def logistic(features: Floats, is_fake: NDArray[np.bool_], fold: NDArray[np.int64], ridge: float = 10.0) -> Floats:
    """Log odds of being fake by a ridge logistic regression, each fold's from the others': N.

    features: N x D; fold: 0, 1, ... of each row. Features are standardised on what is learnt from; the classes weigh
    alike, whatever their sizes.
    """
    found = np.zeros(len(features))
    for held in range(int(fold.max()) + 1):
        found[fold == held] = _fitted(features, is_fake, fold != held, ridge)[fold == held]
    return found


def _fitted(features: Floats, is_fake: NDArray[np.bool_], seen: NDArray[np.bool_], ridge: float = 10.0) -> Floats:
    """Log odds of all rows by what the seen ones teach."""
    mean, deviation = features[seen].mean(0), features[seen].std(0)
    varies = deviation > 1e-9
    rows = (features[:, varies] - mean[varies]) / deviation[varies]
    rows = np.column_stack([rows, np.ones(len(rows))])
    return rows @ _newton(rows[seen], is_fake[seen], ridge)


def _newton(rows: Floats, labels: NDArray[np.bool_], ridge: float, steps: int = 8) -> Floats:
    """Weights that minimise weighted cross-entropy + ridge / 2 |w|^2, the bias (last) nearly free."""
    weight, penalty = np.zeros(rows.shape[1]), np.full(rows.shape[1], ridge)
    penalty[-1] = 1e-6
    share = labels.mean()
    load = np.where(labels, 0.5 / max(share, 1e-9), 0.5 / max(1 - share, 1e-9))
    for _ in range(steps):
        chance = expit(np.clip(rows @ weight, -30, 30))
        gradient = rows.T @ (load * (chance - labels)) + penalty * weight
        curve = (rows.T * (load * np.maximum(chance * (1 - chance), 1e-4))) @ rows + np.diag(penalty)
        step = np.linalg.solve(curve, gradient)
        weight -= step
        if np.abs(step).max() < 1e-4:
            break
    return weight
