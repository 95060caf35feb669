"""A folder of videos as data: windows of frames, spread over the whole length of each (see arena/data/videos.py)."""

from collections.abc import Callable, Iterator
from itertools import groupby
from typing import Any

from torch import Tensor

from arena.config import LABELLED, DataConfig
from arena.data.videos import read_windows, scan, starts

Progress = Callable[[int, int], None]


class FilmSource:
    """Clips of `config.frames` frames: `config.windows` of each video, spread over its whole length."""

    def __init__(self, config: DataConfig, progress: Progress | None = None, together: bool = False):
        self.config, self.frames = config, config.frames
        roots: Any = {"real": config.real, "fake": config.fake} if config.source == LABELLED else config.source
        folder = scan(
            roots, seed=config.seed, group=config.group, max_bad=config.max_bad, max_pixels=config.max_pixels,
            progress=progress,
        )  # fmt: skip
        self.domains = ("all",) if together else folder.domains
        self.videos = {item.name: item for item in folder.items}
        self.manifest: list[dict[str, Any]] = []
        for item in folder.items:
            about = {
                "sha256": item.sha256, "width": item.width, "height": item.height, "format": item.format,
                "bytes": item.bytes, "domain": "all" if together else item.domain, "group": item.group,
                "split": item.split, "video": item.name, "fps": item.fps,
            }  # fmt: skip
            for start in starts(item.n_frames, config.frames, config.windows, config.every):
                self.manifest.append({"name": f"{item.name}, from frame {start}", **about, "start": start})
        self.summary: dict[str, Any] = {
            "name": folder.name, "layout": folder.layout, "group_rule": folder.group_rule, "videos": len(folder.items),
            "skipped": len(folder.bad), "bad": [list(bad) for bad in folder.bad], "duplicates": folder.duplicates,
            "ignored": folder.ignored, "notes": list(folder.notes), "resize": config.resize, "crop": config.crop,
        }  # fmt: skip

    def images(self, rows: list[dict[str, Any]]) -> Iterator[Tensor]:
        config = self.config
        for video, some in groupby(rows, key=lambda row: row["video"]):
            item, wanted = self.videos[video], {row["start"] for row in some}
            found = read_windows(
                item.path, frames=config.frames, windows=config.windows, every=config.every, size=config.size,
                crop=config.crop, resize=config.resize, max_pixels=config.max_pixels,
            )  # fmt: skip
            for start, clip in zip(found.starts, found.images, strict=True):
                if start in wanted:
                    yield clip
