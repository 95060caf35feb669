"""Who is good, from a table of who met whom: skills, how far they tell the whole story, and the game's solution.

The table: AUC of D detectors (rows) against G generators (columns); it already is the chance that a fake ranks above a
real, so no games are simulated and the order of play does not matter. On the scale of signal detection

    d'[d, g] = sqrt 2 Phi^-1(AUC[d, g]) = level + skill of detector d - skill of generator g

whose weighted least squares are the ratings: in units of d', 0 for the average detector and for the average generator
of this table, `level` being d' when these two meet. Ratings of different tables cannot be compared.

What no skills can express is the residual: the cyclic part in the Hodge decomposition of the graph of matches (Jiang,
Lim, Yao and Ye 2011; for games Balduzzi et al. 2018, arXiv 1806.02643). It sums to zero (weighted) for every player,
and is there exactly where d' does not add up around a ring of matches, such as (1, 1) - (1, 2) + (2, 2) - (2, 1).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import linprog
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.special import chdtrc, chndtrinc, ndtr, ndtri, stdtrit

from arena.metrics.detection import checked, placements

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Rating:
    """A skill in units of d', higher being better, with its 95 % interval. NaN for a player without a match."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Cyclic:
    """The share of the variation of d' about its level, sampling noise taken off, that no skills can express: 0 to 1.

    `low` and `high` are its 95 % interval (the skills' part taken as measured); `p` is the chance of so much residual
    from sampling noise alone. NaN where the table has no ring of matches.
    """

    share: float
    low: float
    high: float
    p: float

    @property
    def found(self) -> bool:
        """Whether one rating per player hides something: more residual than noise makes in 1 of 100 tables."""
        return self.p < 0.01


@dataclass(frozen=True)
class League:
    """The ratings of a table of D detectors and G generators. Made by `rate`."""

    detectors: list[Rating]
    generators: list[Rating]
    level: float  # d' of the average detector against the average generator; NaN unless connected
    expected: Floats  # D x G: the AUC that the ratings expect; NaN for two players whom no chain of matches joins
    residual: Floats  # D x G: d' less what the ratings expect; NaN where not played
    cyclic: Cyclic
    connected: bool  # False: groups of players that never met each other, each rated about an average of its own
    groups: tuple[list[int], list[int]]  # the group of each detector and of each generator


def rate(auc: ArrayLike, error: ArrayLike | None = None, n_real: ArrayLike = 200, n_fake: ArrayLike = 200) -> League:
    """Ratings with 95 % intervals from AUCs (D x G, NaN where not played).

    `error`: the AUCs' standard errors (D x G), or the covariance of all of them (D G x D G, row by row: `league_auc`).
    Where all detectors meet the same images only the covariance is honest: of 6 x 6 players with 200 images each, the
    standard errors alone gave intervals that held the true skill 70 to 89 times in 100. The ratings' weights come from
    its diagonal either way. None: Hanley and McNeil's variance at `n_real` and `n_fake` images (numbers, or D x G).

    An AUC is kept half a pair from 0 and 1, of as many independent pairs as would tell as much (2 n for n reals and n
    fakes), and no variance counts for less than half of Hanley and McNeil's there (DeLong's is 0 at 0 and 1).

    Where the residuals exceed sampling noise, every cell gets an interaction variance of its own that explains them,
    with Student's t, and the intervals widen by it; so they speak of skill against opponents such as these. Raises
    ValueError for other shapes, AUCs outside 0 to 1, negative or missing errors, or no match.
    """
    table = np.asarray(auc, dtype=np.float64)
    played = ~np.isnan(table)
    if table.ndim != 2 or not played.any():
        raise ValueError(f"expected AUCs of shape D x G with at least one match, got shape {table.shape}.")
    if np.any((table[played] < 0) | (table[played] > 1)):
        raise ValueError(f"expected AUCs from 0 to 1, got {np.nanmin(table):g} to {np.nanmax(table):g}.")
    cells, (d, g) = np.flatnonzero(played), table.shape
    values, covariance = d_prime(table, error, n_real, n_fake, cells)
    row, column = np.divmod(cells, g)
    graph = coo_array((np.ones(len(cells)), (row, d + column)), shape=(d + g, d + g))
    count, group = connected_components(graph, directed=False)

    design = np.zeros((len(cells), d + g))
    design[np.arange(len(cells)), row], design[np.arange(len(cells)), d + column] = 1, -1
    solve = _weighted(design, 1 / np.diag(covariance))  # players x cells
    skills, residual = solve @ values, values - design @ solve @ values
    cyclic, dof, interaction = _cyclic(values, covariance, design @ solve, group[row])

    side = group + np.r_[np.zeros(d, int), np.full(g, count)]  # detectors and generators have an average each
    same = side[:, None] == side
    centre = np.eye(d + g) - same / same.sum(1, keepdims=True)
    contrast = centre @ solve
    sampling = np.maximum(np.einsum("ij,jk,ik->i", contrast, covariance, contrast), 0)
    unexplained = interaction * np.einsum("ij,ij->i", contrast, contrast)
    reach = np.sqrt(ndtri(0.975) ** 2 * sampling + (stdtrit(dof, 0.975) ** 2 if dof else 0) * unexplained)
    rated = np.where(np.r_[played.any(1), played.any(0)], centre @ skills, np.nan)
    ratings = [Rating(float(v), float(v - r), float(v + r)) for v, r in zip(rated, reach, strict=True)]

    met = group[:d, None] == group[d:]
    predicted = np.where(met, skills[:d, None] - skills[d:], np.nan)
    left = np.full(table.size, np.nan)
    left[cells] = residual
    return League(
        detectors=ratings[:d],
        generators=ratings[d:],
        level=float(predicted.mean()),
        expected=ndtr(predicted / np.sqrt(2)),
        residual=left.reshape(d, g),
        cyclic=cyclic,
        connected=bool(met.all()),
        groups=(group[:d].tolist(), group[d:].tolist()),
    )


def league_auc(reals: Sequence[ArrayLike], fakes: Sequence[Sequence[ArrayLike | None]]) -> tuple[Floats, Floats]:
    """AUCs (D x G) and the covariance of all of them (D G x D G), from scores: DeLong et al. 1988, for the whole table.

    reals: each detector's scores of the same n reals; fakes[d][g]: detector d's scores of generator g's fakes, in the
    same order for every detector, None where not played (NaN then). At least 2 images a class. Raises ValueError for
    NaN scores and for counts that differ.
    """
    d, g = len(reals), len(fakes[0]) if fakes else 0
    auc = np.full((d, g), np.nan)
    parts: dict[tuple[int, int], tuple[Floats, Floats]] = {}
    for i in range(d):
        for j in range(g):
            scores = fakes[i][j]
            if scores is not None:
                auc[i, j], of_fakes, of_reals = placements(*checked(reals[i], scores))
                parts[i, j] = of_fakes - auc[i, j], of_reals - auc[i, j]
    covariance = np.full((d * g, d * g), np.nan)
    for (at, a), (to, b) in combinations_with_replacement(parts.items(), 2):
        fakes_a, reals_a, fakes_b, reals_b = *a, *b
        if len(reals_a) != len(reals_b) or (at[1] == to[1] and len(fakes_a) != len(fakes_b)):
            raise ValueError("expected every detector to score the same reals, and the same fakes of a generator.")
        if min(len(reals_a), len(fakes_a)) < 2:
            raise ValueError("expected at least 2 reals and 2 fakes in every match.")
        shared = reals_a @ reals_b / (len(reals_a) - 1) / len(reals_a)
        if at[1] == to[1]:
            shared += fakes_a @ fakes_b / (len(fakes_a) - 1) / len(fakes_a)
        x, y = at[0] * g + at[1], to[0] * g + to[1]
        covariance[x, y] = covariance[y, x] = shared
    return auc, covariance


def nash(payoff: ArrayLike) -> tuple[float, Floats, Floats]:
    """Value, row mixture and column mixture of a zero-sum game in which the row gets `payoff` and the column loses it.

    A linear programme (von Neumann; scipy's HiGHS); where there are several solutions, one of them. In a table of AUCs
    the rows are detectors: the value is what the best mixed detector is sure of. Raises ValueError for NaN or infinity.
    """
    game = _game(payoff)
    shift = game.min() - 1  # a positive game has a positive value, so variables may all be >= 0
    rows, columns = game.shape
    found = linprog(  # largest v with v <= (row mixture) @ game for every column
        np.r_[np.zeros(rows), -1],
        A_ub=np.c_[-(game - shift).T, np.ones(columns)],
        b_ub=np.zeros(columns),
        A_eq=np.r_[np.ones(rows), 0][None],
        b_eq=[1],
        method="highs",
    )
    if found.status != 0:
        raise ValueError(f"the game could not be solved: {found.message}")
    mixtures = [np.maximum(mixture, 0) for mixture in (found.x[:rows], -found.ineqlin.marginals)]
    row, column = (mixture / mixture.sum() for mixture in mixtures)
    return float(found.x[rows] + shift), row, column


def duality_gap(payoff: ArrayLike, row: ArrayLike | int = -1, column: ArrayLike | int = -1) -> float:
    """What the best answers to both would win over each other: max_i (payoff @ column)_i - min_j (row @ payoff)_j.

    0 exactly where neither side can do better, never below. `row` and `column` are mixtures, or the number of one
    player: by default the last of each, the gap of a training's final pair within its own history (Grnarova et al.
    2018, arXiv 1811.05512, in the form for a population).
    """
    game = _game(payoff)
    row_mix, column_mix = (
        np.eye(size)[chosen] if isinstance(chosen, int) else np.asarray(chosen, dtype=np.float64)
        for chosen, size in zip((row, column), game.shape, strict=True)
    )
    return float((game @ column_mix).max() - (row_mix @ game).min())


def d_prime(
    table: Floats, error: ArrayLike | None, n_real: ArrayLike, n_fake: ArrayLike, cells: NDArray[np.int64]
) -> tuple[Floats, Floats]:
    """d' of the cells played, and their covariance by the delta method."""
    sizes = [np.broadcast_to(np.asarray(n, dtype=np.float64), table.shape).ravel()[cells] for n in (n_real, n_fake)]
    if not all(np.all(n >= 1) for n in sizes):
        raise ValueError("n_real, n_fake: expected at least one image in every match.")
    reals, fakes = sizes
    pairs = 4 / (
        1 / reals + 1 / fakes
    )  # independent pairs that would tell as much about an AUC near 1: 2 n for n and n
    a = np.clip(table.ravel()[cells], 0.5 / pairs, 1 - 0.5 / pairs)
    # Hanley and McNeil 1982: Q1 = P(two fakes above a real), Q2 = P(a fake above two reals)
    q1, q2 = a / (2 - a), 2 * a * a / (1 + a)
    expected = (a * (1 - a) + (fakes - 1) * (q1 - a * a) + (reals - 1) * (q2 - a * a)) / (reals * fakes)
    if error is None:
        covariance = np.diag(expected)
    else:
        given = np.asarray(error, dtype=np.float64)
        if given.shape == table.shape:
            covariance = np.diag(given.ravel()[cells] ** 2)
        elif given.shape == (table.size, table.size):
            covariance = given[np.ix_(cells, cells)]
        else:
            raise ValueError(f"error: expected shape {table.shape} or {(table.size,) * 2}, got {given.shape}.")
        negative = given < 0 if given.shape == table.shape else np.diag(covariance) < 0
        if np.isnan(covariance).any() or negative.any():
            raise ValueError("error: expected a standard error >= 0 (or a variance) for every match.")
        covariance = covariance + np.diag(np.maximum(expected / 2 - np.diag(covariance), 0))
    z = ndtri(a)
    slope = np.sqrt(2) / (np.exp(-z * z / 2) / np.sqrt(2 * np.pi))
    return np.sqrt(2) * z, covariance * np.outer(slope, slope)


def _weighted(design: Floats, weight: Floats) -> NDArray[np.floating]:
    """The matrix that takes observations to the weighted least squares of least norm."""
    root = np.sqrt(weight)
    return np.linalg.pinv(design * root[:, None], rcond=1e-10) * root


def _cyclic(values: Floats, covariance: Floats, hat: Floats, group: NDArray[np.int64]) -> tuple[Cyclic, int, float]:
    """The cyclic share, the residual's degrees of freedom, and the interaction variance of a cell.

    The weighted sum of squares about each group's level is that of the skills and that of the residual. What sampling
    alone would add to each follows from the covariance, which need not be diagonal.
    """
    weight = 1 / np.diag(covariance)
    dof = round(len(values) - np.trace(hat))
    if dof == 0:
        return Cyclic(*[float("nan")] * 4), 0, 0.0
    names, place = np.unique(group, return_inverse=True)
    level = _weighted((group[:, None] == names).astype(float), weight)[place]
    rest, skill = np.eye(len(values)) - hat, hat - level
    by_rest, by_skill = (float(weight @ (part @ values) ** 2) for part in (rest, skill))
    noise_rest, noise_skill = (float(weight @ ((part @ covariance) * part).sum(1)) for part in (rest, skill))
    noise_rest = max(noise_rest, 1e-9)  # identical players have neither residual nor noise
    chi2 = by_rest / noise_rest * dof
    skills = max(0.0, by_skill - noise_skill) / noise_rest * dof
    interaction = max(0.0, by_rest - noise_rest) / float(weight @ (rest * rest).sum(1))

    def share(excess: float) -> float:
        return excess / (excess + skills) if excess > 1e-9 else 0.0

    low, high = (share(float(chndtrinc(chi2, dof, chance))) for chance in (0.975, 0.025))  # non-central chi2
    return Cyclic(share(chi2 - dof), low, high, float(chdtrc(dof, chi2))), dof, interaction


def _game(payoff: ArrayLike) -> Floats:
    game = np.asarray(payoff, dtype=np.float64)
    if game.ndim != 2 or game.size == 0 or not np.isfinite(game).all():
        raise ValueError(f"expected a payoff for every pair of players, all finite, got shape {game.shape}.")
    return game
