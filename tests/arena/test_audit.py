"""Planted leaks are found, named and cured; clean data stay silent."""

import io
import json
import re
from fractions import Fraction

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from arena.audit import Looks, audit
from arena.audit_command import audit as command
from arena.audit_files import read
from arena.cli import Commands
from arena.data.faces import render

N = 100


@pytest.fixture(scope="module")
def faces():
    """Faces of 72 px as nobody's camera has stored them, uint8 N 72 72 3."""
    return render(5, range(2 * N), 72, camera=False).image.permute(0, 2, 3, 1).numpy()


def jpeg(image, quality=90, **keywords):
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality, **keywords)
    return file.getvalue()


def png(image, **keywords):
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG", **keywords)
    return file.getvalue()


def decoded(data):
    return np.asarray(Image.open(io.BytesIO(data)))


def write(folder, images, code, suffix):
    folder.mkdir(parents=True, exist_ok=True)
    for i, image in enumerate(images):
        (folder / f"{i:04d}.{suffix}").write_bytes(code(image))
    return folder


def run(*words):
    """(exit code, what was printed as JSON) of `arena audit`, or what was said where that is no JSON."""
    group = Commands("arena")
    group.add_command(command)
    result = CliRunner().invoke(group, ["audit", *map(str, words)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    try:
        return result.exit_code, json.loads(result.stdout)
    except ValueError:
        return result.exit_code, result.output


def exif():
    found = Image.Exif()
    found[0x010F] = "Camera"
    return found


PLANTS = {
    "JPEG quality": (lambda x: jpeg(x, 95), lambda x: jpeg(x, 75), "jpg jpg", "fakes are jpeg 75, reals are jpeg 95"),
    "format": (jpeg, png, "jpg png", "fakes are PNG, reals are JPEG"),
    "dimensions": (png, lambda x: png(x[:70]), "png png", "height 70"),
    "metadata": (lambda x: jpeg(x, exif=exif()), jpeg, "jpg jpg", "EXIF"),
    "JPEG coding": (jpeg, lambda x: jpeg(x, subsampling=0), "jpg jpg", "fakes are"),
    "colour mode": (png, lambda x: png(np.dstack([x, np.full(x.shape[:2], 255, np.uint8)])), "png png", "RGBA"),
    "writer": (jpeg, lambda x: jpeg(x, optimize=True), "jpg jpg", "huffman optimised"),
    "8x8 grid": (png, lambda x: png(decoded(jpeg(x, 80))), "png png", "fakes have blocks from (0, 0)"),
}


@pytest.mark.parametrize("name", PLANTS)
def test_a_planted_leak_is_found_and_named_first(faces, tmp_path, name):
    code_real, code_fake, suffixes, said = PLANTS[name]
    real = write(tmp_path / "real", faces[:N], code_real, suffixes.split()[0])
    fake = write(tmp_path / "fake", faces[N:], code_fake, suffixes.split()[1])
    code, found = run("--real", real, "--fake", fake, "--json")
    assert code == 1
    assert found["leak"]
    assert name in found["stops"]
    assert found["findings"][0]["name"] == name
    assert found["verdict"].startswith(f"leak: {name} alone tells fakes from reals, AUC ")
    assert said in found["verdict"]
    assert "--equalise" in found["findings"][0]["remedy"]
    row = next(row for row in found["container"] if row["name"] == name)
    assert row["low"] > 0.6
    assert row["auc"] > 0.9


def test_a_grid_that_a_crop_has_moved_is_found_in_png(faces, tmp_path):
    blocky = [decoded(jpeg(image, 80)) for image in faces]
    real = write(tmp_path / "real", [image[:64, :64] for image in blocky[:N]], png, "png")
    fake = write(tmp_path / "fake", [image[3:67, 5:69] for image in blocky[N:]], png, "png")
    code, found = run("--real", real, "--fake", fake, "--json")
    assert code == 1
    assert found["stops"][0] == "8x8 grid"
    assert "fakes have blocks from (3, 5)" in found["verdict"]  # column 8 - 5, row 8 - 3
    assert "reals have blocks from (0, 0)" in found["verdict"]


@pytest.mark.parametrize("name", ["JPEG quality", "format", "dimensions", "metadata"])
def test_equalise_cures_it_and_marks_the_fakes(faces, tmp_path, name):
    code_real, code_fake, suffixes, _ = PLANTS[name]
    real = write(tmp_path / "real", faces[:N], code_real, suffixes.split()[0])
    fake = write(tmp_path / "fake", faces[N:], code_fake, suffixes.split()[1])
    code, found = run("--real", real, "--fake", fake, "--equalise", tmp_path / "even", "--json")
    assert found["leak"]
    assert not found["after"]["leak"], found["after"]["verdict"]
    assert code == 0
    files = {word: sorted((tmp_path / "even" / word).iterdir()) for word in ("real", "fake")}
    assert [len(some) for some in files.values()] == [N, N]
    looks = [[Image.open(file) for file in some] for some in files.values()]
    assert len({(image.format, image.size, image.mode) for some in looks for image in some}) == 1
    assert all(b"trainedAlgorithmicMedia" in file.read_bytes() for file in files["fake"])
    assert not any(b"Synthetic" in file.read_bytes() for file in files["real"])
    lossless = "jpg" not in suffixes
    assert found["equalised"]["codec"] == ("png" if lossless else f"jpeg-{75 if name == 'JPEG quality' else 90}")
    rows = [json.loads(line) for line in (tmp_path / "even" / "manifest.jsonl").read_text().splitlines()]
    assert sum(row["synthetic"] is True for row in rows) == N
    code, said = run("--real", real, "--fake", fake, "--equalise", tmp_path / "even")
    assert code == 2
    assert "new folder" in said


def test_marks_of_synthetic_files_are_no_leak_and_are_kept(faces, tmp_path):
    from arena.pictures import png as marked

    real = write(tmp_path / "real", faces[:N], png, "png")
    marks = {"Synthetic": "true", "Method": "cyclegan", "Run": "one"}
    fake = write(tmp_path / "fake", faces[N:], lambda x: marked(x, marks), "png")
    options = ["--equalise", tmp_path / "even", "--codec", "jpeg-90", "--json"]
    code, found = run("--real", real, "--fake", fake, *options)
    assert not found["leak"], found["verdict"]
    assert code == 0
    for some in (found, found["after"]):
        length = next(row for row in some["baselines"] if row["name"] == "file size")
        assert length["low"] < 0.5 < length["high"]  # the mark's own bytes are not counted
    comment = Image.open(tmp_path / "even" / "fake" / "0000.jpg").info["comment"]
    assert comment.decode().splitlines() == ["Synthetic: true", "Method: cyclegan", "Run: one"]


def test_what_equalising_cannot_cure_is_seen(faces, tmp_path):
    """A grid that lies elsewhere in one class survives PNG: the second audit says so."""
    blocky = [decoded(jpeg(image, 70)) for image in faces]
    real = write(tmp_path / "real", [image[:64, :64] for image in blocky[:N]], lambda x: jpeg(x, 95), "jpg")
    fake = write(tmp_path / "fake", [image[3:67, 5:69] for image in blocky[N:]], png, "png")
    options = ["--equalise", tmp_path / "even", "--codec", "png", "--json"]
    code, found = run("--real", real, "--fake", fake, *options)
    assert found["findings"][0]["name"] == "format"
    assert found["after"]["stops"][0] == "8x8 grid"
    assert "cannot undo" in found["equalised"]["cannot"]
    assert "equalising did not do it" in found["after"]["verdict"]
    assert "--equalise OUT" not in found["after"]["verdict"]
    assert code == 1


def video(path, frames, rate=25, crf=18):
    from arena.faces.video import Plain, Writer

    path.parent.mkdir(parents=True, exist_ok=True)
    with Writer(path, Plain(Fraction(rate)), synthetic=None, crf=crf, preset="ultrafast") as writer:
        for i, frame in enumerate(frames):
            writer.write(frame, i / rate)


@pytest.mark.parametrize(
    ("name", "said"), [("frame rate", "frames/s 30.0"), ("codec", "crf=35"), ("bit rate", "kbit/s")]
)
def test_leaks_of_videos(faces, tmp_path, name, said):
    """Frame rate and quality as the file states it; and the bit rate of a codec that states none."""
    pytest.importorskip("av")
    for label, word in enumerate(("real", "fake")):
        for i in range(16):
            frames = [np.roll(faces[16 * label + i], shift, 0) for shift in range(6)]
            path = tmp_path / word / f"{i}.mp4"
            if name == "bit rate":
                plain_mpeg4(path, frames, 3 if label else 12)
            else:
                changed = {"frame rate": {"rate": 30}, "codec": {"crf": 35}}[name] if label else {}
                video(path, frames, **changed)
    words = ["--real", tmp_path / "real", "--fake", tmp_path / "fake", "--json"]
    code, found = run(*words)
    assert code == 1
    assert name in found["stops"]
    assert said in next(entry for entry in found["findings"] if entry.get("name") == name)["text"]
    code, found = run(*words, "--equalise", tmp_path / "even")
    left = ["8x8 grid"] if name == "bit rate" else []  # coarse MPEG-4 blocks stay in the pixels, and are seen there
    assert (code, found["after"]["stops"]) == (bool(left), left)


def plain_mpeg4(path, frames, step):
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as out:
        stream = out.add_stream("mpeg4", rate=25, options={"qmin": str(step), "qmax": str(step)})
        stream.width, stream.height, stream.pix_fmt = 72, 72, "yuv420p"
        for frame in frames:
            out.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        out.mux(stream.encode(None))


def test_duplicates_look_alikes_and_torn_sources(faces, tmp_path):
    """Planted: the same bytes in train and test, the same pixels in both classes, an edited copy, a torn clip."""
    from PIL import ImageEnhance

    for word, some in (("real", faces[:N]), ("fake", faces[N:])):
        write(tmp_path / word / "train", some[:70], png, "png")
        write(tmp_path / word / "test", some[70:], png, "png")
    for i in range(3):
        (tmp_path / "real" / "test" / f"copy{i}.png").write_bytes(
            (tmp_path / "real/train" / f"000{i}.png").read_bytes()
        )
        (tmp_path / "fake" / "train" / f"same{i}.png").write_bytes(png(faces[i + 10], compress_level=1))
    for i in range(6):
        edited = ImageEnhance.Brightness(Image.fromarray(faces[i + 20])).enhance(1.15)
        (tmp_path / "real" / "test" / f"edited{i}.png").write_bytes(png(np.asarray(edited)))
    code, found = run("--real", tmp_path / "real", "--fake", tmp_path / "fake", "--json", "--group", "none")
    by_name = {(entry["what"], entry.get("name")): entry for entry in found["findings"]}
    copies = by_name["duplicates", "bytes, splits"]
    assert (copies["count"], copies["severity"]) == (3, "leak")
    assert all(re.fullmatch(r"real/train/000\d.png = real/test/copy\d.png", text) for text in copies["examples"])
    assert by_name["duplicates", "pixels, classes"]["count"] == 3
    alike = by_name["near-duplicates", "splits"]
    assert alike["severity"] == "warning"
    assert sum("edited" in text for text in alike["examples"]) >= 4
    assert code == 1
    _, found = run("--real", tmp_path / "real", "--fake", tmp_path / "fake", "--json", "--group", r"prefix:(\d)")
    assert any(entry["what"] == "sources" for entry in found["findings"])


def clean_looks(images, seed, features):
    """Two halves of images, as `read` would see them, without the detour over files."""
    order = np.random.default_rng(seed).permutation(len(images))
    profile, coarse, colour, spectrum = (some[order] for some in features)
    return Looks(
        [str(i) for i in order], np.arange(len(order)) % 2 == 1, [str(i) for i in order], [""] * len(order),
        [{"format": "PNG", "width": int(50 + i % 7), "height": 72, "bytes": int(i)} for i in order],
        profile=profile, coarse=coarse, colour=colour, spectrum=spectrum,
        small=images[order].transpose(0, 3, 1, 2)[..., ::2, ::2] if seed < 3 else None,
    )  # fmt: skip


def features_of(images):
    from arena.metrics import leak

    some = images.transpose(0, 3, 1, 2)
    return leak.edges(some), leak.edges(some, 16), leak.colour(some), leak.spectrum(some)


@pytest.mark.parametrize("camera", [False, True])
def test_clean_data_are_silent_in_twenty_seeds(camera):
    """Two halves of one set, with and without a JPEG in its past: no leak, no look-alikes, baselines at chance."""
    images = render(9, range(2 * N), 72, camera=camera).image.permute(0, 2, 3, 1).numpy()
    features, lows, baselines = features_of(images), [], []
    for seed in range(20):
        found = audit(clean_looks(images, seed, features))
        assert not found["leak"], found["verdict"]
        assert not found["findings"], found["findings"]
        assert found["verdict"].startswith("no leak")
        lows += [row["low"] for row in found["container"]]
        baselines += [row["auc"] for row in found["baselines"]]
    assert np.mean(np.array(lows) > 0.5) <= 0.025
    assert abs(np.mean(baselines) - 0.5) < 0.04


def test_intervals_know_how_many_were_tried():
    images = render(9, range(80), 72, camera=False).image.permute(0, 2, 3, 1).numpy()
    looks = clean_looks(images, 3, features_of(images))
    few = audit(looks)
    for i, header in enumerate(looks.headers):
        header |= {"jpeg": i % 5, "frames": i % 3, "mode": "RL"[i % 3 == 0]}
    many = audit(looks)
    assert many["tried"] > few["tried"] + 2
    width = [
        next(row["high"] - row["low"] for row in found["container"] if row["name"] == "dimensions")
        for found in (few, many)
    ]
    assert width[1] > width[0]


def test_length_is_no_leak_where_it_follows_from_the_pixels(faces, tmp_path):
    """Smooth fakes make short files; only where a file does not say how strongly it is compressed, length may stop."""
    smooth = [np.asarray(Image.fromarray(image).resize((36, 36)).resize((72, 72))) for image in faces[N:]]
    real = write(tmp_path / "real", faces[:N], png, "png")
    code, found = run("--real", real, "--fake", write(tmp_path / "fake", smooth, png, "png"), "--json")
    assert (code, found["stops"]) == (0, [])
    length = next(row for row in found["baselines"] if row["name"] == "file size")
    assert length["low"] > 0.75

    def webp(quality):
        def code(image):
            file = io.BytesIO()
            Image.fromarray(image).save(file, "WEBP", quality=quality)
            return file.getvalue()

        return code

    real = write(tmp_path / "soft", faces[:N], webp(90), "webp")
    code, found = run("--real", real, "--fake", write(tmp_path / "hard", faces[N:], webp(40), "webp"), "--json")
    assert code == 1
    assert "file size" in found["stops"]


def test_page_table_and_wrong_words(faces, tmp_path):
    real = write(tmp_path / "real", faces[:20], png, "png")
    fake = write(tmp_path / "fake", faces[20:40], jpeg, "jpg")
    code, said = run("--real", real, "--fake", fake, "--out", tmp_path / "out")
    assert code == 1
    assert "leak: format alone tells fakes from reals" in said
    page = (tmp_path / "out" / "audit.html").read_text()
    assert "Is the label leaking?" in page
    assert not re.search(r"https?://|<script|src=", page)
    assert json.loads((tmp_path / "out" / "audit.json").read_text())["leak"]
    for words in ([], ["--real", real], [tmp_path], ["--real", real, "--fake", fake, "--size", 64],
                  ["--real", real, "--fake", fake, "--equalise", tmp_path / "e", "--codec", "gif"],
                  ["--real", real, "--fake", tmp_path / "out"]):  # fmt: skip
        code, said = run(*words)
        assert code == 2, said
        assert said.startswith("arena: ")
    assert not (tmp_path / "e").exists()


def test_two_files_give_no_verdict(faces, tmp_path):
    real = write(tmp_path / "real", faces[:1], png, "png")
    code, found = run("--real", real, "--fake", write(tmp_path / "fake", faces[1:3], jpeg, "jpg"), "--json")
    assert code == 0
    assert found["verdict"].startswith("no verdict")


def test_real_data(real_data):
    """CIFAKE's files are alike from outside (JPEG 75, 32 px); their pixels are told apart, which is no container's."""
    folder = real_data / "cifake_10k"
    files = read([str(folder / "real")], [str(folder / "fake")], most=400)
    found = audit(files.looks)
    assert not found["leak"]
    by_name = {row["name"]: row for row in found["container"] + found["baselines"]}
    assert not by_name["JPEG quality"]["tried"]
    assert by_name["spectrum"]["low"] > 0.7
    assert found["grids"]["real"]["present"]
    assert found["grids"]["fake"]["present"]
