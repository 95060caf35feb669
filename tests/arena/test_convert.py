"""`arena swap` from file to file: rendered faces of nobody, planted generators whose swap is known."""

import json
import os
import re
import textwrap
from fractions import Fraction
from pathlib import Path

import click
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from safetensors.torch import save_file

from arena.cli import Commands
from arena.config import resolve
from arena.data.faces import clip, render
from arena.errors import InputError
from arena.faces.consent import statement
from arena.faces.convert import Converter, Look, open_net, trained_coverage
from arena.faces.locate import Face, Given, five
from arena.faces.paste import warp_back
from arena.faces.sidecar import Crop, write
from arena.faces.swap_command import swap

av, cv2 = pytest.importorskip("av"), pytest.importorskip("cv2")
pytest.importorskip("facenet_pytorch")

from arena.faces.video import kind, open_video  # noqa: E402

SIDE, FRAMES, BLANK = 192, 20, range(8, 11)

PLANTED = """
    import torch
    from torch import nn

    class Same:
        needs = "domains"
        def __init__(self): self.net = nn.Linear(1, 1)
        def fit(self, fabric, batches, *, penalty=None): yield from ()
        def sample(self, source, *, rng, reverse=False): return source

    class Paint(Same):
        "Red from a to b, blue from b to a."
        def sample(self, source, *, rng, reverse=False):
            red = torch.tensor([1.0, -1, -1]).to(source)
            return (red.flip(0) if reverse else red)[None, :, None, None].expand_as(source)

    class Dice(Same):
        needs = "stills"

    class Half(Same):
        def sample(self, source, *, rng, reverse=False): return source[..., ::2, ::2]

    class Picky(Same):
        def sample(self, source, *, rng, reverse=False): raise ValueError("built for 3 x 128 x 128 images")
"""


def planted_run(folder: Path, name: str = "Paint", source: str = "faces", size: int = 64) -> Path:
    """What a run of a planted generator leaves behind, as far as `arena swap` reads it; its weights' file."""
    player, data = str(folder.parent / f"{name}.yaml"), {"size": size, "source": source}
    config = resolve([{"generator": player, "detector": "spectrum", "data": data}], "smoke")
    (folder / "rounds" / "03").mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps({"settings": config.model_dump()}))
    file = folder / "rounds" / "03" / "generator.safetensors"
    save_file({f"net.{key}": value for key, value in torch.nn.Linear(1, 1).state_dict().items()}, file)
    return file


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Planted runs, a clip with sound and three frames without a face, its points, and single frames of it."""
    home = tmp_path_factory.mktemp("swap")
    (home / "planted_swaps.py").write_text(textwrap.dedent(PLANTED))
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(home))
        for name in ("Same", "Paint", "Dice", "Half", "Picky"):
            (home / f"{name}.yaml").write_text(f"of: planted_swaps:{name}\n")
            planted_run(home / name.lower(), name)
        film = clip(2, 5, FRAMES, SIDE)
        frames = film.image.permute(0, 2, 3, 1).numpy().copy()
        frames[BLANK.start : BLANK.stop] = 90
        write_video(home / "clip.mp4", frames)
        rows = [(n, points.tolist()) for n, points in enumerate(film.landmarks) if n not in BLANK]
        lines = [json.dumps({"source": "clip.mp4", "frame": n, "points": points}) for n, points in rows]
        (home / "points.jsonl").write_text("\n".join(lines))
        Image.fromarray(frames[0]).save(home / "face.png")
        Image.fromarray(frames[9]).save(home / "wall.png")
        np.save(home / "frames.npy", frames)
        yield home


def write_video(path: Path, frames: np.ndarray, sound: bool = True, rate: Fraction = Fraction(30000, 1001)) -> None:
    with av.open(str(path), "w") as out:
        video = out.add_stream("libx264", rate=rate, options={"crf": "8"})
        video.height, video.width, video.pix_fmt = *frames.shape[1:3], "yuv420p"
        audio = out.add_stream("aac", rate=44100, layout="mono") if sound else None
        for frame in frames:
            out.mux(video.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        out.mux(video.encode(None))
        if audio is not None:
            n = round(float(len(frames) / rate) * 44100)
            wave = np.sin(np.arange(n) * 0.06).astype(np.float32)
            for start in range(0, n, 1024):
                piece = av.AudioFrame.from_ndarray(wave[None, start : start + 1024], format="fltp", layout="mono")
                piece.sample_rate, piece.pts, piece.time_base = 44100, start, Fraction(1, 44100)
                out.mux(audio.encode(piece))
            out.mux(audio.encode(None))


def arena(*words, code=0):
    """Call the command as the console does; what it printed on standard output and standard error."""
    words = ["swap", *map(str, words), *([] if "--device" in words else ["--device", "cpu"])]
    result = CliRunner().invoke(Commands("arena", commands={"swap": swap}), words)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    return result.stdout, result.stderr


def read(path):
    return np.asarray(Image.open(path).convert("RGB"))


def red(image):
    """Where an image is as red as `Paint` paints it."""
    return image[..., 0] - image[..., 1:].mean(-1) > 150


def hull(points, grow=0):
    """The pixels in the landmarks' hull, moved outwards by so many pixels, by OpenCV."""
    corners = cv2.convexHull(points.numpy().astype(np.float32)).astype(np.int32)
    filled = cv2.fillConvexPoly(np.zeros((SIDE, SIDE), np.uint8), corners, 1)
    kernel = np.ones((2 * abs(grow) + 1,) * 2, np.uint8)
    return (cv2.dilate if grow > 0 else cv2.erode)(filled, kernel) > 0


def frames_of(path):
    with open_video(path) as video:
        return np.stack([frame.image for frame in video]), video


def sound_of(path):
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(audio=0) if packet.size]


# An image


def test_an_image_gets_its_face_swapped_and_says_so(home, tmp_path):
    out = tmp_path / "swapped.png"
    arena(weights(home, "paint"), home / "face.png", out, "--consent", "Nobody, drawn; Größe egal", "--colour", "none")
    before, after = read(home / "face.png"), read(out)
    points = clip(2, 5, 1, SIDE).landmarks[0]
    assert red(after)[hull(points, -12)].all()
    assert np.array_equal(after[~hull(points, 12)], before[~hull(points, 12)])

    image = Image.open(out)
    assert image.text["Synthetic"] == "face swapped by Paint"
    assert image.text["Consent"] == "Nobody, drawn; Größe egal"
    assert (image.text["Method"], image.text["Run"], image.text["Round"]) == ("Paint", "paint", "3")
    assert "compositeWithTrainedAlgorithmicMedia" in image.text["XML:com.adobe.xmp"]
    manifest = json.loads((tmp_path / "swapped.png.manifest.json").read_text())
    assert manifest["source"]["name"] == "face.png"
    assert len(manifest["source"]["sha256"]) == 64
    assert manifest["consent"] == "Nobody, drawn; Größe egal"
    assert (manifest["faces"], manifest["frames"], manifest["without_face"]) == (1, 1, 0)
    assert manifest["settings"] == {
        "faces": "largest", "coverage": 1.45, "mask": "hull", "feather": 10.0, "erosion": 4.0, "colour": "none",
        "blend": "alpha", "size": 64, "visible_mark": False,
    }  # fmt: skip
    assert {"torch", "arena"} <= manifest["versions"].keys()


def weights(home, name):
    return home / name / "rounds" / "03" / "generator.safetensors"


@pytest.mark.parametrize("blend", ["alpha", "poisson"])
def test_a_generator_that_changes_nothing_gives_the_image_back(home, tmp_path, blend):
    arena(weights(home, "same"), home / "face.png", tmp_path / "a.png", "--colour", "none", "--blend", blend)
    before, after = read(home / "face.png").astype(float), read(tmp_path / "a.png")
    changed = np.abs(after - before).max(-1) > 0
    assert changed.any()
    assert 10 * np.log10(255**2 / np.square(after - before)[changed].mean()) > 27  # a crop of 64 px for some 110


def test_reverse_goes_the_other_way(home, tmp_path):
    before = read(home / "face.png").astype(int)
    for words, channel in (((), 0), (("--reverse",), 2)):
        arena(weights(home, "paint"), home / "face.png", tmp_path / f"{channel}.png", "--colour", "none", *words)
        change = (read(tmp_path / f"{channel}.png") - before).sum((0, 1))
        assert change.argmax() == channel


def test_the_visible_mark_is_in_the_corner_alone(home, tmp_path):
    for name, words in (("plain", ()), ("marked", ("--visible-mark",))):
        arena(weights(home, "paint"), home / "face.png", tmp_path / f"{name}.png", *words)
    rows, columns = np.nonzero((read(tmp_path / "plain.png") != read(tmp_path / "marked.png")).any(-1))
    assert len(rows) > 50
    assert rows.min() > 0.9 * SIDE
    assert columns.max() < SIDE / 2


def test_all_faces_or_the_largest(home, tmp_path):
    small = np.asarray(Image.fromarray(read(home / "face.png")).resize((120, 120)))
    both = np.full((SIDE, SIDE + 120, 3), 90, np.uint8)
    both[:, :SIDE], both[:120, SIDE:] = read(home / "face.png"), small
    Image.fromarray(both).save(tmp_path / "both.png")
    for which, sides in (("largest", (True, False)), ("all", (True, True))):
        out, _ = arena(
            weights(home, "paint"), tmp_path / "both.png", tmp_path / f"{which}.png", "--faces", which, "--json"
        )
        change = (read(tmp_path / f"{which}.png") != both).any((0, 2))
        assert (change[:SIDE].any(), change[SIDE:].any()) == sides
        assert json.loads(out)["faces"] == sum(sides)


# A video


def test_a_video_keeps_its_frames_rate_and_sound(home, tmp_path):
    out = tmp_path / "swapped.mp4"
    printed, _ = arena(
        weights(home, "paint"), home / "clip.mp4", out, "--locator", "given", "--landmarks", home / "points.jsonl",
        "--consent", "nobody is shown", "--colour", "none", "--batch-size", 6, "--json",
    )  # fmt: skip
    found = json.loads(printed)
    assert (found["frames"], found["without_face"], found["faces"], found["lost"]) == (FRAMES, 3, FRAMES - 3, 0)
    (before, source), (after, video) = frames_of(home / "clip.mp4"), frames_of(out)
    assert len(after) == len(before) == FRAMES
    assert video.rate == source.rate == Fraction(30000, 1001)
    assert sound_of(out) == sound_of(home / "clip.mp4")
    points = clip(2, 5, FRAMES, SIDE).landmarks
    for n in range(FRAMES):
        difference = np.abs(after[n].astype(int) - before[n])
        if n in BLANK:
            assert difference.max() <= 6
            continue
        assert red(after[n])[hull(points[n], -12)].all()
        assert difference[~hull(points[n], 8)].max() <= 40  # the codec's, beside so sharp an edge
        assert difference[~hull(points[n], 8)].mean() < 3
    with av.open(str(out)) as container:
        tags = " ".join(f"{key}: {value}" for key, value in container.metadata.items())
    for text in ("face swapped by Paint", "nobody is shown", "deepfake-arena", "clip.mp4"):
        assert text in tags
    assert b"compositeWithTrainedAlgorithmicMedia" in out.read_bytes()
    manifest = json.loads((tmp_path / "swapped.mp4.manifest.json").read_text())
    assert manifest["frames"] == FRAMES
    assert manifest["locator"].startswith("given, points.jsonl")


def test_the_built_in_locator_finds_the_frames_with_faces(home, tmp_path):
    printed, _ = arena(weights(home, "paint"), home / "clip.mp4", tmp_path / "a.mkv", "--json", "--visible-mark")
    found = json.loads(printed)
    assert abs(found["faces"] - (FRAMES - 3)) <= 1
    assert frames_of(tmp_path / "a.mkv")[1].count == FRAMES


def test_a_video_without_any_face_is_a_no_and_leaves_nothing(home, tmp_path):
    write_video(tmp_path / "wall.mp4", np.full((5, 64, 64, 3), 90, np.uint8), sound=False)
    _, warned = arena(weights(home, "paint"), tmp_path / "wall.mp4", tmp_path / "out.mp4", code=1)
    assert "no face was found" in warned
    assert sorted(p.name for p in tmp_path.iterdir()) == ["wall.mp4"]


def test_a_video_that_is_cut_short_is_swapped_up_to_the_cut(home, tmp_path):
    write_video(tmp_path / "whole.mkv", np.load(home / "frames.npy"), sound=False)
    data = (tmp_path / "whole.mkv").read_bytes()
    (tmp_path / "clip.mp4").write_bytes(data[: len(data) * 2 // 3])  # the points' name for it
    words = ("--locator", "given", "--landmarks", home / "points.jsonl", "--json")
    found = json.loads(arena(weights(home, "paint"), tmp_path / "clip.mp4", tmp_path / "a.mp4", *words)[0])
    assert 0 < found["frames"] < FRAMES
    assert frames_of(tmp_path / "a.mp4")[1].count == found["frames"]


def test_few_pictures_are_in_hand_at_a_time(home):
    """However long a video, the locator and the net see a batch of it at most."""
    net = open_net(weights(home, "paint"))
    seen = []

    class Locator:
        name, version = "none", "0"

        def __call__(self, frames, places=None):
            seen.append(len(frames))
            return [[] for _ in frames]

    from arena.faces.swap import Work

    work = Work(Converter(net, Locator(), Look(), 4), "none")
    assert work.swap(home / "clip.mp4", home / "never.mp4")["out"] is None
    assert sum(seen) == FRAMES
    assert max(seen) == 4


def test_the_mask_takes_every_point_that_is_known(home):
    """With 68 landmarks the hull is theirs, with five it is estimated; the crop is the same."""
    film = clip(2, 5, 1, SIDE)
    points = film.landmarks[0].double().numpy()
    few, many = (Face((0, 0, 1, 1), five(points), 1.0, known) for known in (None, points))
    converter = Converter(open_net(weights(home, "same")), None, Look(feather=0, erosion=0, coverage=1.0))
    _, matrices = converter.crop(film.image.permute(0, 2, 3, 1).numpy(), [[few]])
    masks = [converter.masks([[face]], matrices)[0] for face in (few, many)]
    found = [warp_back(mask, matrices[0], 0, 0, SIDE, SIDE)[0].numpy() > 0.5 for mask in masks]
    shares = [(mask & hull(film.landmarks[0])).sum() / (mask | hull(film.landmarks[0])).sum() for mask in found]
    assert shares[1] > 0.96 > shares[0] > 0.75


# A folder


def test_a_folder_becomes_a_folder(home, tmp_path):
    source, out = tmp_path / "in", tmp_path / "out"
    (source / "sub").mkdir(parents=True)
    faces = render(4, [1, 2], 160).image.permute(0, 2, 3, 1).numpy()
    Image.fromarray(faces[0]).save(source / "a.png")
    Image.fromarray(faces[1]).save(source / "sub" / "b.jpg", quality=95)
    Image.fromarray(read(home / "wall.png")).save(source / "c.bmp")
    (source / "d.png").write_bytes((source / "a.png").read_bytes()[:900])
    os.mkfifo(source / "e.png")
    (source / "f.jpg").write_bytes((home / "clip.mp4").read_bytes())
    (source / "consent.yaml").write_text("who: nobody\nsource: drawn by the lab\npermission: anything\n")
    printed, warned = arena(weights(home, "paint"), source, out, "--json")
    found = json.loads(printed)
    assert (found["frames"], found["faces"], found["without_face"], len(found["unreadable"])) == (3, 2, 1, 3)
    assert any(text.startswith("d.png: truncated") for text in found["unreadable"])
    assert any(text.startswith("e.png: is no regular file") for text in found["unreadable"])
    assert sorted(p.relative_to(out).as_posix() for p in out.rglob("*.png")) == ["a.png", "c.png", "sub/b.png"]
    assert np.array_equal(read(out / "c.png"), read(home / "wall.png"))  # passed through
    assert "Synthetic" not in Image.open(out / "c.png").text
    assert not np.array_equal(read(out / "a.png"), faces[0])
    consent = "who: nobody; source: drawn by the lab; permission: anything"
    assert Image.open(out / "sub" / "b.png").text["Consent"] == consent
    assert "not stated" not in warned
    rows = {row["source"]["name"]: row for row in map(json.loads, (out / "manifest.jsonl").read_text().splitlines())}
    assert rows.keys() == {"a.png", "sub/b.jpg", "c.bmp"}
    assert rows["a.png"]["consent"] == consent
    assert rows["c.bmp"]["synthetic"] is None

    before = {p: p.read_bytes() for p in out.rglob("*") if p.is_file()}
    _, message = arena(weights(home, "paint"), source, out, code=2)
    assert "nothing is overwritten" in message
    assert before == {p: p.read_bytes() for p in out.rglob("*") if p.is_file()}


# Consent


def test_without_consent_it_says_so(home, tmp_path):
    out, warned = arena(weights(home, "paint"), home / "face.png", tmp_path / "a.png")
    assert "consent: not stated" in out
    assert "consent: not stated" in warned
    assert Image.open(tmp_path / "a.png").text["Consent"] == "not stated"


def test_consent_is_looked_for_beside_input_and_faces(home, tmp_path):
    for folder, who in (("input", "A"), ("faces/trainB", "B")):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "consent.yaml").write_text(f"who: {who}\nsource: drawn\npermission: yes, in writing\n")
    (tmp_path / "input" / "face.png").write_bytes((home / "face.png").read_bytes())
    (tmp_path / "Same.yaml").write_bytes((home / "Same.yaml").read_bytes())
    run = planted_run(tmp_path / "run", "Same", source=str(tmp_path / "faces"))
    out, warned = arena(run, tmp_path / "input" / "face.png", tmp_path / "a.png", "--coverage", 1.2)
    assert "who: A; source: drawn; permission: yes, in writing | who: B;" in out
    assert not warned


def test_the_coverage_is_that_of_the_faces_in_training(home, tmp_path):
    (tmp_path / "faces" / "train" / "B").mkdir(parents=True)
    (tmp_path / "Same.yaml").write_bytes((home / "Same.yaml").read_bytes())
    data = open_net(planted_run(tmp_path / "run", "Same", source=str(tmp_path / "faces"))).data
    assert trained_coverage(data) == 1.0
    crop = Crop(
        file="a.png", source="a.mp4", source_sha256="0" * 64, frame=0, seconds=0, face=0, box=(0, 0, 9, 9),
        points=((1, 1), (2, 1), (1, 2), (1, 3), (2, 3)), matrix=((1, 0, 0), (0, 1, 0)), size=64, coverage=0.7, score=1,
        sharpness=1, locator="given", locator_version="0",
    )  # fmt: skip
    write(tmp_path / "faces" / "train" / "B" / "faces.jsonl", [crop])
    assert trained_coverage(data) == 0.7


@pytest.mark.parametrize(
    "text", ["who: A\nsource: B\n", "who: A\nsource: B\npermission: C\nname: D\n", "who: 3\nsource: B\npermission: C\n",
             "- A\n", "who: [\n", "who: ''\nsource: B\npermission: C\n"]
)  # fmt: skip
def test_a_consent_file_is_read_strictly(tmp_path, text):
    (tmp_path / "consent.yaml").write_text(text)
    with pytest.raises(InputError, match=r"consent\.yaml"):
        statement(None, [tmp_path])
    assert statement(" as\n agreed ", [tmp_path]) == "as agreed"
    with pytest.raises(InputError, match="empty"):
        statement("  ", [tmp_path])


def test_consent_files_are_limited_in_all(tmp_path):
    (tmp_path / "consent.yaml").write_text("".join(f"{key}: {'a' * 900}\n" for key in ("who", "source", "permission")))
    with pytest.raises(InputError, match="at most 2,000"):
        statement(None, [tmp_path])


# What is wrong with an input


@pytest.mark.parametrize(("run", "source", "out", "words", "expected"), [
    ("paint", "face.png", "a.jpg", (), r"becomes a \.png"),
    ("paint", "face.png", "face.png", (), "exists"),
    ("paint", "clip.mp4", "clip.mp4", (), "exists"),
    ("paint", "clip.mp4", "a.avi", (), r"\.mp4"),
    ("paint", "missing.png", "a.png", (), "missing.png"),
    ("paint", "points.jsonl", "a.mp4", (), "no video"),
    ("paint", "cut.mp4", "a.mp4", (), "cut short"),
    ("paint", "cut.png", "a.png", (), "truncated"),
    ("paint", "empty", "a", (), "no image"),
    ("paint", "text.png", "a.png", (), "neither"),
    ("dice", "face.png", "a.png", (), "between two people"),
    ("half", "face.png", "a.png", (), "no swap"),
    ("picky", "face.png", "a.png", (), "built for 3 x 128"),
    ("nothing", "face.png", "a.png", (), "does not exist"),
    ("paint", "face.png", "a.png", ("--feather", "-1"), "--feather"),
    ("paint", "face.png", "a.png", ("--erosion", "nan"), "--erosion"),
    ("paint", "face.png", "a.png", ("--coverage", "9"), "--coverage"),
    ("paint", "face.png", "a.png", ("--landmarks", "x"), "--locator given"),
    ("paint", "face.png", "a.png", ("--locator", "given"), "--landmarks"),
    ("paint", "face.png", "a.png", ("--locator", "yunet"), "--face-model"),
    ("paint", "face.png", "a.png", ("--device", "tpu"), "--device"),
])  # fmt: skip
def test_mistakes_are_answered_in_one_line(home, tmp_path, monkeypatch, run, source, out, words, expected):
    monkeypatch.delenv("ARENA_FACE_MODEL", raising=False)
    for name in ("face.png", "wall.png", "clip.mp4", "points.jsonl"):
        (tmp_path / name).write_bytes((home / name).read_bytes())
    (tmp_path / "cut.mp4").write_bytes((home / "clip.mp4").read_bytes()[:4000])
    (tmp_path / "cut.png").write_bytes((home / "face.png").read_bytes()[:4000])
    (tmp_path / "text.png").write_text("not a picture")
    (tmp_path / "empty").mkdir()
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    where = weights(home, run) if run != "nothing" else tmp_path / "nothing"
    _, message = arena(where, tmp_path / source, tmp_path / out, *words, code=2)
    errors = [line for line in message.splitlines() if "consent" not in line]
    assert len(errors) == 1
    assert re.search(expected, errors[0]), errors[0]
    assert before == {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}


def test_help_names_every_option():
    shown = CliRunner().invoke(swap, ["--help"]).output
    assert "Examples:" in shown
    for option in swap.params:
        if isinstance(option, click.Option):
            assert option.opts[0] in shown
            assert option.help


def test_an_image_without_a_face_is_a_no(home, tmp_path):
    _, warned = arena(weights(home, "paint"), home / "wall.png", tmp_path / "a.png", code=1)
    assert "no face was found" in warned
    words = ("--locator", "given", "--landmarks", home / "points.jsonl")
    _, warned = arena(weights(home, "paint"), home / "wall.png", tmp_path / "a.png", *words, code=1)
    assert "points.jsonl has no usable line for wall.png" in warned
    assert not [*tmp_path.iterdir()]


def test_names_that_would_clash_are_kept_apart(home, tmp_path):
    both = tmp_path / "both"
    both.mkdir()
    picture = Image.open(home / "wall.png")
    picture.save(both / "a.png")
    picture.convert("RGB").save(both / "a.jpg")
    arena(weights(home, "paint"), both, tmp_path / "out", code=1)
    assert {file.name for file in (tmp_path / "out").glob("*.png")} == {"a.png", "a.png.png"}


def test_what_would_block_or_flood_is_refused(home, tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(InputError, match="no regular file"):
        kind(tmp_path / "pipe.png")
    with pytest.raises(InputError, match="characters"):
        statement("a" * 3000, [])
    points = np.array([[1e300, 0.0], [2, 0], [1, 1], [0, 2], [2, 2]]).tolist()
    for far in (points, np.array([[1e9, 0.0], [2, 0], [1, 1], [0, 2], [2, 2]]).tolist()):
        (tmp_path / "far.jsonl").write_text(json.dumps({"source": "a.png", "points": far}))
        with pytest.raises(InputError, match="line 1"):
            Given(tmp_path / "far.jsonl")
    outside = (np.array([[0.0, 0], [20, 0], [10, 10], [0, 20], [20, 20]]) + 9000).tolist()
    (tmp_path / "outside.jsonl").write_text(json.dumps({"source": "a.png", "points": outside}))
    frame = np.zeros((100, 100, 3), np.uint8)
    converter = Converter(open_net(weights(home, "same")), Given(tmp_path / "outside.jsonl"), Look(), 1)
    assert converter.locate([frame], [("a.png", 0)]) == [[]]
