"""What is measured of a team's fakes beside the strangers' detectors: are they any good, and are they fakes?"""

from collections.abc import Sequence

import torch
from torch import Tensor

from arena.data.codec import store_as
from arena.submission.standings import Row

OUTSIDE = ("format", "mode", "depth", "interlace", "codec", "pix_fmt", "profile", "bytes", "bit_rate")  # of a file


def measure(
    fakes: Tensor, reals: Tensor, train: Tensor, public: Tensor, headers: list[Row], real_headers: list[Row],
    codec: str,
) -> Row:  # fmt: skip
    """The figures of one team's fakes against the secret reals, the reals to train on, and all public images.

    Images are uint8 N 3 s s or N F 3 s s. `repeated`: the share of every second fake that repeats one of the others;
    `of_noise`: the distance as a share of what uniform noise has after the codec; `nearest`: of each fake, the number
    of the public image that it is nearest to. `headers`, `real_headers`: what the files look like from outside, as the
    job `decode` tells.
    """
    from arena.metrics.copies import find_copies
    from arena.metrics.features import RandomConv
    from arena.metrics.header import header_auc
    from arena.metrics.manifold import manifold_scores
    from arena.metrics.quality import quality_panel

    near, secret = stills(fakes), stills(reals)
    panel = quality_panel()
    name, distance = next(iter(panel.score(near, secret, stills(train)).items()))
    noise = torch.randint(0, 256, near.shape, generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    noise = store_as(noise, codec)
    of_noise = panel.score(noise, secret, stills(train))[name]["value"]
    copies = find_copies(near, stills(public), secret)
    extract = RandomConv(0, "cpu")
    manifold = manifold_scores(extract(secret).numpy(), extract(near).numpy())
    real, fake = (
        [{k: h[k] for k in OUTSIDE if h.get(k) is not None} for h in some] for some in (real_headers, headers)
    )
    names = [str(i) for i in range(max(len(real), len(fake)))]
    outside = header_auc(real, fake, names[: len(real)], names[: len(fake)])
    return {
        "distance": {"name": name, **{key: distance[key] for key in ("value", "low", "high", "floor")}},
        "coverage": _estimate(manifold["coverage"]), "density": _estimate(manifold["density"]),
        "copied": _estimate(copies.share), "nearest": copies.nearest.tolist(),
        "repeated": _estimate(find_copies(near[::2], near[1::2], secret).share),
        "of_noise": distance["value"] / of_noise,
        "container_auc": None if outside is None else _estimate(outside), "n": len(fakes),
    }  # fmt: skip


def twins(fakes: Tensor, others: Sequence[Tensor], reals: Tensor) -> Row:
    """The share of a team's fakes that are near-duplicates of other teams', and of which: a count for each of them."""
    from arena.metrics.copies import find_copies

    if not others:
        return {"share": 0.0, "of": []}
    found = find_copies(stills(fakes), torch.cat([stills(some) for some in others]), stills(reals))
    owner = torch.repeat_interleave(torch.arange(len(others)), torch.tensor([len(some) for some in others]))
    counts = owner[torch.from_numpy(found.nearest[found.is_copy])].bincount(minlength=len(others))
    return {"share": found.share[0], "of": counts.tolist()}


def house_scores(others: Sequence[Tensor], fakes: Tensor, reals: Tensor, train: Tensor) -> Row:
    """Logits of a team's fakes and of the reals, by a spectrum detector that never saw this team's fakes."""
    from arena import build
    from arena.config import player
    from arena.data.feeds import Labelled, Store
    from arena.match import logits
    from arena.submission.house import eigenfaces
    from arena.training import Feed

    pool = list(others) or [eigenfaces(train, len(train), torch.Generator().manual_seed(0))]

    def store(images: Tensor) -> Store:
        flat = images.flatten(0, -4)
        return Store(flat.numpy(), range(len(flat)))

    detector = build.build(player("detector", "detect", {"name": "spectrum"}, {}), 0, "house")
    device, fabric = torch.device("cpu"), build.fabric("cpu", "32-true")
    data = Labelled([store(train)], [store(some) for some in pool], [], 128, 0.0, "house")
    for _ in detector.fit(fabric, Feed(data, 0, 40, device)):
        pass
    frames = 1 if fakes.ndim == 4 else fakes.shape[1]
    found = {}
    for name, images in (("fakes", fakes), ("reals", reals)):
        found[name] = logits(detector, [store(images)], device).reshape(-1, frames).mean(1).tolist()
    return found


def _estimate(interval: Sequence[float | None]) -> Row:
    found = (None if end is None else float(end) for end in interval)
    return dict(zip(("value", "low", "high"), found, strict=True))


def stills(images: Tensor) -> Tensor:
    """Images as they are; of a clip the frame in the middle."""
    return images if images.ndim == 4 else images[:, images.shape[1] // 2]
