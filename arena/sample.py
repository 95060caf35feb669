"""What a trained generator can do, as pictures in a folder: images, reconstructions, walks through its latents.

    OUT/samples/seed-000000.png           one file an image, and samples.png to see them at once
    OUT/translations/00000.png            the same of a generator that translates
    OUT/reconstructions/00000.png, interpolation.png, mixing.png, directions.png, a film, figures.json: where asked for
    OUT/manifest.jsonl                    every file, and what of it is synthetic

The image of a seed is the same alone or among others: latent and noise are drawn from the seed's own address. Where
images are compared (interpolation, mixing, directions) the generator gets no noise, so that nothing else changes.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from arena.album import RATE, Album, staged
from arena.config import DataConfig
from arena.data import decode
from arena.data.layouts import existing_folder, walk
from arena.data.pairs import MONTAGE
from arena.data.source import open_data
from arena.data.splits import natural
from arena.errors import InputError
from arena.ledger import Ledger
from arena.metrics.path_length import Lpips, find_distance, missing_weights, path_length
from arena.player import open_player
from arena.sample_wishes import Wishes, check, check_starts, has_latents
from arena.seeds import rng
from arena.training import place, to_float, to_uint8
from gen import latent

Progress = Callable[[int, int], None]
ON_SHEET = 256  # samples on a sheet
PAIRS = 64  # sources on a sheet, each above what was made of it; images that an interpolation goes through
STEPS = 9  # columns of an interpolation
DEVIATIONS = torch.arange(-3.0, 4.0)  # columns of directions
SCOUTS = 10_000  # latents from which directions are found


class Files:
    """Strangers' images at a run's size, read when asked for: uint8 n 3 s s of a slice, like a `Store`.

    `single`: refuse what is as wide as two pictures side by side, of which a generator of pairs wants one.
    """

    def __init__(self, paths: Sequence[Path], config: DataConfig, single: bool = False):
        self.config, self.single = config, single
        self.files: list[Path] = []
        for path in paths:
            if path.is_file():
                self.files.append(path)
                continue
            if not path.is_dir():
                raise InputError(f"{path} is no image file and no folder. Check the path.")
            root = existing_folder(path)
            self.files += [root / name for name in sorted(walk(root)[0], key=natural)]
        if not self.files:
            raise InputError(f"no PNG, JPEG, WEBP or BMP picture lies in or below {paths[0]}. Check the path.")
        self.names = [file.name.encode("utf-8", "backslashreplace").decode() for file in self.files]

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, rows: slice) -> Tensor:
        return torch.from_numpy(np.stack([*decode.in_threads(self.read, self.files[rows])])).permute(0, 3, 1, 2)

    def read(self, file: Path) -> np.ndarray:
        try:
            image = decode.read(file, self.config.max_pixels)
        except decode.BadImage as error:
            raise InputError(f"{file}: {error}. Take it out or replace it.") from error
        width, height = image.size
        if self.single and MONTAGE[0] <= width / height <= MONTAGE[1]:
            raise InputError(f"{file} is {width} x {height} px, a montage of a pair: give the source's half alone.")
        return decode.fitted(image, self.config.size, self.config.resize)


def sample(
    path: Path, out: Path, wishes: Wishes, *, device: str = "cpu", progress: Progress | None = None
) -> dict[str, Any]:
    """Do what is wished with the generator of a run, checkpoint or weights file; all of it or nothing is written.

    Returns `out`, `written` (`file`, `what`, `n` each) and `figures`. Raises InputError for a wish that this generator
    cannot meet, for unusable images, and where `out` is not a new or empty folder.
    """
    player, marks, root, config = open_player(path, "generator")
    check(wishes, player, marks["Method"])
    with staged(out) as folder:
        work = Work(player, root, config.data, wishes, Album(folder, marks), torch.device(device), progress)
        for job in work.jobs():
            job()
        return {"out": str(out), "written": work.album.finish(work.figures), "figures": work.figures}


class Work:
    """One call of `arena sample`: the player, the wishes, and the album that fills."""

    def __init__(
        self,
        player: Any,
        root: Path,
        data: DataConfig,
        wishes: Wishes,
        album: Album,
        device: torch.device,
        progress: Progress | None,
    ):
        self.player, self.root, self.data = player, root, data
        self.wishes, self.album, self.device = wishes, album, device
        self.progress = progress or (lambda done, total: None)
        self.batch = max(1, 2**18 // self.data.size**2)  # 64 images of 64 px
        self.figures: dict[str, Any] = {}
        place(player, device)

    def jobs(self) -> list[Callable[[], None]]:
        wishes, found = self.wishes, list[Callable[[], None]]()
        if wishes.plain:
            found.append(self.samples if has_latents(self.player) else self.translations)
        if wishes.reconstruct:
            found.append(self.reconstructions)
        if wishes.walks and (wishes.seeds or wishes.source):
            check_starts(wishes, len(wishes.seeds or self.sources), PAIRS)
        walks = {"--interpolate": self.interpolation, "--mix": self.mixing, "--directions": self.directions}
        found += [walks[option] for option in wishes.walks]
        return [*found, self.path_length] if wishes.path_length else found

    # From seeds and sources to latents, and from latents to images

    @cached_property
    def sources(self) -> Files:
        return Files(self.wishes.source, self.data, single=self.player.needs == "pairs")

    def seeds(self, count: int) -> list[int]:
        return [*(self.wishes.seeds or range(count))][:count]

    def draw(self, seeds: Sequence[int]) -> Tensor:
        return torch.stack([torch.randn(self.player.latent, generator=rng("sample", seed)) for seed in seeds])

    @torch.inference_mode()
    def mapped(self, z: Tensor) -> Tensor:
        return torch.cat([self.player.map(part.to(self.device)) for part in z.split(1000)])

    @torch.inference_mode()
    def starts(self, count: int) -> Tensor:
        """The w of the first `count` seeds or sources, truncated."""
        if not self.wishes.source:
            return self.truncated(self.mapped(self.draw(self.seeds(count))))
        parts = [slice(i, min(i + self.batch, count)) for i in range(0, count, self.batch)]
        return self.truncated(torch.cat([self.player.encode(self.floats(self.sources[part])) for part in parts]))

    def truncated(self, w: Tensor) -> Tensor:
        psi = self.wishes.psi
        return w if psi is None else self.player.truncate(w, psi, self.wishes.cutoff)

    def decoded(self, w: Tensor) -> Iterator[Tensor]:
        """The images of latents, without noise: uint8 on the CPU, a batch at a time."""
        for i, part in enumerate(w.split(self.batch)):
            with torch.inference_mode():
                yield to_uint8(self.player.decode(part)).cpu()
            self.progress(min((i + 1) * self.batch, len(w)), len(w))

    def images(self, w: Tensor) -> Tensor:
        return torch.cat([*self.decoded(w)])

    def floats(self, images: Tensor) -> Tensor:
        return to_float(images.to(self.device))

    def facts(self, count: int) -> dict[str, Any]:
        """What the picture of a walk says of the images it started from."""
        start = {"made_from": self.sources.names[:count]} if self.wishes.source else {"sample_seeds": self.seeds(count)}
        return {"psi": self.wishes.psi, **start}

    # The jobs

    def samples(self) -> None:
        """One image a seed, with the noise that the generator was trained with."""
        psi, seeds = self.wishes.psi, [*dict.fromkeys(self.wishes.seeds or range(self.wishes.n or 64))]
        kept, shown = [], spread(len(seeds), ON_SHEET)
        for i, seed in enumerate(seeds):
            w = self.truncated(self.mapped(self.draw([seed])))
            with torch.inference_mode():
                image = to_uint8(self.player.decode(w, rng=rng("sample noise", seed))).cpu()
            self.album.picture(f"samples/seed-{seed:06d}.png", image[0], "sample", sample_seed=seed, psi=psi)
            if i in shown:
                kept.append(image)
            self.progress(i + 1, len(seeds))
        grid = torch.cat(kept).split(math.ceil(math.sqrt(len(kept))))
        self.album.sheet("samples.png", grid, f"{len(kept)} of {len(seeds)} samples", psi=psi)

    def translations(self) -> None:
        """Of the given images, or else of the run's own judge images."""
        if self.wishes.source:
            images: Any = self.sources
        else:
            data = open_data(Ledger(self.root), "png")
            images = data.sources["judge", data.domains[self.wishes.reverse]]
        keywords = {"reverse": True} if self.wishes.reverse else {}
        self.made_from(
            images, "translation", lambda x, i: self.player.sample(x, rng=rng("sample", "translate", i), **keywords)
        )

    def reconstructions(self) -> None:
        keywords = {"reverse": True} if self.wishes.reverse else {}
        images = Files(self.wishes.reconstruct, self.data)
        self.made_from(images, "reconstruction", lambda x, i: self.player.reconstruct(x, **keywords))

    def made_from(self, images: Any, what: str, function: Callable[[Tensor, int], Tensor]) -> None:
        """What `function` makes of each image (a batch, and the number of its first), and a sheet of both."""
        n = min(self.wishes.n or len(images), len(images))
        kept, shown = [], spread(n, PAIRS)
        for start in range(0, n, self.batch):
            batch = images[slice(start, min(start + self.batch, n))]
            with torch.inference_mode():
                made = to_uint8(function(self.floats(batch), start)).cpu()
            for i, pair in enumerate(zip(batch, made, strict=True), start):
                self.album.picture(f"{what}s/{i:05d}.png", pair[1], what, made_from=images.names[i])
                if i in shown:
                    kept.append(torch.stack(pair))
            self.progress(start + len(batch), n)
        rows = [row for part in torch.stack(kept, 1).split(8, 1) for row in part]
        part = f"contains synthetic images: every second row, {what}s of the sources in the row above"
        self.album.sheet(f"{what}s.png", rows, f"rows: source, {what}", part)

    def interpolation(self) -> None:
        """Between seeds slerp goes through Z, where latents lie around a sphere; all else goes through W."""
        wishes = self.wishes
        in_z = wishes.interpolate == "slerp" and not wishes.source
        curve = latent.slerp if wishes.interpolate == "slerp" else latent.lerp
        count = len(wishes.seeds or (self.sources if wishes.source else range(5)))
        points = self.draw(self.seeds(count)) if in_z else self.starts(count)

        def path(points: Tensor, n: int) -> Tensor:
            way = latent.interpolate(points, n, curve)
            return self.truncated(self.mapped(way)) if in_z else way

        what = f"{wishes.interpolate} in {'Z' if in_z else 'W'} from image to image"
        w = torch.cat([path(points[i : i + 2], STEPS) for i in range(count - 1)])
        self.album.sheet("interpolation.png", self.images(w).split(STEPS), what, **self.facts(count))
        if wishes.video:
            w = path(points, (count - 1) * (wishes.frames or 2 * RATE) + 1)
            self.album.film(wishes.video, self.decoded(w), f"{what}, {len(w)} frames", **self.facts(count))

    def mixing(self) -> None:
        """Coarse styles of the left column's images, fine styles of the top row's."""
        assert self.wishes.mix
        rows, columns = self.wishes.mix
        level = self.wishes.level or self.player.levels // 2
        w = latent.per_level(self.starts(rows + columns), self.player.levels)
        cells = latent.mix(w[:rows].repeat_interleave(columns, 0), w[rows:].repeat(rows, 1, 1), level)
        left, top, body = self.images(torch.cat([w, cells])).split([rows, columns, rows * columns])
        corner = torch.full_like(left[:1], 255)
        grid = [torch.cat([corner, top])]
        grid += [torch.cat(row) for row in zip(left.split(1), body.split(columns), strict=True)]
        what = f"styles below level {level} from the left column, from it on from the top row"
        self.album.sheet("mixing.png", grid, what, level=level, **self.facts(rows + columns))

    def directions(self) -> None:
        """The first image, moved along the directions in which W varies most."""
        assert self.wishes.directions
        k, draws = self.wishes.directions, rng("sample", "directions")
        scouts = self.mapped(torch.randn(SCOUTS, self.player.latent, generator=draws))
        directions, deviations = latent.principal_directions(scouts)
        w, steps = self.starts(1)[0], DEVIATIONS.to(scouts)
        walks = [latent.walk(w, directions[i], steps * deviations[i]) for i in range(k)]
        what = "rows: principal directions of W; columns: -3 to 3 standard deviations"
        images = self.images(torch.cat(walks))
        self.album.sheet("directions.png", images.split(len(steps)), what, **self.facts(1))
        share = deviations.square() / deviations.square().sum()
        self.figures["directions"] = {
            "deviation": deviations[:k].tolist(), "share_of_variance": share[:k].tolist(), "n": len(scouts),
        }  # fmt: skip

    def path_length(self) -> None:
        assert self.wishes.path_length
        distance, n, batch = find_distance(self.device), self.wishes.path_length, max(1, self.batch // 4)
        self.figures["path_length"] = [
            path_length(self.player, distance, n, sampling=sampling, batch=batch, progress=self.progress)
            for sampling in ("full", "end")
        ]
        if not isinstance(distance, Lpips):
            self.figures["note"] = f"not PPL, nor to be compared with it. {missing_weights()}"


def spread(n: int, most: int) -> set[int]:
    """At most `most` of 0, ..., n - 1, evenly."""
    return {*np.linspace(0, n - 1, min(n, most)).round().astype(int).tolist()}
