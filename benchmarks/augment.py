"""How many images a CPU second gives through blur and JPEG: the published way, image by image, against detect.augment.

Run: python benchmarks/augment.py [--repeats 9] [--images 32] [--sizes 256 64]

One thread, CPU time (time.process_time), the two sides interleaved, the same draws of sigma and quality on both. Rows
"blur + JPEG" time the augmentation alone, from and to what each side works on (bytes H W C there, float B C H W in
[-1, 1] here). Rows "to the net" time the whole way from stored bytes to the normalised random crop (224 px of 256)
that the net sees.
"""

import argparse
import datetime
import io
import os
import platform
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from itertools import product
from pathlib import Path
from statistics import median

os.environ["OMP_NUM_THREADS"] = "1"

import cv2
import numpy as np
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter
from torchvision.transforms import functional as tv

from detect.augment import Plan, apply, draw, random_crop_flip

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def photographs(count: int, size: int) -> torch.Tensor:
    """Bytes B 3 H W: 1/f noise, edges of random discs, a little sensor noise."""
    rng = torch.Generator().manual_seed(0)
    f = torch.fft.fftfreq(size)
    radius = (f[:, None] ** 2 + f**2).sqrt() + 1 / size
    noise = torch.randn(count, 1, size, size, generator=rng) + 0.3 * torch.randn(count, 3, size, size, generator=rng)
    x = torch.fft.ifft2(torch.fft.fft2(noise) / radius**1.3).real
    x = 128 + 35 * x / x.std((1, 2, 3), keepdim=True)
    grid = torch.arange(size)
    for _ in range(6):
        centre, reach = (
            torch.rand(2, count, 1, 1, generator=rng) * size,
            torch.rand(count, 1, 1, generator=rng) * size / 3,
        )
        disc = (grid[:, None] - centre[0]) ** 2 + (grid - centre[1]) ** 2 < reach**2
        x = x + disc[:, None] * (torch.rand(count, 3, 1, 1, generator=rng) - 0.5) * 80
    return (x + torch.randn(x.shape, generator=rng)).clamp(0, 255).round().byte()


def published(image: np.ndarray, sigma: float, quality: int, opencv: bool) -> np.ndarray:
    """Blur and JPEG of one image, bytes H W C, as the published training did it (see detect.augment, `exact`)."""
    image = image.copy()
    if sigma:
        for c in range(3):
            gaussian_filter(image[:, :, c], output=image[:, :, c], sigma=sigma)
    if quality and opencv:
        coded = cv2.imencode(".jpg", image[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        image = np.asarray(cv2.imdecode(coded, cv2.IMREAD_COLOR))[:, :, ::-1]
    elif quality:
        file = io.BytesIO()
        Image.fromarray(image).save(file, "jpeg", quality=quality)
        image = np.asarray(Image.open(file))
    return image


def published_to_the_net(rows: list, crop: int) -> torch.Tensor:
    batch = []
    for row in rows:
        picture = Image.fromarray(np.ascontiguousarray(published(*row)))
        top, left = (int(torch.randint(picture.height - crop + 1, ())) for _ in range(2))
        picture = tv.crop(picture, top, left, crop, crop)
        if torch.rand(()) < 0.5:
            picture = tv.hflip(picture)
        batch.append(tv.normalize(tv.to_tensor(picture), MEAN, STD))
    return torch.stack(batch)


def fast_to_the_net(levels: torch.Tensor, plan: Plan, crop: int) -> torch.Tensor:
    images = random_crop_flip(apply(levels.float().div_(127.5).sub_(1), plan), crop)
    mean, std = (torch.tensor(x)[:, None, None] for x in (MEAN, STD))
    return images.add_(1 - 2 * mean).div_(2 * std)


def milliseconds(call) -> float:
    start = time.process_time()
    call()
    return (time.process_time() - start) * 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 64])
    args = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    torch.empty(7_500_000).fill_(0)  # as any training step does before: the allocator then keeps blocks of this size

    print(f"{args.images} images, 1 thread, CPU ms per image, median of {args.repeats} (range)\n")
    print(f"{'':26}{'published':>24}{'fast':>24}{'ratio':>8}{'range':>11}")
    for size in args.sizes:
        levels = photographs(args.images, size)
        images = levels.float() / 127.5 - 1
        pixels = levels.permute(0, 2, 3, 1).contiguous().numpy()
        crop = size * 7 // 8  # 224 of 256
        sides: dict[str, tuple[Callable, Callable]] = {
            "blur + JPEG": (lambda rows: [published(*row) for row in rows], partial(apply, images)),
            "to the net": (partial(published_to_the_net, crop=crop), partial(fast_to_the_net, levels, crop=crop)),
        }
        for p, (name, (theirs, ours)) in product((0.5, 0.1), sides.items()):
            rng = torch.Generator().manual_seed(1)
            times = []
            for _ in range(args.repeats + 1):
                plan = draw(args.images, p_blur=p, p_jpeg=p, rng=rng)
                rows = list(zip(pixels, *(t.tolist() for t in plan), strict=True))
                a = milliseconds(lambda rows=rows, theirs=theirs: theirs(rows)) / args.images
                b = milliseconds(lambda plan=plan, ours=ours: ours(plan)) / args.images
                times.append((a, b, a / b))
            a, b, ratio = zip(*times[1:], strict=True)  # the first is for warming up
            left, right = (f"{median(c):.3f} ({min(c):.3f}-{max(c):.3f})" for c in (a, b))
            spread = f"{min(ratio):.1f}-{max(ratio):.1f}"
            print(f"{f'{size} px  p {p}  {name}':26}{left:>24}{right:>24}{median(ratio):>7.1f}x{spread:>11}")
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    cpu = next((line.split(":")[1].strip() for line in lines if "model name" in line), platform.processor())
    libraries = ", ".join(f"{name} {version(name)}" for name in ("torch", "scipy", "pillow", "opencv-python-headless"))
    print(f"\n{cpu}; Python {platform.python_version()}, {libraries}; {datetime.date.today()}")


if __name__ == "__main__":
    main()
