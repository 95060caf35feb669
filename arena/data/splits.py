"""Which pictures come from one source, and which split each source goes to.

A detector that meets in the judge split the neighbouring frame of a picture it trained on is tested on its memory. So
pictures are gathered into groups (one clip, one rotating fruit, one person's folder), identical files into one group,
and a group goes to a split whole.

How the groups are found when nobody says (`auto`). A rule over names is only a guess: `c01` in `c01_1003.jpg` may be a
clip or a class. The pictures themselves decide: in frames of one source nearly every picture's nearest neighbour is of
its own group; in a class it is not. Measured with 8 x 8 thumbnails, corrected for chance: 0.96 for rotating fruit, 0.84
for three frames each of 50 clips of one speaker, and 0.21 (photographs) to 0.47 (diffusion fakes) for the ten classes
of CIFAKE. The bar stands at 0.65; many small groups, where neighbours are harder to hit, also pass with a third of the
pictures if that is 20 times chance (64 times for the clips, 3 to 5 for the classes).
"""

import hashlib
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Sequence

import numpy as np

from arena.errors import InputError

SPLITS = ("train", "val", "judge")
LIKENESS = 0.65
MANY_FOLDERS = 10
_COUNTER = re.compile(r"[\W_]*(?:frame|image|img|f|t)?[\W_]*[0-9]+[\W_]*$", re.IGNORECASE)


def natural(name: str) -> tuple:
    """A sort key by which frame 9 comes before frame 10; names that differ never tie."""
    pieces = re.split(r"([0-9]+)", name)
    return tuple((int(p), "") if i % 2 else (-1, p.lower()) for i, p in enumerate(pieces)), name


def draw(seed: int, group: str) -> str:
    """A hash of (seed, group), the same on every machine and however Unicode composed the name."""
    text = unicodedata.normalize("NFC", f"{seed}/{group}")
    return hashlib.sha256(text.encode()).hexdigest()


def find_groups(
    names: Sequence[str], inners: Sequence[str], domains: Sequence[str], thumbs: np.ndarray, rule: str = "auto"
) -> tuple[list[str], str]:
    """Name the group of every picture, and say in a sentence how that was found.

    names: posix paths below the root, in natural order; inners: the same below the domain's folder; domains: one each;
    thumbs: N x K uint8 thumbnails (compared under `auto` only, within a domain). Groups of one name in two domains are
    one group. rule: `auto`, `none`, `parent` (the folder) or `prefix:REGEX` (group 1 or the whole match at the start of
    the file's name).
    Raises InputError for any other rule.
    """
    if rule == "none":
        return list(names), "none: every picture on its own"
    if rule == "parent":
        groups = [_parent(inner) for inner in inners]
        return groups, f"parent: the folder a picture lies in ({len(set(groups))} groups)"
    if rule.startswith("prefix:"):
        return _by_regex(names, rule)
    if rule != "auto":
        raise InputError(f"unknown group rule {rule!r}: use auto, none, parent or prefix:REGEX (a regular expression).")
    return _auto(names, inners, domains, thumbs)


def unite(groups: Sequence[str], hashes: Sequence[str]) -> list[str]:
    """Join the groups that share a file (equal hash); a joined group bears the first of its names in natural order."""
    roots: dict[str, str] = {group: group for group in groups}

    def root(group: str) -> str:
        while roots[group] != group:
            roots[group] = group = roots[roots[group]]
        return group

    holder: dict[str, str] = {}
    for group, digest in zip(groups, hashes, strict=True):
        first, second = sorted((root(group), root(holder.setdefault(digest, group))), key=natural)
        roots[second] = first
    return [root(group) for group in groups]


def assign(
    groups: Sequence[str], domains: Sequence[str], hashes: Sequence[str], wishes: dict[str, float], seed: int = 0
) -> tuple[list[str], list[str]]:
    """Give every picture a split, groups whole, each domain as near to the wished fractions as its groups allow.

    The pictures come in natural order; wishes: split -> fraction, summing to 1 (0 = not wanted). Returns the splits and
    notes for the reader. Where a domain has too few groups for its splits, its largest is cut in order into runs, so
    that only neighbours at a cut resemble each other; of two groups one is kept whole for the judge.
    Raises InputError where a domain cannot fill every wanted split.
    """
    wanted = [split for split in SPLITS if wishes.get(split, 0) > 0]
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for group, domain in zip(groups, domains, strict=True):
        counts[group][domain] += 1
    order = sorted(counts, key=lambda group: (-counts[group].total(), draw(seed, group)))

    cuts: dict[str, list[str]] = {}
    fixed: dict[str, str] = {}
    for domain in sorted(set(domains)):
        mine = [group for group in order if domain in counts[group]]
        if len(mine) == 2 < len(wanted) and not (cuts.keys() | fixed.keys()) & set(mine):
            cuts[mine[0]], fixed[mine[1]] = wanted[:-1], wanted[-1]

    while True:
        runs = _cut(groups, domains, hashes, cuts, wishes)
        placed = _place(order, counts, wishes, fixed, Counter((domains[i], split) for i, split in runs.items()), cuts)
        splits = [runs[i] if i in runs else placed[group] for i, group in enumerate(groups)]
        have = Counter(zip(domains, splits, strict=True))
        short = next((domain for domain in sorted(set(domains)) if not all(have[domain, s] for s in wanted)), None)
        if short is None:
            break
        largest = next((group for group in order if short in counts[group] and cuts.get(group) != wanted), None)
        if largest is None:
            raise InputError(
                f"domain {short} has {domains.count(short)} usable file(s), too few for {' + '.join(wanted)}: each of"
                f" these needs a file of each domain that is no copy of another's, so {len(wanted)} different ones"
                f" are the least, and some hundreds make sense. Add some, or check the path."
            )
        fixed.pop(largest, None)
        cuts[largest] = wanted

    notes = [
        f"too few sources in domain {' and '.join(sorted(counts[group]))}: {group!r} is cut in order into"
        f" {' and '.join(into)}, where neighbours at a cut look alike"
        for group, into in cuts.items()
    ]
    for domain, total in sorted(Counter(domains).items()):
        for split in wanted:
            n, wish = have[domain, split], wishes[split] * total
            if n < wish / 2 and wish >= 4:
                notes.append(
                    f"{split} of domain {domain} holds {n} images for {wish:.0f} wished: its sources are large"
                )
    return splits, notes


def likeness(nearest: Sequence[tuple[np.ndarray, np.ndarray]], labels: Sequence[np.ndarray]) -> tuple[float, float]:
    """Share of pictures whose nearest neighbour bears their own label, and that share if neighbours were drawn by lot.

    nearest: for each domain (queries, their nearest neighbours), indices; labels: for each domain N integers. Domains
    with a single label say nothing and are left out; (0, 0) where none is left.
    """
    same, luck = [np.zeros(0)], [np.zeros(0)]
    for (query, neighbour), label in zip(nearest, labels, strict=True):
        sizes = np.bincount(label)
        if len(query) and (sizes > 0).sum() > 1:
            same.append(label[query] == label[neighbour])
            luck.append((sizes[label[query]] - 1) / (len(label) - 1))
    shares = np.concatenate(same), np.concatenate(luck)
    return (float(shares[0].mean()), float(shares[1].mean())) if len(shares[0]) else (0.0, 0.0)


def nearest_neighbours(thumbs: np.ndarray, queries: int = 512) -> tuple[np.ndarray, np.ndarray]:
    """For up to `queries` evenly spaced pictures their nearest other one: thumbs N x K -> (Q indices, Q indices)."""
    n = len(thumbs)
    if n < 4:
        return np.zeros(0, int), np.zeros(0, int)
    points = thumbs.astype(np.float32) - thumbs.mean(axis=0, dtype=np.float64).astype(np.float32)
    squares = np.einsum("nk,nk->n", points, points)
    query = np.unique(np.linspace(0, n - 1, min(n, queries)).astype(int))
    found = []
    for some in np.array_split(query, -(-len(query) // 64)):  # 64 rows at a time: N may be 100,000
        far = squares - 2 * points[some] @ points.T
        far[np.arange(len(some)), some] = np.inf
        found.append(far.argmin(axis=1))
    return query, np.concatenate(found)


def _auto(
    names: Sequence[str], inners: Sequence[str], domains: Sequence[str], thumbs: np.ndarray
) -> tuple[list[str], str]:
    """Try folder, then names, then plain order, from the coarsest on; the first that gathers look-alikes holds."""
    places = [np.flatnonzero(np.asarray(domains) == domain) for domain in sorted(set(domains))]
    nearest = [nearest_neighbours(thumbs[place]) for place in places]
    best = (0.0, "")

    def alike(groups: Sequence[str]) -> str:
        """Why these groups are believed, or nothing."""
        nonlocal best
        numbers = np.unique(np.asarray(groups, dtype=object), return_inverse=True)[1]
        share, luck = likeness(nearest, [numbers[place] for place in places])
        kappa = (share - luck) / (1 - luck) if luck < 1 else 0.0
        text = f"{share:.0%} of pictures have their nearest look-alike in their own group, by chance {luck:.0%}"
        best = max(best, (kappa, text))
        passes = kappa >= LIKENESS or share >= max(1 / 3, 20 * luck)
        return text if passes and 2 * len(set(groups)) <= len(groups) else ""

    folders = [_parent(inner) for inner in inners]
    fewest = min(len({folders[i] for i in place}) for place in places)
    if fewest >= MANY_FOLDERS:
        return folders, f"auto: the folder a picture lies in ({len(set(folders))} groups)"
    if fewest >= 3 and (why := alike(folders)):
        return folders, f"auto: the folder a picture lies in ({len(set(folders))} groups; {why})"

    for words, rule in _name_rules():
        groups = [
            f"{folder}/{rule(_stem(inner))}".removeprefix("/") for folder, inner in zip(folders, inners, strict=True)
        ]
        if why := alike(groups):
            return groups, f"auto: {words} ({len(set(groups))} groups; {why})"

    near = [abs(query - neighbour) <= 2 for query, neighbour in nearest if len(query) > 20]
    if near and np.concatenate(near).mean() >= LIKENESS:
        share = np.concatenate(near).mean()
        return list(domains), (
            f"auto: one sequence a domain ({share:.0%} of pictures have their nearest look-alike within two places)"
        )
    return list(names), (
        "auto: every picture on its own, since no rule over folders or names gathers look-alikes"
        + (f" (the best: {best[1]})" if best[1] else "")
    )


def _name_rules() -> list[tuple[str, Callable[[str], str]]]:
    def before(mark: str) -> Callable[[str], str]:
        return lambda stem: stem.split(mark)[0]

    def without_counters(times: int) -> Callable[[str], str]:
        def rule(stem: str) -> str:
            for _ in range(times):
                stem = _COUNTER.sub("", stem)
            return stem

        return rule

    rules = [(f"the name up to its first {mark!r}", before(mark)) for mark in "_- ."]
    return rules + [(f"the name without its last {n} number(s)", without_counters(n)) for n in (3, 2, 1)]


def _by_regex(names: Sequence[str], rule: str) -> tuple[list[str], str]:
    try:
        pattern = re.compile(rule.removeprefix("prefix:"))
    except re.error as error:
        raise InputError(f"group rule {rule!r} holds no regular expression: {error}. Try 'prefix:[^_]+'.") from error
    matches = [pattern.match(name.rpartition("/")[2]) for name in names]
    missed = matches.count(None)
    if missed == len(names):
        name = names[0].rpartition("/")[2]
        raise InputError(f"group rule {rule!r} matches no file name, for example not {name!r}. Try 'prefix:[^_]+'.")
    groups = [
        name if match is None else (match[0] if pattern.groups == 0 or match[1] is None else match[1])
        for name, match in zip(names, matches, strict=True)
    ]
    alone = f"; {missed} names do not match and stand alone" if missed else ""
    return groups, f"{rule} ({len(set(groups))} groups{alone})"


def _parent(inner: str) -> str:
    return inner.rpartition("/")[0]


def _stem(inner: str) -> str:
    return inner.rpartition("/")[2].rpartition(".")[0]


def _place(
    order: Sequence[str],
    counts: dict[str, Counter[str]],
    wishes: dict[str, float],
    fixed: dict[str, str],
    have: Counter[tuple[str, str]],
    cuts: Collection[str],
) -> dict[str, str]:
    """Deal whole groups, the largest first, each to the split that misses most; then fill what stayed empty.

    order: groups by size; counts: group -> domain -> pictures; have: (domain, split) -> pictures there already.
    """
    wanted = [split for split in SPLITS if wishes.get(split, 0) > 0]
    totals = Counter[str]()
    for count in counts.values():
        totals.update(count)
    placed = dict(fixed)

    def put(group: str, split: str, times: int = 1) -> None:
        for domain, n in counts[group].items():
            have[domain, split] += times * n

    def missing(group: str, split: str) -> float:
        return sum(n * (wishes[split] * totals[domain] - have[domain, split]) for domain, n in counts[group].items())

    for group, split in fixed.items():
        put(group, split)
    free = [group for group in order if group not in fixed and group not in cuts]
    for group in free:
        placed[group] = max(wanted, key=lambda split: missing(group, split))
        put(group, placed[group])

    for domain in sorted(totals):
        for split in wanted:
            for group in reversed(free) if not have[domain, split] else ():
                old = placed[group]  # the smallest group that leaves no other split empty
                if domain in counts[group] and all(have[d, old] > n for d, n in counts[group].items()):
                    put(group, old, -1)
                    put(group, split)
                    placed[group] = split
                    break
    return placed


def _cut(
    groups: Sequence[str],
    domains: Sequence[str],
    hashes: Sequence[str],
    cuts: dict[str, list[str]],
    wishes: dict[str, float],
) -> dict[int, str]:
    """Cut groups into runs of neighbouring names, for each domain at the same shares: index -> split.

    A copy goes where its first appearance goes; every run gets a different picture as long as there are any.
    """
    runs: dict[int, str] = {}
    home: dict[str, str] = {}
    for group, splits in cuts.items():
        members = [i for i, name in enumerate(groups) if name == group]
        for domain in sorted({domains[i] for i in members}):
            mine = [i for i in members if domains[i] == domain]
            fresh = list(dict.fromkeys(hashes[i] for i in mine if hashes[i] not in home))
            ends = _ends(len(fresh), [wishes[split] for split in splits])
            for k, digest in enumerate(fresh):
                home[digest] = splits[next(s for s, end in enumerate(ends) if k < end)]
            runs |= {i: home[hashes[i]] for i in mine}
    return runs


def _ends(n: int, shares: Sequence[float]) -> list[int]:
    """Where runs over n things end: in proportion to the shares, none empty as long as n allows."""
    marks = [round(n * sum(shares[: k + 1]) / sum(shares)) for k in range(len(shares))]
    last = len(shares) - 1
    for k in range(last):
        marks[k] = min(max(marks[k], marks[k - 1] + 1 if k else 1), max(n - (last - k), 0))
    marks[last] = n
    return marks
