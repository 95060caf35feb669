"""The interval of a share: how many of n were hit (standard library only)."""

from statistics import NormalDist


def wilson(hits: float, n: float, level: float = 0.95) -> tuple[float, float, float]:
    """(share, low, high) of `hits` in n > 0 independent trials: the score interval (Wilson 1927)."""
    z2 = NormalDist().inv_cdf((1 + level) / 2) ** 2
    share = hits / n
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    reach = (z2 * (share * (1 - share) / n + z2 / (4 * n * n))) ** 0.5 / (1 + z2 / n)
    return share, min(share, max(0.0, middle - reach)), max(share, min(1.0, middle + reach))
