"""Videos whose frame number is painted in every frame, so that what a window holds can be read off its pixels."""

import os
import shutil
import tracemalloc
from fractions import Fraction

import numpy as np
import pytest
from PIL import Image

av = pytest.importorskip("av")

from arena.data import decode, folders, media  # noqa: E402
from arena.data.videos import holds_videos, read_windows, scan, starts, windows_of  # noqa: E402
from arena.errors import InputError  # noqa: E402
from arena.faces import align  # noqa: E402
from arena.faces import video as reader  # noqa: E402
from arena.faces.locate import Face  # noqa: E402
from arena.faces.video import Plain, Writer, open_video  # noqa: E402


def numbered(k: int, height: int = 64, width: int = 64) -> np.ndarray:
    """The number in 12 bits: a grid of 3 rows and 4 columns, black and white, in the middle square."""
    bits = (k >> np.arange(12)) & 1
    side = min(height, width)
    edges = np.arange(side) * 3 // side, np.arange(side) * 4 // side
    square = np.where(bits.reshape(3, 4)[edges[0]][:, edges[1]], 235, 20).astype(np.uint8)
    image = np.full((height, width), 128, np.uint8)
    top, left = (height - side) // 2, (width - side) // 2
    image[top : top + side, left : left + side] = square
    return np.repeat(image[..., None], 3, 2)


def number(image) -> int:
    """What `numbered` painted, from uint8 3 s s."""
    grey = np.asarray(image).mean(0)
    s = len(grey)
    rows, columns = ((2 * np.arange(n) + 1) * s // (2 * n) for n in (3, 4))
    return int(((grey[rows][:, columns] > 128).ravel() << np.arange(12)).sum())


def film(path, count=40, height=64, width=64, first=0, times=None, rate=25, like=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    like = like or Plain(rate=Fraction(rate), variable=times is not None)
    with Writer(path, like, synthetic="true", preset="ultrafast") as writer:
        for k in range(count):
            writer.write(numbered(first + k, height, width), k / rate if times is None else times[k])
    return path


def read(path, frames=4, windows=3, size=48, **options):
    found = read_windows(path, frames=frames, windows=windows, size=size, **options)
    return found, [[number(image) for image in window] for window in found.images]


@pytest.mark.parametrize("n", [1, 2, 7, 8, 9, 40, 1000])
@pytest.mark.parametrize("frames", [1, 4, 8])
@pytest.mark.parametrize("windows", [None, 1, 2, 3, 16])
@pytest.mark.parametrize("every", [1, 3])
def test_windows_lie_evenly_over_the_whole_length(n, frames, windows, every):
    found = starts(n, frames, windows, every)
    span = (frames - 1) * every + 1
    last = max(0, n - span)
    fit = max(1, n // span)
    assert len(found) == min(fit if windows is None else windows, last + 1)
    assert len(set(found)) == len(found)
    if len(found) == 1:
        assert abs(found[0] - last / 2) <= 0.5
    else:
        assert (found[0], found[-1]) == (0, last)
        steps = np.diff(found)
        assert steps.max() - steps.min() <= 1
        assert windows is not None or steps.min() >= span


@pytest.mark.parametrize("every", [1, 3])
def test_windows_hold_the_frames_they_name_from_first_to_last(tmp_path, every):
    path = film(tmp_path / "a.mp4", 40)
    found, numbers = read(path, every=every)
    assert found.images.shape == (3, 4, 3, 48, 48)
    assert found.starts == starts(40, 4, 3, every)
    assert numbers == [[start + i * every for i in range(4)] for start in found.starts]
    assert numbers[0][0] == 0
    assert numbers[-1][-1] == 39
    assert found.seconds == pytest.approx([start / 25 for start in found.starts])
    assert (found.n_frames, found.fps, found.padded, found.lost) == (40, 25.0, 0, 0)


def test_overlapping_windows_and_all_that_fit(tmp_path):
    path = film(tmp_path / "a.mp4", 10)
    assert read(path, windows=5)[1] == [[s, s + 1, s + 2, s + 3] for s in (0, 2, 3, 4, 6)]
    assert read(path, windows=None)[1] == [[0, 1, 2, 3], [6, 7, 8, 9]]
    assert [n for (n,) in read(path, frames=1, windows=None)[1]] == list(range(10))


def test_a_video_is_decoded_once_and_only_what_is_due_is_kept(tmp_path, monkeypatch):
    path = film(tmp_path / "a.mp4", 60)
    passes, cuts = [], []
    frames_of, fitted = reader.Video.__iter__, decode.fitted

    def counted(video):
        passes.append(0)
        for frame in frames_of(video):
            passes[-1] += 1
            yield frame

    monkeypatch.setattr(reader.Video, "__iter__", counted)
    monkeypatch.setattr(decode, "fitted", lambda *args: cuts.append(1) or fitted(*args))
    _, numbers = read(path, windows=5)
    assert passes == [60]
    assert len(cuts) == len({n for window in numbers for n in window}) == 20


def test_memory_does_not_grow_with_the_length(tmp_path):
    peaks = []
    for count in (30, 300):
        path = film(tmp_path / f"{count}.mp4", count)
        tracemalloc.start()
        for _ in windows_of(open_video(path), frames=4, windows=None, size=64):
            pass
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 500_000  # all 300 frames would be 3.7 MB


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_video_shorter_than_a_window_holds_its_last_frame(tmp_path, count):
    found, numbers = read(film(tmp_path / "a.mp4", count))
    assert numbers == [[min(i, count - 1) for i in range(4)]]
    assert found.padded == 4 - count
    assert found.starts == [0]


def test_a_variable_rate_keeps_its_times_and_its_frames(tmp_path):
    times = np.cumsum([0, *np.random.default_rng(1).choice([0.04, 0.08, 0.2], 29)]).tolist()
    found, numbers = read(film(tmp_path / "a.mp4", 30, times=times), windows=4)
    assert numbers == [[s, s + 1, s + 2, s + 3] for s in found.starts]
    assert found.seconds == pytest.approx([times[s] for s in found.starts], abs=2e-3)


@pytest.mark.parametrize(("height", "width"), [(65, 49), (49, 65), (36, 120), (120, 36)])
def test_odd_and_long_frames_keep_their_middle(tmp_path, height, width):
    found, numbers = read(film(tmp_path / "a.mp4", 12, height, width))
    assert numbers == [[s, s + 1, s + 2, s + 3] for s in found.starts]


def test_turned_frames_stand_upright(tmp_path):
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        stream.set_display_rotation(90)
        for k in range(8):
            lying = np.ascontiguousarray(np.rot90(numbered(k, 96, 64), -1))
            out.mux(stream.encode(av.VideoFrame.from_ndarray(lying, format="rgb24")))
        out.mux(stream.encode(None))
    assert (open_video(path).width, open_video(path).height) == (64, 96)
    assert read(path, windows=2)[1] == [[0, 1, 2, 3], [4, 5, 6, 7]]


def test_a_cut_video_keeps_its_plan_and_holds_its_last_frame(tmp_path):
    """Damage at the end: the windows stay where the count of frames puts them, since data were dealt by it."""
    whole = film(tmp_path / "a.mp4", 40)
    data = bytearray(whole.read_bytes())
    begin, end = data.index(b"mdat"), len(data) if data.index(b"moov") < data.index(b"mdat") else data.index(b"moov")
    data[begin + (end - begin) // 2 : end] = bytes(end - begin - (end - begin) // 2)
    (broken := tmp_path / "b.mp4").write_bytes(data)
    found, numbers = read(broken, windows=5)
    assert found.n_frames == 40
    assert found.starts == starts(40, 4, 5)
    assert found.lost > 0
    assert numbers[0] == [0, 1, 2, 3]
    *_, last = open_video(broken)
    assert 15 < last.number < 25
    assert found.padded == sum(s + i > last.number for s in found.starts for i in range(4))
    assert numbers[-1] == numbers[-2] == [number(decode.fitted(Image.fromarray(last.image), 48).transpose(2, 0, 1))] * 4
    short = tmp_path / "c.mkv"
    film(short, 40)
    os.truncate(short, short.stat().st_size * 6 // 10)
    found, numbers = read(short, windows=2)
    assert numbers[0] == [0, 1, 2, 3]
    assert 4 < numbers[1][-1] < 39


def test_a_window_s_pixels_are_the_frame_s_by_the_picture_s_filter(tmp_path):
    path = film(tmp_path / "a.mp4", 6, 80, 120)
    (frame, *_), found = list(open_video(path)), read_windows(path, frames=6, windows=1, size=32, resize="lanczos")
    expected = decode.fitted(Image.fromarray(frame.image), 32, "lanczos")
    assert np.array_equal(found.images[0, 0].permute(1, 2, 0), expected)


class Looker:
    """Faces at known places: `where(number)` gives box and points, or None."""

    name, version = "planted", "0"

    def __init__(self, where):
        self.where, self.seen = where, []

    def __call__(self, frames, places=None):
        self.seen += [n for _, n in places]
        found = [self.where(n) for _, n in places]
        return [[] if face is None else [Face(*face, 1.0)] for face in found]


def about(x, y, side=20.0):
    """A face whose box is `side` wide about x, y."""
    points = np.asarray(align.FACE) * side / align.SIDE * 1.5 + (x, y)
    return (x - side / 2, y - side / 2, x + side / 2, y + side / 2), points


def test_the_face_crop_is_one_steady_square_by_the_median_box(tmp_path):
    path = film(tmp_path / "a.mp4", 30, 120, 200, first=32)  # an edge runs through the middle
    looker = Looker(lambda n: None if n % 5 == 1 else about(20, 20) if n == 29 else about(100 + n % 3, 60))
    found = read_windows(path, frames=5, windows=4, size=40, crop="face", locator=looker)
    assert len(looker.seen) == 16
    assert 29 in looker.seen
    side, x = 1.3 * 20, np.median([20 if n == 29 else 100 + n % 3 for n in looker.seen if n % 5 != 1])
    box = (x - side / 2, 60 - side / 2, x + side / 2, 60 + side / 2)
    frames = {frame.number: Image.fromarray(frame.image) for frame in open_video(path)}
    for start, window in zip(found.starts, found.images, strict=True):
        for i in range(5):
            expected = np.asarray(frames[start + i].resize((40, 40), Image.Resampling.BICUBIC, box=box))
            assert np.abs(window[i].permute(1, 2, 0).numpy().astype(int) - expected).max() <= 1
    near_edge = read_windows(
        path, frames=2, windows=1, size=40, crop="face", locator=Looker(lambda n: about(5, 5, 500.0))
    )
    assert np.array_equal(
        near_edge.images[0, 0].permute(1, 2, 0),
        np.asarray(frames[14].resize((40, 40), Image.Resampling.BICUBIC, box=(0, 0, 120, 120))),
    )


def test_the_aligned_crop_follows_the_face(tmp_path):
    """A face that walks with a white square on its nose: in the crops the square stands still."""
    path = tmp_path / "walk.mp4"
    with Writer(path, Plain(), synthetic="true", preset="ultrafast") as writer:
        for k in range(12):
            image = np.full((120, 160, 3), 30, np.uint8)
            image[50:58, 30 + 6 * k : 38 + 6 * k] = 240
            writer.write(image, k / 25)

    def where(n):
        return None if n == 5 else about(34 + 6 * n, 54)

    found = read_windows(path, frames=12, windows=1, size=48, crop="aligned", locator=Looker(where))
    middles = [np.argwhere(image.float().mean(0).numpy() > 150).mean(0) for image in found.images[0]]
    still = np.asarray([middle for n, middle in enumerate(middles) if n != 5])
    assert np.abs(still - still[0]).max() < 0.7
    assert 3 < np.abs(middles[5] - still[0]).max() < 15  # frame 5 took its neighbour's place
    with pytest.raises(InputError, match=r"walk\.mp4: no face in the 12 frames"):
        read_windows(path, frames=12, windows=1, size=48, crop="aligned", locator=Looker(lambda n: None))


def test_what_cannot_be_read_is_an_input_error(tmp_path):
    path = film(tmp_path / "a.mp4", 4)
    with pytest.raises(InputError, match=r"a\.mp4: frames of 64 x 64 px are over the limit"):
        read_windows(path, frames=2, windows=1, size=32, max_pixels=64 * 64 - 1)
    with pytest.raises(InputError, match="unknown crop"):
        read_windows(path, frames=2, windows=1, size=32, crop="nose", locator=Looker(lambda n: None))
    with pytest.raises(InputError, match="there is no"):
        read_windows(tmp_path / "none.mp4", frames=2, windows=1, size=32)


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    """real/ and fake/ with ten films each, two of the reals alike."""
    root = tmp_path_factory.mktemp("films")
    for domain, shift in (("real", 0), ("fake", 1000)):
        for i in range(10):
            film(root / domain / f"{i}.mp4", 3 + i, first=shift + 20 * i, rate=25 if i else 30)
    shutil.copy(root / "real/3.mp4", root / "real/copy.mp4")
    return root


def test_every_video_is_a_source_of_its_own(films):
    folder = scan(films, seed=3)
    assert len(folder.items) == 21
    assert folder.domains == ("a", "b")
    assert folder.duplicates == 1
    assert folder.group_rule.startswith("auto: every video on its own")
    groups = {}
    for item in folder.items:
        groups.setdefault(item.group, []).append(item)
    assert sorted(map(len, groups.values())) == [1] * 19 + [2]
    assert all(len({item.split for item in group}) == 1 for group in groups.values())
    assert {item.split for item in folder.items} == {"train", "val", "judge"}
    one = next(item for item in folder.items if item.name == "real/7.mp4")
    assert (one.width, one.height, one.n_frames, one.fps, one.format) == (64, 64, 10, 25.0, "MP4")
    assert next(item for item in folder.items if item.name == "real/0.mp4").fps == 30
    assert one.bytes == one.path.stat().st_size
    assert scan(films, seed=3).items == folder.items
    assert [i.split for i in scan(films, seed=4).items] != [i.split for i in folder.items]


def test_folders_gather_videos_only_when_asked(films, tmp_path):
    for i in range(10):
        for domain in ("real", "fake"):
            (tmp_path / domain / f"person{i}").mkdir(parents=True)
            shutil.copy(films / domain / f"{i}.mp4", tmp_path / domain / f"person{i}/a.mp4")
    for group, count in (("auto", 20), ("none", 20), ("parent", 10)):
        folder = scan(tmp_path, group=group)
        assert len({item.group for item in folder.items}) == count
        assert folder.group_rule.startswith(group)


def test_groups_by_name(films, tmp_path):
    for i in range(10):
        shutil.copy(films / f"fake/{i}.mp4", tmp_path / f"s{i % 4}_{i}.mp4")
    folder = scan(tmp_path, group="prefix:s[0-9]")
    assert {item.group for item in folder.items} == {"s0", "s1", "s2", "s3"}
    where = {}
    for item in folder.items:
        where.setdefault(item.group, set()).add(item.split)
    assert all(len(splits) == 1 for splits in where.values())


def test_labelled_folders(films):
    folder = scan({"real": [films / "real"], "fake": [films / "fake"]})
    assert folder.domains == ("fake", "real")
    assert {item.domain for item in folder.items if item.path.parent.name == "fake"} == {"fake"}


def test_bad_videos_are_named_with_a_reason_and_counted(films, tmp_path):
    root = tmp_path / "v"
    shutil.copytree(films / "fake", root)
    (root / "empty.mp4").touch()
    (root / "text.mkv").write_text("no video " * 99)
    cut = (root / "9.mp4").read_bytes()
    (root / "cut.mp4").write_bytes(cut[: cut.index(b"moov") - 4])
    (root / "notes.txt").write_text("passed over")
    folder = scan(root, least=4)
    bad = dict(folder.bad)
    assert bad.keys() == {"empty.mp4", "text.mkv", "cut.mp4", "0.mp4"}
    assert bad["empty.mp4"].startswith("has zero bytes")
    assert bad["text.mkv"].startswith("is no video that can be read")
    assert bad["cut.mp4"].startswith("is cut short")
    assert bad["0.mp4"] == "3 frames, fewer than 4"
    assert folder.ignored == 1
    assert len(folder.items) == 9
    assert scan(root, max_pixels=64 * 64).bad
    with pytest.raises(InputError, match=r"3 of 13 videos in .* at most 2 may be"):
        scan(root, max_bad=2)
    with pytest.raises(InputError, match="none of the 13 videos"):
        scan(root, max_bad=99, max_pixels=100)
    with pytest.raises(InputError, match=r"no video .* lies in or below"):
        scan(_empty(tmp_path))


def _empty(tmp_path):
    (tmp_path / "nothing").mkdir()
    return tmp_path / "nothing"


def test_pictures_are_scanned_as_before(tmp_path):
    """The same reader serves both: a folder of pictures does not know of frames."""
    for i in range(6):
        Image.fromarray(numbered(i)).save(tmp_path / f"{i}.png")
    (tmp_path / "film.mp4").write_bytes(b"x")
    folder = folders.scan(tmp_path)
    assert (len(folder.items), folder.ignored) == (6, 1)
    assert "n_frames" not in folders.manifest_rows(folder)[0]


def test_a_folder_is_of_videos_or_of_pictures(films, tmp_path):
    assert holds_videos(films)
    assert not holds_videos(_empty(tmp_path))
    Image.fromarray(numbered(1)).save(tmp_path / "p.png")
    assert not holds_videos(tmp_path)
    Image.fromarray(numbered(1)).save(tmp_path / "p.gif")
    assert not holds_videos(tmp_path)
    shutil.copy(films / "real/1.mp4", tmp_path / "nothing/v.mp4")
    with pytest.raises(InputError, match=r"1 video \(nothing/v.mp4\) and 1 picture \(p.png\)"):
        holds_videos(tmp_path)
    (tmp_path / "p.png").unlink()
    assert holds_videos(tmp_path)


def test_media_are_found_in_natural_order_each_once(films, tmp_path):
    names = ["9.png", "10.png", "b/2.mp4", "b/10.JPG", ".hidden.png", "x.txt", "a.gif"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"anything")
    (tmp_path / "out.png").symlink_to(films / "real/1.mp4")
    (tmp_path / "loop").symlink_to(tmp_path)
    found = [file.name.removeprefix(f"{tmp_path}/") for file in media.find([tmp_path])]
    assert found == ["9.png", "10.png", "a.gif", "b/2.mp4", "b/10.JPG"]
    again = media.find([tmp_path / "b", tmp_path, tmp_path / "x.txt", tmp_path / "none", tmp_path / "9.png"])
    assert [file.name.removeprefix(f"{tmp_path}/") for file in again] == [
        "b/2.mp4", "b/10.JPG", "9.png", "10.png", "a.gif", "x.txt", "none",
    ]  # fmt: skip
    with pytest.raises(InputError, match="no image or video lies in"):
        media.find([_empty(tmp_path)])


def test_a_file_is_what_it_holds(films, tmp_path):
    Image.fromarray(numbered(1)).save(tmp_path / "a.mp4", "PNG")
    assert media.kind(tmp_path / "a.mp4") == "image"
    shutil.copy(films / "real/1.mp4", tmp_path / "film")
    assert media.kind(tmp_path / "film") == "video"
    (tmp_path / "text.png").write_text("no picture")
    assert media.kind(tmp_path / "text.png") == "image"
    with pytest.raises(InputError, match="is a folder"):
        media.kind(tmp_path)
