"""Folders of pictures: every layout, everything that may be wrong with one, and the real sets where there are any."""

import hashlib
import io
import json
import os
import random
import shutil
import sys
import time
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from arena.data import decode
from arena.data.folders import Folder, folder_hash, load, manifest_rows, scan
from arena.errors import InputError

SPLITS = ("train", "val", "judge")
FORMATS = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".JPG": "JPEG",
    ".JpEg": "JPEG",
    ".WEBP": "WEBP",
    ".bmp": "BMP",
    ".PNG": "PNG",
}
DATA = Path(os.environ.get("ARENA_TEST_DATA") or Path(__file__).parents[3] / "shared/data")


def picture(seed: object, size: tuple[int, int] = (12, 10)) -> Image.Image:
    rng = np.random.default_rng(list(str(seed).encode()))
    return Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))


def write(path: Path, seed: object = None, size: tuple[int, int] = (12, 10)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    suffix = path.suffix.lower()
    form = {".png": "PNG", ".bmp": "BMP", ".webp": "WEBP"}.get(suffix, "JPEG")
    picture(path if seed is None else f"seed {seed}", size).save(path, form)
    return path


def fill(root: Path, names: list[str]) -> Path:
    for name in names:
        write(root / name)
    return root


def counts(folder: Folder) -> Counter:
    return Counter((item.domain, item.split) for item in folder.items)


def stills(count: int, folder: str = "") -> list[str]:
    return [f"{folder}{i}.png" for i in range(count)]


# Layouts


@pytest.mark.parametrize("style", [str, str.upper, str.lower, str.title])
def test_cyclegan_layout_in_any_case(tmp_path, style):
    for top, n in (("trainA", 20), ("trainB", 10), ("testA", 4), ("testB", 3)):
        fill(tmp_path, stills(n, f"{style(top)}/"))
    folder = scan(tmp_path)
    assert folder.domains == ("a", "b")
    assert folder.layout.startswith("CycleGAN")
    assert counts(folder) == {
        ("a", "train"): 18, ("a", "val"): 2, ("a", "judge"): 4, ("b", "train"): 9, ("b", "val"): 1, ("b", "judge"): 3,
    }  # fmt: skip
    assert all(("test" in item.name.lower()) == (item.split == "judge") for item in folder.items)
    assert {item.path for item in folder.take("judge", "b")} == set((tmp_path / style("testB")).iterdir())


def test_cyclegan_layout_without_test_and_with_val(tmp_path):
    fill(tmp_path, stills(20, "trainA/") + stills(20, "trainB/"))
    assert set(counts(scan(tmp_path)).values()) == {14, 2, 4}
    fill(tmp_path, stills(5, "valA/") + stills(5, "valB/"))
    folder = scan(tmp_path)
    assert counts(folder) == {(d, s): n for d in "ab" for s, n in (("train", 16), ("val", 5), ("judge", 4))}
    assert scan(tmp_path, judge=0, val=0.1).take("judge") == ()


def test_a_split_folder_for_one_domain_only_is_refused(tmp_path):
    fill(tmp_path, stills(9, "trainA/") + stills(9, "trainB/") + stills(3, "testA/"))
    with pytest.raises(InputError, match="no judge pictures for domain b"):
        scan(tmp_path)
    shutil.rmtree(tmp_path / "trainA")
    with pytest.raises(InputError, match="no train pictures for domain a"):
        scan(tmp_path)


@pytest.mark.parametrize(
    ("tops", "domains"),
    [
        (("A", "B"), ("a", "b")),
        (("b", "A"), ("a", "b")),
        (("horses", "zebras"), ("a", "b")),
        (("ant", "bee", "cat"), ("ant", "bee", "cat")),
        (("only",), ("all",)),
    ],
)
def test_domain_folders(tmp_path, tops, domains):
    fill(tmp_path, [name for top in tops for name in stills(10, f"{top}/")])
    folder = scan(tmp_path)
    assert folder.domains == domains
    ordered = sorted(tops, key=str.lower)
    if len(domains) > 1:
        assert all(item.domain == domains[ordered.index(item.name.split("/")[0])] for item in folder.items)
    assert counts(folder) == {(d, s): n for d in domains for s, n in (("train", 7), ("val", 1), ("judge", 2))}


def test_flat_nested_and_many_folders_are_one_domain(tmp_path):
    flat, many = tmp_path / "flat", tmp_path / "many"
    fill(flat, [*stills(8), "deep/er/still/1.png", "deep/2.png"])
    assert scan(flat).domains == ("all",)
    fill(many, [f"person {p}/{i}.png" for p in range(21) for i in range(2)])
    folder = scan(many)
    assert folder.domains == ("all",)
    assert {item.group for item in folder.items} == {f"person {p}" for p in range(21)}
    few = scan(fill(tmp_path / "few", [f"{p}/{i}.png" for p in "pqrst" for i in range(2)]), group="parent")
    assert few.domains == ("all",)
    assert {item.group for item in few.items} == set("pqrst")


@pytest.mark.parametrize(
    "words", [("train", "val", "test"), ("Training", "validation", "JUDGE"), ("train", "dev", "judge")]
)
def test_explicit_splits_with_domains_beneath(tmp_path, words):
    for word, n in zip(words, (6, 2, 3), strict=True):
        fill(tmp_path, stills(n, f"{word}/A/") + stills(n, f"{word}/B/"))
    folder = scan(tmp_path)
    assert counts(folder) == {(d, s): n for d in "ab" for s, n in zip(SPLITS, (6, 2, 3), strict=True)}
    assert "split folders" in folder.layout


def test_explicit_splits_without_domains_and_with_one_missing(tmp_path):
    fill(tmp_path, stills(20, "train/") + stills(4, "test/"))
    assert counts(scan(tmp_path)) == {("all", "train"): 18, ("all", "val"): 2, ("all", "judge"): 4}


def test_wrappers_strays_and_junk(tmp_path):
    inner = tmp_path / "horse2zebra" / "v1"
    fill(inner, stills(9, "trainA/") + stills(9, "trainB/") + stills(4, "samples/") + ["preview.png"])
    fill(tmp_path, ["__MACOSX/trainA/._1.png", ".thumbnails/1.png", "horse2zebra/v1/trainA/.hidden.png"])
    for name in ("README.md", "trainA/labels.csv", "trainA/clip.mp4"):
        (inner / name).write_text("x")
    folder = scan(tmp_path)
    assert len(folder.items) == 18
    assert folder.ignored == 3
    assert folder.layout == "CycleGAN folders: trainA, trainB (in v1/) (in horse2zebra/)"
    assert any(note.startswith("5 pictures lie outside") for note in folder.notes)
    assert all(item.path.is_file() and item.name.startswith("horse2zebra/v1/train") for item in folder.items)


# What an item says


def test_items_say_what_the_files_are(tmp_path):
    for i, (suffix, form) in enumerate(FORMATS.items()):
        name = f"{form} ünïcode with spaces {i}{suffix}"
        write(tmp_path / name, i, (20 + i, 10))
    write(tmp_path / ("long" * 60 + ".png"))
    exif = Image.Exif()
    exif[0x0112] = 6
    picture("turned", (31, 17)).save(tmp_path / "turned.jpg", exif=exif)
    folder = scan(tmp_path)
    assert len(folder.items) == len(FORMATS) + 2
    for item in folder.items:
        assert item.bytes == item.path.stat().st_size
        assert item.path == tmp_path / item.name
        with Image.open(item.path) as image:
            assert item.format == image.format
            assert (item.width, item.height) == ((17, 31) if "turned" in item.name else image.size)
    rows = manifest_rows(folder)
    assert json.loads(json.dumps(rows)) == rows
    assert list(rows[0]) == ["name", "sha256", "width", "height", "format", "bytes", "domain", "group", "split"]
    assert all(row["sha256"] == hashlib.sha256((tmp_path / row["name"]).read_bytes()).hexdigest() for row in rows)


def test_folder_hash_notices_content_split_and_domain(tmp_path):
    items = scan(fill(tmp_path, stills(10, "A/") + stills(10, "B/"))).items
    same = folder_hash(items)
    assert folder_hash(items[::-1]) == same
    for change in ({"sha256": "0" * 64}, {"split": "none"}, {"domain": "z"}):
        assert folder_hash((replace(items[0], **change), *items[1:])) != same
    assert folder_hash(items[1:]) != same


# Groups, copies, determinism


@pytest.mark.parametrize("seed", range(25))
def test_groups_and_copies_never_straddle(tmp_path, seed):
    rng = random.Random(seed)
    layout = rng.choice([("A", "B"), ("trainA", "trainB", "testA", "testB"), ("x", "y", "z"), ("",)])
    sources = rng.randint(3, 9)
    written = []
    for top in layout:
        for s in range(sources):
            for f in range(rng.randint(1, 6)):
                path = tmp_path / top / f"{'t' if 'test' in top else ''}clip{s}_{f:03d}.bmp"
                if written and rng.random() < 0.1:
                    path.parent.mkdir(exist_ok=True)
                    shutil.copy(rng.choice(written), path)
                else:
                    write(path, (seed, str(path.name), top))
                written.append(path)
    rule = rng.choice(["none", r"prefix:[^_]+", "auto", "parent"])
    folder = scan(tmp_path, seed=seed, group=rule)
    for key in ("group", "sha256"):
        where = defaultdict(set)
        for item in folder.items:
            where[getattr(item, key)].add(item.split)
        if key == "sha256" or not any("folders have them so" in note for note in folder.notes):
            assert all(len(found) == 1 for found in where.values()), (key, rule)
    assert set(counts(folder)) == {(d, s) for d in folder.domains for s in SPLITS}
    unique = len({path.read_bytes() for path in written})
    assert folder.duplicates == len(written) - unique
    assert len({item.sha256 for item in folder.items}) == unique
    assert len({item.name for item in folder.items}) == len(folder.items)


def test_copies_of_held_out_pictures_leave_train(tmp_path):
    fill(tmp_path, [n for top in ("trainA", "trainB", "valA", "valB", "testA", "testB") for n in stills(6, f"{top}/")])
    for source, copy in (
        ("testA/0.png", "trainA/x.png"),
        ("testA/1.png", "trainB/x.png"),
        ("testB/2.png", "valB/x.png"),
    ):
        shutil.copy(tmp_path / source, tmp_path / copy)
    shutil.copy(tmp_path / "valA/0.png", tmp_path / "trainA/y.png")
    folder = scan(tmp_path)
    assert set(counts(folder).values()) == {6}
    assert folder.duplicates == 4
    assert any(note.startswith("4 pictures are left out of train or val") for note in folder.notes)
    assert any(note.startswith("1 pictures lie in more than one domain") for note in folder.notes)


def test_the_order_of_the_file_system_does_not_matter(tmp_path, monkeypatch):
    fill(tmp_path, [f"{top}/c{s}_{f}.png" for top in "AB" for s in range(6) for f in range(4)])
    straight = scan(tmp_path, seed=5)
    real, rng = os.scandir, random.Random(0)

    def shuffled(path):
        entries = list(real(path))
        rng.shuffle(entries)
        return entries

    monkeypatch.setattr(os, "scandir", shuffled)
    for _ in range(5):
        assert scan(tmp_path, seed=5, workers=rng.randint(1, 8)) == straight
    assert [i.split for i in scan(tmp_path, seed=6).items] != [i.split for i in straight.items]


def test_copying_the_folder_elsewhere_changes_nothing(tmp_path):
    fill(tmp_path / "one", stills(30))
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    one, two = scan(tmp_path / "one"), scan(tmp_path / "two")
    assert manifest_rows(one) == manifest_rows(two)
    assert folder_hash(one.items) == folder_hash(two.items)


# Bad input


def test_bad_files_are_named_counted_and_skipped(tmp_path):
    fill(tmp_path, stills(20))
    whole = (tmp_path / "0.png").read_bytes()
    jpeg = io.BytesIO()
    picture("jpeg", (64, 64)).save(jpeg, "JPEG")
    broken = {
        "empty.png": b"",
        "half.png": whole[: len(whole) // 2],
        "half.jpg": jpeg.getvalue()[: len(jpeg.getvalue()) // 2],
        "text.png": b"no picture at all",
        "animation.png": b"GIF89a" + bytes(20),
    }
    for name, data in broken.items():
        (tmp_path / name).write_bytes(data)
    folder = scan(tmp_path)
    assert len(folder.items) == 20
    assert {name: reason.split(",")[0] for name, reason in folder.bad} == {
        "empty.png": "zero bytes",
        "half.png": "truncated",
        "half.jpg": "truncated",
        "text.png": "not a PNG",
        "animation.png": "a GIF",
    }
    assert scan(tmp_path, max_bad=5) == folder == scan(tmp_path, max_bad=0.2)
    for limit in (4, 0, 0.19):
        with pytest.raises(InputError, match=r"^5 of 25 .*animation\.png \(a GIF.*and 2 more.*raise --max-bad\.$"):
            scan(tmp_path, max_bad=limit)


def test_large_pictures_are_bad(tmp_path):
    fill(tmp_path, stills(5))
    write(tmp_path / "large.png", size=(40, 30))
    folder = scan(tmp_path, max_pixels=1000)
    assert folder.bad == (("large.png", "40 x 30 px is over the limit of 0.001 Mpx (--max-pixels)"),)
    assert len(scan(tmp_path).items) == 6


def test_no_picture_is_usable(tmp_path):
    (tmp_path / "a.png").touch()
    with pytest.raises(InputError, match=r"none of the 1 pictures .* a\.png \(zero bytes\)"):
        scan(tmp_path)


def test_paths_that_are_no_folder_of_pictures(tmp_path):
    (tmp_path / "fruits_apple_tomato" / "trainA").mkdir(parents=True)
    image = write(tmp_path / "one.png")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("x")
    for path, words in (
        (tmp_path / "frutis_apple_tomato", r"Did you mean .*/fruits_apple_tomato\?"),
        (tmp_path / "frutis_apple_tomato" / "trainA", r"Did you mean .*/fruits_apple_tomato\?"),
        (tmp_path / "zzz" / "y", r"has no zzz"),
        (image, r"got the file .*one\.png\. Give the folder: "),
        (tmp_path / "fruits_apple_tomato", r"no PNG, JPEG, WEBP or BMP picture"),
        (tmp_path / "notes", r"no PNG, JPEG, WEBP or BMP picture"),
        (tmp_path, r"too few for train \+ val \+ judge"),
    ):
        with pytest.raises(InputError, match=words) as caught:
            scan(path)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("options", [{"val": 0.5, "judge": 0.5}, {"val": -0.1}, {"judge": float("nan")}])
def test_shares_that_leave_nothing(tmp_path, options):
    with pytest.raises(InputError, match="shares"):
        scan(tmp_path, **options)


@pytest.mark.parametrize("max_bad", [-1, 1.5, float("nan"), float("inf")])
def test_max_bad_that_is_none(tmp_path, max_bad):
    with pytest.raises(InputError, match="--max-bad"):
        scan(tmp_path, max_bad=max_bad)


def test_links(tmp_path):
    root, other = tmp_path / "root", tmp_path / "other"
    fill(root, stills(12, "x/"))
    fill(other, stills(3))
    (root / "x" / "loop").symlink_to(root)
    (root / "x" / "self").symlink_to(root / "x" / "self")
    (root / "x" / "out.png").symlink_to(other / "0.png")
    (root / "x" / "dangling.png").symlink_to(root / "nothing.png")
    (root / "x" / "away").symlink_to(other)
    (root / "x" / "in.png").symlink_to(root / "x" / "0.png")
    folder = scan(root)
    assert {item.name for item in folder.items} == {*stills(12, "x/"), "x/in.png"}
    assert folder.duplicates == 1
    assert any(note.startswith("5 links") for note in folder.notes)
    (tmp_path / "to root").symlink_to(root)
    assert scan(tmp_path / "to root") == folder
    (tmp_path / "only").mkdir()
    (tmp_path / "only" / "0.png").symlink_to(other / "0.png")
    with pytest.raises(InputError, match="1 links lead elsewhere"):
        scan(tmp_path / "only")


@pytest.mark.skipif(sys.platform != "linux", reason="names that are no text, pipes")
def test_odd_directory_entries(tmp_path):
    fill(tmp_path, stills(6))
    with open(os.fsencode(tmp_path) + b"/\xff\xfe.png", "wb") as file:
        picture("odd").save(file, "PNG")
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "folder.png").mkdir()
    folder = scan(tmp_path)
    assert len(folder.items) == 6
    assert folder.bad == (("\\udcff\\udcfe.png", "its name is not valid UTF-8"),)
    assert folder.ignored == 1


def test_progress(tmp_path):
    seen = []
    scan(fill(tmp_path, stills(7)), progress=lambda *both: seen.append(both))
    assert seen == [(i, 7) for i in range(1, 8)]


# Loading


def test_load_keeps_the_order_and_equals_pillow(tmp_path):
    for i in range(300):
        write(tmp_path / f"{i}.png", i, (40, 20 + i % 30))
    items = scan(tmp_path).items
    mixed = random.Random(0).sample(items, 300)
    chunks = list(load(mixed, 10, resize="lanczos", workers=3))
    assert [len(chunk) for chunk in chunks] == [256, 44]
    assert all(
        chunk.dtype == torch.uint8 and chunk.shape[1:] == (3, 10, 10) and chunk.is_contiguous() for chunk in chunks
    )
    for item, found in list(zip(mixed, torch.cat(chunks), strict=True))[::17]:
        side = min(item.width, item.height)
        left, top = (item.width - side) / 2, (item.height - side) / 2
        with Image.open(item.path) as image:
            box = (left, top, left + side, top + side)
            truth = image.convert("RGB").resize((10, 10), Image.Resampling.LANCZOS, box=box)
        assert np.array_equal(found.permute(1, 2, 0).numpy(), np.asarray(truth))
    assert torch.equal(torch.cat(list(load(mixed[:9], 10, resize="antialias-lanczos"))), torch.cat(chunks)[:9])
    assert not torch.equal(next(load(mixed[:9], 10, fit="stretch")), next(load(mixed[:9], 10)))
    assert list(load([], 10)) == []


def test_load_holds_no_more_than_64_mib_a_chunk(tmp_path):
    items = scan(fill(tmp_path, stills(3))).items * 6
    assert max(chunk.numel() for chunk in load(items, 1536)) <= 2**26


def test_load_refuses_what_changed_since_the_scan(tmp_path):
    items = scan(fill(tmp_path, stills(5))).items
    write(items[2].path, "other")
    with pytest.raises(InputError, match=r"2\.png: the file has changed since"):
        list(load(items, 8))
    items[2].path.unlink()
    with pytest.raises(InputError, match=r"2\.png: the file is gone"):
        list(load(items, 8))


def test_load_names_what_it_does_not_know(tmp_path):
    for options, words in (({"resize": "area"}, "bicubic, lanczos"), ({"fit": "pad"}, "crop, stretch")):
        with pytest.raises(InputError, match=words):
            load([], 8, **options)
    with pytest.raises(InputError, match="size"):
        load([], 0)


def test_a_file_that_vanishes_while_scanning_is_bad(tmp_path, monkeypatch):
    fill(tmp_path, stills(6))
    real = decode.read_bytes

    def racing(path, *rest):
        if Path(path).name == "3.png":
            Path(path).unlink()
        return real(path, *rest)

    monkeypatch.setattr(decode, "read_bytes", racing)
    assert scan(tmp_path).bad == (("3.png", "the file is gone"),)


# Real sets


@pytest.fixture
def real(request):
    root = DATA / request.param
    if not root.is_dir():
        pytest.skip(f"{root} is not here")
    return root


@pytest.mark.parametrize("real", ["fruits_apple_tomato"], indirect=True)
def test_fruits(real):
    start = time.perf_counter()
    folder = scan(real)
    images = torch.cat(list(load(folder.items, 64)))
    assert time.perf_counter() - start < 30
    assert images.shape == (len(folder.items), 3, 64, 64)
    assert not folder.bad
    assert folder.domains == ("a", "b")
    assert len(folder.take("judge")) == 400
    for item in folder.items:
        assert item.group == Path(item.name).name.split("_")[0]
        assert ("test" in item.name) == (item.split == "judge")
    have = counts(folder)
    assert 40 <= have["a", "val"] <= 120
    assert 40 <= have["b", "val"] <= 120
    where = defaultdict(set)
    for item in folder.items:
        where[item.group].add(item.split)
    assert all(len(found) == 1 for found in where.values())


@pytest.mark.parametrize("real", ["grid_two_speakers"], indirect=True)
def test_grid(real):
    folder = scan(real)
    assert folder.domains == ("a", "b")
    assert folder.layout == "a = A_s1, b = B_s2 (in frames/)"
    clip = {split: {Path(i.name).name.split("_")[0] for i in folder.take(split)} for split in SPLITS}
    assert not clip["judge"] & (clip["train"] | clip["val"])
    assert not {i.group for i in folder.take("train", "a")} & {i.group for i in folder.take("val", "a")}
    assert any("cut in order" in note for note in folder.notes)
    have = counts(folder)
    assert [have["a", split] for split in SPLITS] == [105, 15, 30]
    assert [have["b", split] for split in SPLITS] == [66, 9, 75]


@pytest.mark.parametrize("real", ["cifake_10k"], indirect=True)
def test_cifake(real):
    folder = scan(real)
    assert folder.duplicates == 9
    assert folder.group_rule.startswith("auto: every picture on its own")
    assert counts(folder) == {(d, s): n for d in "ab" for s, n in (("train", 3500), ("val", 500), ("judge", 1000))}
    for kind in range(1, 11):  # the classes are in every split as they are in the whole
        share = np.mean([item.name.split("/")[1].startswith(f"c{kind:02d}") for item in folder.take("judge")])
        assert 0.06 < share < 0.14
