"""Swap the faces of pictures: locate, crop, swap, mask, colour, paste; a chunk of pictures at a time."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from arena.config import EMBEDDED as RENDERED
from arena.config import DataConfig
from arena.errors import InputError
from arena.faces import align, sidecar
from arena.faces.colour import transfer
from arena.faces.locate import Face, FaceLocator, Places
from arena.faces.mask import face_masks
from arena.faces.paste import paste
from arena.player import open_player
from arena.seeds import rng
from arena.training import place

RENDERED_COVERAGE = 1.45  # what of a head the embedded faces show


@dataclass(frozen=True)
class Look:
    """How a swapped face is put in; see `arena swap --help`."""

    faces: Literal["largest", "all"] = "largest"
    coverage: float = 1.0
    mask: Literal["hull", "ellipse", "none"] = "hull"
    feather: float = 10.0  # % of the crop
    erosion: float = 4.0  # % of the crop
    colour: Literal["lab", "histogram", "none"] = "lab"
    blend: Literal["alpha", "poisson"] = "alpha"


@dataclass(frozen=True)
class Net:
    """A generator between two domains that swaps crops of `size` pixels, and where it comes from."""

    player: Any
    size: int
    device: torch.device
    marks: dict[str, str]  # Method, Run, Round, Seed
    data: DataConfig  # what it was trained on
    reverse: bool = False

    def swap(self, crops: Tensor, number: int = 0) -> Tensor:
        """N 3 S S in [-1, 1] -> the same, on the device. `number` is the call's address for random numbers."""
        try:
            with torch.inference_mode():
                return self.player.sample(crops, rng=rng(self.marks["Seed"], "swap", number), reverse=self.reverse)
        except torch.OutOfMemoryError:
            raise InputError(
                f"{self.device} has no memory for {len(crops)} faces at once. Take a smaller --batch-size."
            ) from None


def open_net(path: Path, device: str = "cpu", reverse: bool = False) -> Net:
    """The generator of a run, a checkpoint or a round's weights.

    Raises InputError where there is none, where it does not go between two domains, or does not take its run's crops.
    """
    player, marks, _, config = open_player(path, "generator")
    who = marks["Method"]
    if player.needs != "domains":
        raise InputError(
            f"{path}: {who} does not go between two domains, so it cannot swap a face. Give a run of a generator "
            "between two people, as `arena run --generator faceswap` trains it."
        )
    place(player, torch.device(device))
    net = Net(player, config.data.size, torch.device(device), marks, config.data, reverse)
    crop = torch.zeros(1, 3, net.size, net.size, device=net.device)
    try:
        shape = net.swap(crop).shape
    except (RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:160]
        raise InputError(f"{path}: {who} does not take the {net.size} px crops of its own run ({reason}).") from error
    if shape != crop.shape:
        raise InputError(f"{path}: {who} makes {tuple(shape[1:])} of a crop of {tuple(crop.shape[1:])}: no swap.")
    return net


def training_folders(data: DataConfig) -> list[Path]:
    """The folder that a run was trained on and those up to two levels below, as far as they are still there."""
    if data.source in RENDERED or not Path(data.source).is_dir():
        return []
    root = Path(data.source)
    return [root, *sorted(root.glob("*/")), *sorted(root.glob("*/*/"))]


def trained_coverage(data: DataConfig) -> float:
    """How much around the face a net saw in training: by its faces' sidecar, the embedded faces' own, or 1."""
    if data.source in RENDERED:
        return RENDERED_COVERAGE * (data.close if data.source == "faces-two" else 1)
    for folder in training_folders(data):
        if (folder / sidecar.NAME).is_file():
            for crop in sidecar.read(folder):
                return crop.coverage
    return 1.0


class Converter:
    """Pictures in, pictures out; each step between is a method."""

    def __init__(self, net: Net, locator: FaceLocator, look: Look, batch: int = 16):
        self.net, self.locator, self.look, self.batch = net, locator, look, batch
        self.target = align.template(net.size, look.coverage)
        self.calls = 0

    def __call__(self, frames: Sequence[np.ndarray], places: Places) -> list[tuple[np.ndarray, int]]:
        """Frames (uint8 H W 3) with their faces swapped, and how many those are; one without comes back as it came.

        `places`: of each frame the name of its source and its number there.
        """
        found = self.locate(frames, places)
        crops, matrices = self.crop(frames, found)
        if not len(crops):
            return [(frame, 0) for frame in frames]
        swapped = self.swap(crops)
        masks = self.masks(found, matrices)
        dressed = transfer(self.look.colour, swapped, crops, masks)
        return list(self.paste(frames, found, dressed, masks, matrices))

    def locate(self, frames: Sequence[np.ndarray], places: Places) -> list[list[Face]]:
        """The faces of each frame that can be cropped, the largest first."""
        found = [
            [face for face in faces if self.usable(face, frame)]
            for frame, faces in zip(frames, self.locator(frames, places), strict=True)
        ]
        return [faces[:1] for faces in found] if self.look.faces == "largest" else found

    def usable(self, face: Face, frame: np.ndarray) -> bool:
        return align.usable(torch.from_numpy(face.points), self.target, self.net.size, *frame.shape[:2])

    def crop(self, frames: Sequence[np.ndarray], found: list[list[Face]]) -> tuple[Tensor, Tensor]:
        """All faces, in order: N 3 S S in [-1, 1] on the device, and their matrices, N 2 3."""
        points = torch.tensor(np.array([face.points for faces in found for face in faces]).reshape(-1, 5, 2))
        matrices = align.similarity(points, self.target)
        crops, first = torch.empty(len(points), 3, self.net.size, self.net.size, device=self.net.device), 0
        for frame, faces in zip(frames, found, strict=True):
            if faces:
                last = first + len(faces)
                picture = torch.from_numpy(frame).to(self.net.device).permute(2, 0, 1)
                rows = torch.zeros(len(faces), dtype=torch.long)
                crops[first:last] = align.crop(picture[None], matrices[first:last], self.net.size, rows)
                first = last
        return (crops / 127.5 - 1).clamp_(-1, 1), matrices

    def swap(self, crops: Tensor) -> Tensor:
        parts = []
        for part in crops.split(self.batch):
            parts.append(self.net.swap(part, self.calls))
            self.calls += 1
        return torch.cat(parts)

    def masks(self, found: list[list[Face]], matrices: Tensor) -> Tensor:
        """Of all faces, N 1 S S, by all the points that are known of each."""
        look, flat = self.look, [face for faces in found for face in faces]
        masks = []
        for face, matrix in zip(flat, matrices, strict=True):
            known = face.points if face.landmarks is None else face.landmarks
            points = align.move(matrix, torch.tensor(known))[None].numpy()
            masks.append(face_masks(look.mask, points, self.net.size, feather=look.feather, erosion=look.erosion))
        return torch.cat(masks).to(self.net.device)

    def paste(
        self, frames: Sequence[np.ndarray], found: list[list[Face]], faces: Tensor, masks: Tensor, matrices: Tensor
    ) -> Iterator[tuple[np.ndarray, int]]:
        """Frames with their faces laid over them, the smallest first, and how many those are."""
        last = 0
        for frame, mine in zip(frames, found, strict=True):
            first, last = last, last + len(mine)
            picture = frame.copy() if mine else frame
            for n in reversed(range(first, last)):
                paste(picture, faces[n], masks[n], matrices[n], self.look.blend)
            yield picture, len(mine)
