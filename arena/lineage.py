"""What a run's rounds say when all of them meet: the figures of the game across rounds, from logits alone (numpy).

A[i, j] is the AUC of the detector after round i on the fakes of the generator of round j. Every figure has a 95 %
interval. Of sums and differences of AUCs it follows from DeLong's covariance of the whole table. The smallest of noisy
figures is too small on average, so the intervals of smallest and largest ones are those of all candidates at once
(Bonferroni's), never too narrow. The equilibrium has no closed form: its value and mixtures are solved anew in `DRAWS`
tables drawn about the measured one on the scale of d', with that covariance (a parametric bootstrap: one over images
has no spread at all where every fake is told).

Reals and fakes are taken as independent, as everywhere in the lab, which errs on the wide side for a translator.
`paired`: fake k of every round was made from the same source, so that the rounds' errors hang together.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr, ndtri, stdtrit

from arena.metrics.detection import checked, clopper_pearson, delong, placements
from arena.ratings import Rating, duality_gap, nash, rate
from arena.ratings import d_prime as scaled
from arena.seeds import address

Floats = NDArray[np.float64]
Row = dict[str, Any]
DRAWS = 300
Z = float(ndtri(0.975))


@dataclass(frozen=True)
class Table:
    """AUCs of D detectors on G generators' fakes, D x G, with DeLong's intervals and the covariance, D G x D G."""

    auc: Floats
    low: Floats
    high: Floats
    covariance: Floats
    n_real: int
    n_fake: int

    @cached_property
    def d_prime(self) -> tuple[Floats, Floats]:
        """d' of all cells and their covariance."""
        return scaled(self.auc, self.covariance, self.n_real, self.n_fake, np.arange(self.auc.size))

    @cached_property
    def steady(self) -> Floats:
        """The covariance in which no AUC near 1 is taken for certain: DeLong's variance, 0 at 1, counts for no less
        than half of Hanley and McNeil's half a pair away from it, as in arena/ratings.py."""
        values, covariance = self.d_prime
        slope = np.exp(-(values**2) / 4) / np.sqrt(4 * np.pi)  # of AUC over d'
        return covariance * np.outer(slope, slope)

    @property
    def error(self) -> Floats:
        return np.sqrt(np.diag(self.covariance)).reshape(self.auc.shape)

    def cell(self, i: int, j: int) -> Row:
        return estimate(self.auc[i, j], self.low[i, j], self.high[i, j])

    def mean(self, cells: Sequence[tuple[int, int]]) -> Row:
        """The mean AUC of some cells, its interval symmetric in its logit."""
        value, variance = self._sum({cell: 1 / len(cells) for cell in cells}, self.covariance)
        value = min(1.0, max(0.0, value))
        return estimate(value, *self._interval(value, variance))

    def smallest(self, cells: Sequence[tuple[int, int]]) -> Row:
        """The smallest AUC of some cells: below no cell's lower end, above no cell's upper end among so many."""
        value = min(float(self.auc[cell]) for cell in cells)
        error = self.error
        high = min(self._interval(self.auc[cell], error[cell] ** 2, len(cells))[1] for cell in cells)
        return estimate(value, min(self.low[cell] for cell in cells), high)

    def largest(self, cells: Sequence[tuple[int, int]]) -> Row:
        """The largest AUC of some cells, likewise."""
        value = max(float(self.auc[cell]) for cell in cells)
        error = self.error
        low = max(self._interval(self.auc[cell], error[cell] ** 2, len(cells))[0] for cell in cells)
        return estimate(value, low, max(self.high[cell] for cell in cells))

    def gap(self) -> Row:
        """The empirical duality gap of the last pair: the largest of all A[i, last] - A[last, j], never below 0."""
        rows, columns = self.auc.shape
        pairs = [(i, j) for i in range(rows) for j in range(columns)]
        found = [self.difference({(i, -1): 1.0, (-1, j): -1.0}, rows * columns) for i, j in pairs]
        sure = max(one["value"] - one["reach"] for one in found)
        return estimate(duality_gap(self.auc), max(0.0, sure), max(0.0, *(one["high"] for one in found)))

    def difference(self, weights: dict[tuple[int, int], float], tests: int = 1) -> Row:
        """A sum of AUCs whose weights sum to 0, and whether it is `sure`: farther from 0 than its `reach`, that of a
        95 % interval for as many questions at once."""
        value, variance = self._sum(weights, self.steady)
        error = float(np.sqrt(variance))
        found = estimate(value, max(-1.0, value - Z * error), min(1.0, value + Z * error))
        reach = error * float(ndtri(1 - 0.025 / tests))
        return found | {"reach": reach, "sure": bool(abs(value) > reach)}

    def _interval(self, value: float, variance: float, tests: int = 1) -> tuple[float, float]:
        """As `detection.delong` has it, at a level that holds for as many figures at once."""
        if not (0 < value < 1 and variance > 0):
            return clopper_pearson(value, min(self.n_real, self.n_fake), 1 - 0.05 / tests)
        reach = ndtri(1 - 0.025 / tests) * np.sqrt(variance) / (value * (1 - value))
        low, high = 1 / (1 + np.exp(-(np.log(value / (1 - value)) + np.array([-reach, reach]))))
        return float(low), float(high)

    def _sum(self, weights: dict[tuple[int, int], float], covariance: Floats) -> tuple[float, float]:
        """A weighted sum of AUCs and its variance; a cell may stand there twice, as (-1, -1) and as (t, t)."""
        cells = np.array([(i % self.auc.shape[0]) * self.auc.shape[1] + j % self.auc.shape[1] for i, j in weights])
        weight = np.array(list(weights.values()))
        variance = float(weight @ covariance[np.ix_(cells, cells)] @ weight)
        return float(weight @ self.auc.ravel()[cells]), max(0.0, variance)

    def draws(self) -> tuple[Floats, Floats]:
        """The table as the draws are centred (no AUC at 0 or 1), and `DRAWS` tables about it."""
        values, covariance = self.d_prime
        spread, ways = np.linalg.eigh(covariance)
        noise = np.random.default_rng(address("game")).normal(size=(DRAWS, len(values)))
        drawn = values + noise @ (ways * np.sqrt(np.maximum(spread, 0))).T
        centre, tables = (ndtr(d / np.sqrt(2)).reshape(-1, *self.auc.shape) for d in (values[None], drawn))
        return centre[0], tables


def estimate(value: float, low: float, high: float) -> Row:
    return {"value": float(value), "low": float(low), "high": float(high)}


def table(reals: Sequence[ArrayLike], fakes: Sequence[Sequence[ArrayLike]], paired: bool = False) -> Table:
    """The matrix of detectors (rows) and generators from logits.

    reals: each detector's logits of the same reals; fakes[i][j]: those of generator j's fakes, as many of each. Without
    `paired` the covariance is that of `ratings.league_auc`; with it different generators' fakes count as one sample.
    """
    found = [
        [placements(*checked(real, some)) for some in row] for real, row in zip(reals, fakes, strict=True)
    ]  # AUC, of fakes, of reals
    auc = np.array([[cell[0] for cell in row] for row in found])
    of_fakes, of_reals = (np.array([cell[part] - cell[0] for row in found for cell in row]) for part in (1, 2))
    m, n = of_fakes.shape[1], of_reals.shape[1]
    column = np.arange(auc.size) % auc.shape[1]
    shared = of_fakes @ of_fakes.T / (m - 1) / m
    shared[(column[:, None] != column) & (not paired)] = 0
    ends = np.array([[delong(r, some)[1:] for some in row] for r, row in zip(reals, fakes, strict=True)])
    return Table(auc, ends[..., 0], ends[..., 1], shared + of_reals @ of_reals.T / (n - 1) / n, n, m)


def figures(rounds: Sequence[int], played: Table) -> Row:
    """All figures of a lineage: `played` is the table of its rounds' detectors and generators, both in order."""
    t = len(rounds)
    row = [[(i, j) for j in range(t)] for i in range(t)]
    column = [[(i, j) for i in range(t)] for j in range(t)]
    return {
        "moves": [_move(rounds, played, k) for k in range(1, t)],
        "retention": [_kept(rounds, played, i) for i in range(1, t)],
        "foresight": [{"round": rounds[i], **played.mean(row[i][i + 1 :])} for i in range(t - 1)],
        "worst": {
            "detectors": [
                {"round": rounds[i], **played.smallest(row[i]), "against": rounds[int(played.auc[i].argmin())]}
                for i in range(t)
            ],
            "generators": [
                {"round": rounds[j], **played.largest(column[j]), "by": rounds[int(played.auc[:, j].argmax())]}
                for j in range(t)
            ],
        },
        "gap": played.gap() | {
            "detector": rounds[int(played.auc[:, -1].argmax())], "generator": rounds[int(played.auc[-1].argmin())],
        },
        "nash": _nash(rounds, played),
        **_skill(rounds, played),
    }  # fmt: skip


def _move(rounds: Sequence[int], played: Table, k: int) -> Row:
    """From round to round: the new generator against the old detector, then the new detector against both."""
    own, new, old = (k - 1, k - 1), (k - 1, k), (k, k - 1)
    tests = 2 * (len(rounds) - 1)
    return {
        "from": rounds[k - 1], "to": rounds[k], "before": played.cell(*new), "after": played.cell(k, k),
        "back": played.cell(*old),
        "generator": played.difference({own: 1.0, new: -1.0}, tests),  # what it took from the detector
        "detector": played.difference({(k, k): 1.0, new: -1.0}, tests),  # what training gave back
    }  # fmt: skip


def _kept(rounds: Sequence[int], played: Table, i: int) -> Row:
    """The mean over past rounds, beside what each of them had on its own fakes; and the round most forgotten."""
    past, t = range(i), len(rounds)
    tests = t * (t - 1) // 2
    lost = [played.difference({(j, j): 1.0, (i, j): -1.0}, tests) for j in past]
    most = max(past, key=lambda j: lost[j]["value"])
    weights = {(j, j): 1 / i for j in past} | {(i, j): -1 / i for j in past}
    return {
        "round": rounds[i], **played.mean([(i, j) for j in past]),
        "lost": played.difference(weights, t - 1),
        "worst": {"round": rounds[most], "there": played.cell(i, most), "before": played.cell(most, most),
                  "lost": lost[most]},
    }  # fmt: skip


def _nash(rounds: Sequence[int], played: Table) -> Row:
    """Value and mixtures, their intervals the percentiles of the draws, the value's corrected for bias (Efron 1987)."""
    centre, drawn = played.draws()
    value, row, column = solution(played.auc)
    solved = [solution(one) for one in drawn]
    about, values = solution(centre)[0], np.array([one[0] for one in solved])
    below = (np.sum(values < about) + np.sum(values == about) / 2 + 0.5) / (DRAWS + 1)
    low, high = np.quantile(values, ndtr(2 * ndtri(below) + np.array([-Z, Z])))
    found: Row = estimate(value, min(low, value), max(high, value))
    for side, place, mixture in (("detectors", 1, row), ("generators", 2, column)):
        lows, highs = np.quantile([one[place] for one in solved], [0.025, 0.975], axis=0)
        found[side] = [
            {"round": r, **estimate(w, min(a, w), max(b, w))}
            for r, w, a, b in zip(rounds, mixture.round(12), lows, highs, strict=True)
        ]
    return found


def solution(payoff: Floats) -> tuple[float, Floats, Floats]:
    """`ratings.nash`, at once where the game has a saddle point (smallest of its row, largest of its column)."""
    low, high = payoff.min(1), payoff.max(0)
    if low.max() < high.min():
        return nash(payoff)
    return float(low.max()), *(np.eye(len(ends))[place] for ends, place in ((low, low.argmax()), (high, high.argmin())))


def _skill(rounds: Sequence[int], played: Table) -> Row:
    league = rate(played.auc, played.covariance, played.n_real, played.n_fake)

    def listed(ratings: Sequence[Rating]) -> list[Row]:
        return [{"round": r, **estimate(x.value, x.low, x.high)} for r, x in zip(rounds, ratings, strict=True)]

    cyclic = league.cyclic
    known = np.isfinite(cyclic.p)
    return {
        "skill": {
            "level": league.level, "detectors": listed(league.detectors), "generators": listed(league.generators),
        },
        "cyclic": {**estimate(cyclic.share, cyclic.low, cyclic.high), "p": cyclic.p, "found": cyclic.found}
        if known else None,
    }  # fmt: skip


def honesty(rounds: Sequence[int], played: Table, fresh: int) -> Row:
    """Did fresh detectors (the last `fresh` rows) see in the last column what no detector of the lineage sees there?

    The difference from the lineage's best is paired over images; its interval also has the spread over the seeds
    (Student's t), which a single seed cannot show. Choosing the lineage's best favours the lineage.
    """
    last, own = played.auc.shape[1] - 1, len(rounds)
    best = int(played.auc[:own, last].argmax())
    rows = range(own, own + fresh)
    found = played.difference({**{(i, last): 1 / fresh for i in rows}, (best, last): -1.0})
    reach = found["reach"]
    if fresh > 1:
        spread = float(np.std([played.auc[i, last] for i in rows], ddof=1))
        reach = float(np.hypot(reach, stdtrit(fresh - 1, 0.975) * spread / np.sqrt(fresh)))
    value = found["value"]
    low, high = max(-1.0, value - reach), min(1.0, value + reach)
    return {
        "auc": played.mean([(i, last) for i in rows]),
        "seeds": [played.cell(i, last) for i in rows],
        "lineage": {"round": rounds[best], **played.cell(best, last)},
        "difference": estimate(value, low, high),
        "verdict": "more" if low > 0 else "less" if high < 0 else "same",
    }
