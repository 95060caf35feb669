"""The directions in which a generator forges."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Way:
    """One direction of forging: a domain's images are the sources, another's (or the same one's) the reals."""

    name: str
    source: str
    target: str
    reverse: bool

    def of(self, metric: str) -> str:
        return f"{metric}:{self.name}" if self.name else metric


def ways(needs: str, domains: tuple[str, ...]) -> list[Way]:
    """Both directions of a translator between two domains, the one of a translator of pairs; from noise to the one
    domain of a maker of stills.

    None where the fakes are given.
    """
    if needs == "labels":
        return []
    if needs == "stills":
        (domain,) = domains
        return [Way("", domain, domain, False)]
    a, b = domains
    both = [Way("a2b", a, b, False), Way("b2a", b, a, True)]
    return both if needs == "domains" else both[:1]
