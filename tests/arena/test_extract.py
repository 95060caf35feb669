"""Extraction: the mathematics of alignment, the locators, the sidecar, and whole extractions of rendered faces."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

pytest.importorskip("av")
cv2 = pytest.importorskip("cv2")

from arena.data import faces as rendered  # noqa: E402
from arena.data.folders import scan  # noqa: E402
from arena.errors import InputError  # noqa: E402
from arena.faces import align, sidecar  # noqa: E402
from arena.faces.extract import Settings, extract, sharpness  # noqa: E402
from arena.faces.extract_command import extract as command  # noqa: E402
from arena.faces.locate import Given, YuNet, five, locator  # noqa: E402
from arena.faces.video import Plain, Writer, open_video  # noqa: E402
from arena.pictures import png  # noqa: E402

RNG = np.random.default_rng(0)


# Alignment


def test_the_similarity_is_umeyama_s():
    """Against the singular value decomposition of Umeyama's paper, and OpenCV's own estimate."""
    target = align.template(96)
    points = torch.from_numpy(RNG.uniform(0, 200, (8, 5, 2)))
    points[0] = align.move(torch.tensor([[[0.3, -1.2, 40.0], [1.2, 0.3, 5.0]]], dtype=torch.float64), target[None])[0]
    matrices = align.similarity(points, target)
    for found, p in zip(matrices.numpy(), points.numpy(), strict=True):
        q = target.numpy()
        a, b = p - p.mean(0), q - q.mean(0)
        u, d, vt = np.linalg.svd(b.T @ a / 5)
        signs = np.array([1, np.sign(np.linalg.det(u) * np.linalg.det(vt))])
        turn = u @ np.diag(signs) @ vt * (d * signs).sum() / a.var(0).sum()
        assert found[:, :2] == pytest.approx(turn, abs=1e-9)
        assert found[:, 2] == pytest.approx(q.mean(0) - turn @ p.mean(0), abs=1e-7)
    reference, _ = cv2.estimateAffinePartial2D(points[0].numpy(), target.numpy())
    assert matrices[0].numpy() == pytest.approx(reference, abs=1e-4)
    assert align.move(matrices[:1], points[:1])[0].numpy() == pytest.approx(target.numpy(), abs=1e-9)


def test_there_and_back_again():
    matrices = align.similarity(torch.from_numpy(RNG.uniform(0, 200, (4, 5, 2))), align.template(64))
    places = torch.from_numpy(RNG.uniform(0, 64, (4, 7, 2)))
    again = align.move(matrices, align.move(align.invert(matrices), places))
    assert again.numpy() == pytest.approx(places.numpy(), abs=1e-8)


def test_coverage_scales_the_face_about_the_middle():
    near, far = align.template(100, 1.0) - 50, align.template(100, 2.0) - 50
    assert near.numpy() == pytest.approx(2 * far.numpy())
    assert (align.template(100, 0.7) > 0).all()
    assert (align.template(100, 0.7) < 100).all()


@pytest.mark.parametrize(("zoom", "turn"), [(0.23, 0.4), (0.7, -0.3), (1.0, 0.0), (2.6, 2.0)])
def test_a_crop_s_pixels_show_what_the_matrix_says(zoom, turn):
    """A picture that is a known function of place: crop pixel (u, v) must show its value at M^-1 (u + 0.5, v + 0.5)."""

    def value(x, y):
        return torch.stack([0.8 * x + 20, 0.9 * y + 10, 128 + 40 * torch.sin(x / 40) * torch.cos(y / 55)])

    y, x = torch.meshgrid(torch.arange(160) + 0.5, torch.arange(240) + 0.5, indexing="ij")
    size = 32
    c, s = zoom * np.cos(turn), zoom * np.sin(turn)
    matrix = torch.tensor([[[c, -s, 16 - c * 118.3 + s * 81.1], [s, c, 16 - s * 118.3 - c * 81.1]]])
    crop = align.crop(value(x, y)[None], matrix, size)[0]
    v, u = torch.meshgrid(torch.arange(size) + 0.5, torch.arange(size) + 0.5, indexing="ij")
    back = align.move(align.invert(matrix), torch.stack([u, v], -1).reshape(1, -1, 2).double())[0]
    inside = (back[:, 0] > 3) & (back[:, 0] < 237) & (back[:, 1] > 3) & (back[:, 1] < 157)
    expected = value(*back.T).float()
    assert inside.sum() > 500
    assert (crop.reshape(3, -1) - expected)[:, inside].abs().max() < 0.1


def test_a_reduced_crop_does_not_alias():
    """A chessboard of single pixels is grey from afar; every second sample of it would be black or white."""
    board = ((torch.arange(200)[:, None] + torch.arange(200)) % 2 * 255.0).expand(1, 3, 200, 200)
    matrix = torch.tensor([[[0.25, 0.0, 0.1], [0.0, 0.25, 0.1]]])
    assert (align.crop(board, matrix, 40)[:, :, 4:-4, 4:-4] - 127.5).abs().max() < 3


def test_crops_name_their_frames_and_go_on_beyond_the_edge():
    frames = torch.stack([torch.full((3, 20, 30), 10), torch.full((3, 20, 30), 200)]).to(torch.uint8)
    matrix = torch.tensor([[[1.0, 0.0, 8.0], [0.0, 1.0, 8.0]]]).expand(3, 2, 3)
    crops = align.crop(frames, matrix, 16, torch.tensor([1, 0, 1]))
    assert crops.mean((1, 2, 3)).tolist() == pytest.approx([200, 10, 200])


def test_sharpness_falls_with_blur_and_not_with_contrast():
    picture = torch.from_numpy(RNG.uniform(0, 255, (3, 64, 64)).astype(np.float32))
    soft = torch.nn.functional.avg_pool2d(picture[None], 5, 1, 2)[0]
    # White noise: the filter's sum of squares, 16 + 4
    assert sharpness(picture) == pytest.approx(20, rel=0.1)
    assert sharpness(picture / 3 + 40) == pytest.approx(sharpness(picture), rel=1e-3)
    assert sharpness(soft) < 0.3 * sharpness(picture)
    assert sharpness(torch.full((3, 64, 64), 9.0)) == 0


# Locators


def scene(face: torch.Tensor, left: int, top: int, height=200, width=260) -> np.ndarray:
    picture = np.full((height, width, 3), 120, np.uint8)
    picture[top : top + face.shape[-2], left : left + face.shape[-1]] = face.permute(1, 2, 0).numpy()
    return picture


@pytest.fixture(scope="module")
def mtcnn():
    pytest.importorskip("facenet_pytorch")
    return locator("mtcnn", smallest=24)


def test_mtcnn_finds_rendered_faces_where_they_are(mtcnn):
    faces = rendered.render(3, range(8), 128)
    frames = [scene(face, 30 + 10 * n, 20) for n, face in enumerate(faces.image[:6])]
    frames += [
        scene(faces.image[6], 0, 0, 128, 128),
        np.full((200, 260, 3), 90, np.uint8),
        np.zeros((9, 9, 3), np.uint8),
    ]
    both = scene(faces.image[7], 20, 30)
    both[30:158, 140:260] = faces.image[5].permute(1, 2, 0).numpy()[:, 4:124]
    found = mtcnn([*frames, both])
    assert [len(f) > 0 for f in found] == [True] * 7 + [False] * 2 + [True]
    assert len(found[-1]) == 2
    for n in range(6):
        points = five(faces.landmarks[n].numpy()) + np.array([30 + 10 * n, 20])
        eyes = np.linalg.norm(points[1] - points[0])
        assert np.linalg.norm(found[n][0].points - points, axis=1).mean() < 0.2 * eyes
        assert found[n][0].score > 0.9
    assert found[-1][0].area >= found[-1][1].area


def test_yunet_wants_its_model(tmp_path, monkeypatch):
    monkeypatch.delenv("ARENA_FACE_MODEL", raising=False)
    with pytest.raises(InputError, match="--face-model PATH or set ARENA_FACE_MODEL"):
        locator("yunet")
    with pytest.raises(InputError, match="no model file at"):
        locator("yunet", model=tmp_path / "none.onnx")
    (tmp_path / "bad.onnx").write_bytes(b"no model at all")
    with pytest.raises(InputError, match="no YuNet model"):
        locator("yunet", model=tmp_path / "bad.onnx")


def test_yunet_s_rows_become_faces(tmp_path, monkeypatch):
    """OpenCV's documented row: x, y, width, height, five points from the picture's left eye on, score."""
    seen = {}

    class Net:
        def setInputSize(self, size):
            seen["size"] = size

        def detect(self, picture):
            seen["blue"] = picture[0, 0].tolist()
            points = [60, 50, 90, 50, 75, 70, 62, 85, 88, 85]
            small = [5, 5, 20, 20, 10, 10, 20, 10, 15, 15, 11, 20, 19, 20, 0.8]
            return 1, np.array([small, [40, 30, 70, 80, *points, 0.93]], np.float32)

    monkeypatch.setattr(cv2.FaceDetectorYN, "create", lambda *_: Net())
    (tmp_path / "model.onnx").write_bytes(b"weights")
    frame = np.zeros((120, 160, 3), np.uint8)
    frame[..., 2] = 7
    (faces,) = YuNet(tmp_path / "model.onnx")([frame])
    assert (seen["size"], seen["blue"]) == ((160, 120), [7, 0, 0])
    assert [face.score for face in faces] == pytest.approx([0.93, 0.8])
    assert faces[0].box == (40, 30, 110, 110)
    assert faces[0].points.tolist() == [[60, 50], [90, 50], [75, 70], [62, 85], [88, 85]]


def test_given_points_are_used_and_checked(tmp_path):
    file = tmp_path / "points.jsonl"
    truth = rendered.render(1, [0], 64).landmarks[0].numpy()
    points = five(truth)
    rows = [{"source": "a.png", "points": truth.tolist()}, {"source": "b.mp4", "frame": 3, "points": points.tolist()}]
    file.write_text("\n".join(json.dumps(row) for row in rows) + "\n\n")
    given = locator("given", landmarks=file)
    frames = [np.zeros((64, 64, 3), np.uint8)] * 3
    found = given(frames, [("a.png", 0), ("b.mp4", 3), ("b.mp4", 4)])
    assert [len(faces) for faces in found] == [1, 1, 0]
    assert found[0][0].points == pytest.approx(points)
    assert points[:2, 0].tolist() == pytest.approx([truth[36:42, 0].mean(), truth[42:48, 0].mean()])
    for bad in (
        '{"source": "a", "points": [[1, 2]]}', "[]", "3", "{", '{"points": []}', "[" * 60000,
        '{"source": "a", "points": [[NaN, 1], [2, 2], [3, 3], [4, 4], [5, 5]]}',
        '{"source": "a", "frame": "0", "points": [[1, 1], [9, 2], [3, 3], [4, 4], [5, 5]]}', "x" * 70000,
    ):  # fmt: skip
        file.write_text('{"source": "a", "points": [[1, 1], [9, 2], [3, 3], [4, 4], [5, 5]]}\n' + bad)
        with pytest.raises(InputError, match="line 2") as caught:
            Given(file)
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="--landmarks FILE"):
        locator("given")
    with pytest.raises(InputError, match="unknown locator"):
        locator("dlib")


# The sidecar


def crop_row(**changes):
    row = {
        "file": "a-f000001-0.png", "source": "clips/a.mp4", "source_sha256": "0" * 64, "frame": 1, "seconds": 0.04,
        "face": 0, "box": [1, 2, 30, 40], "points": [[5, 6], [15, 6], [10, 12], [6, 18], [14, 18]],
        "matrix": [[2, 0, 1], [0, 2, 1]], "size": 64, "coverage": 1.0, "score": 0.9, "sharpness": 0.1,
        "locator": "mtcnn", "locator_version": "1",
    }  # fmt: skip
    return row | changes


def test_the_sidecar_reads_what_it_wrote_and_nothing_hostile(tmp_path):
    path = tmp_path / "faces.jsonl"
    crops = [sidecar.Crop(**crop_row()), sidecar.Crop(**crop_row(file="ü ä.png", frame=2))]
    sidecar.write(path, crops)
    assert list(sidecar.read(tmp_path)) == crops
    hostile = [
        crop_row(file="../../etc/passwd"), crop_row(file="/etc/passwd"), crop_row(file="..\\x"), crop_row(file=""),
        crop_row(file=".hidden"), crop_row(file="a\0b"), crop_row(matrix=[[0, 0, 0], [0, 0, 0]]), crop_row(frame=-1),
        crop_row(matrix=[[1, 2], [3, 4]]), crop_row(size=10**9), crop_row(points=[[1, 2]] * 68), crop_row(more=1),
        crop_row(source_sha256="zz"), crop_row(sharpness=float("nan")), crop_row(box=[0, 0, float("inf"), 1]), [], 3,
    ]  # fmt: skip
    for row in hostile:
        path.write_text(json.dumps(crop_row()) + "\n" + json.dumps(row) + "\n")
        with pytest.raises(InputError, match=r"line 2") as caught:
            list(sidecar.read(path))
        assert "\n" not in str(caught.value)
    for text in ("[" * 10000, "{" * 100, "x" * 20000, "\xff", '{"file":'):
        path.write_text(text)
        with pytest.raises(InputError, match=r"line 1"):
            list(sidecar.read(path))
    with pytest.raises(InputError, match="cannot read"):
        list(sidecar.read(tmp_path / "none.jsonl"))


# Whole extractions, with the renderer's own landmarks


def film(path: Path, index: int, frames: int = 6, size: int = 96, fps: float = 5, synthetic="true") -> list[dict]:
    """A rendered clip as a video; returns the lines of points that the renderer knows."""
    clip = rendered.clip(11, index, frames, size, identities=50, fps=fps)
    with Writer(path, Plain(), synthetic=synthetic, crf=12) as writer:
        for k, image in enumerate(clip.image):
            writer.write(image.permute(1, 2, 0).numpy(), k / 25)
    return [{"source": path.name, "frame": k, "points": points} for k, points in enumerate(clip.landmarks.tolist())]


@pytest.fixture
def clips(tmp_path):
    """Five clips of five people in a folder, and a locator that knows where their faces are."""
    folder = tmp_path / "clips"
    folder.mkdir()
    rows = [row for k in range(5) for row in film(folder / f"take {k}_b.mp4", k)]
    (tmp_path / "points.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    return folder, Given(tmp_path / "points.jsonl")


SMALL = Settings(size=32, keep_duplicates=True)


def test_crops_and_sidecar_agree_with_the_source(clips, tmp_path):
    folder, given = clips
    found = extract([folder], tmp_path / "out", given, SMALL, batch_size=4)
    assert found["complete"]
    assert {k: v for k, v in found["counts"].items() if v} == {"sources": 5, "frames": 30, "crops": 30}
    rows = list(sidecar.read(tmp_path / "out"))
    assert sorted(row.file for row in rows) == sorted(p.name for p in (tmp_path / "out").glob("*.png"))
    frames = {(v.name, f.number): f for v in folder.iterdir() for f in open_video(v)}
    for row in rows[::4]:
        frame = frames[row.source, row.frame]
        assert row.seconds == frame.seconds
        matrix = torch.tensor(row.matrix, dtype=torch.float64)[None]
        points = torch.tensor(row.points, dtype=torch.float64)[None]
        # The crop is the frame under the stored matrix, and that brings the points near the template
        again = align.crop(torch.from_numpy(frame.image).permute(2, 0, 1)[None], matrix, 32)[0]
        stored = np.asarray(Image.open(tmp_path / "out" / row.file)).transpose(2, 0, 1)
        assert np.abs(again.clamp(0, 255).numpy() - stored).max() <= 0.51
        assert (align.move(matrix, points)[0] - align.template(32)).norm(dim=1).mean() < 2.5


def test_the_frames_of_a_clip_are_one_group_of_the_data(clips, tmp_path):
    folder, given = clips
    extract([folder], tmp_path / "out", given, SMALL)
    data = scan(tmp_path / "out")
    assert data.domains == ("all",)
    assert (len(data.items), len(data.bad)) == (30, 0)
    assert {item.group for item in data.items} == {f"take~{k}~b" for k in range(5)}
    assert (tmp_path / "out" / ".extract" / "sheet.png").exists()


def test_a_killed_extraction_goes_on_to_the_same_result(clips, tmp_path):
    folder, given = clips
    extract([folder], tmp_path / "straight", given, SMALL, batch_size=4)

    def stop(done, total):
        if done >= 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        extract([folder], tmp_path / "out", given, SMALL, batch_size=4, progress=stop)
    halfway = json.loads((tmp_path / "out" / "extract.json").read_text())
    assert not halfway["complete"]
    assert 1 <= halfway["counts"]["sources"] < 5

    read = []

    class Counting:
        name, version = given.name, given.version

        def __call__(self, frames, places=None):
            read.extend(places)
            return given(frames, places)

    extract([folder], tmp_path / "out", Counting(), SMALL, batch_size=4)
    assert len(read) == 30 - halfway["counts"]["frames"]
    one, two = ({p.name: p.read_bytes() for p in (tmp_path / o).glob("*") if p.is_file()} for o in ("straight", "out"))
    assert one == two
    read.clear()
    extract([folder], tmp_path / "out", Counting(), SMALL)
    assert not read


def test_other_settings_and_strange_folders_are_refused(clips, tmp_path):
    folder, given = clips
    extract([folder / "take 0_b.mp4"], tmp_path / "out", given, SMALL)
    with pytest.raises(InputError, match=r"other settings: size 32 \(now 48\)"):
        extract([folder], tmp_path / "out", given, Settings(size=48, keep_duplicates=True))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("dear")
    with pytest.raises(InputError, match="no earlier extraction"):
        extract([folder], tmp_path / "mine", given, SMALL)
    # More inputs are welcome
    assert extract([folder], tmp_path / "out", given, SMALL)["counts"]["sources"] == 5


def test_near_copies_small_blurred_and_skipped_frames_are_counted(tmp_path):
    rows = film(tmp_path / "slow.mp4", 0, frames=8, fps=2000)
    still = [row for row in rows if row["frame"] != 7]  # in frame 7 nobody is seen
    (tmp_path / "points.jsonl").write_text("\n".join(json.dumps(row) for row in still))
    given = Given(tmp_path / "points.jsonl")

    def counts(name, **settings):
        return extract([tmp_path / "slow.mp4"], tmp_path / name, given, Settings(size=32, **settings))["counts"]

    found = counts("a")
    assert (found["frames"], found["without_face"], found["crops"], found["duplicates"]) == (8, 1, 1, 6)
    assert counts("b", keep_duplicates=True)["crops"] == 7
    assert counts("c", keep_duplicates=True, every=3)["frames"] == 3
    assert counts("d", min_size=500)["too_small"] == 7
    assert counts("e", min_sharpness=15)["blurred"] == 7


def test_size_means_hairline_to_chin_in_the_source(tmp_path):
    """A face with 20 px between the eyes is 64 px tall by the template's proportions, whatever the coverage."""
    points = (np.array(align.FACE) * 20 + 60).tolist()
    (tmp_path / "p.jsonl").write_text(json.dumps({"source": "a.png", "points": points}))
    Image.fromarray(RNG.integers(0, 255, (120, 120, 3), np.uint8)).save(tmp_path / "a.png")
    for coverage in (0.6, 1.0, 1.7):
        for least, small in ((63.9, 0), (64.1, 1)):
            settings = Settings(size=32, coverage=coverage, min_size=least)
            out = tmp_path / f"{coverage} {least}"
            assert (
                extract([tmp_path / "a.png"], out, Given(tmp_path / "p.jsonl"), settings)["counts"]["too_small"]
                == small
            )


def test_all_or_the_largest_face(tmp_path):
    def points(x, y, eyes):
        return (np.array(align.FACE) * eyes + [x, y]).tolist()

    rows = [{"source": "two.png", "points": points(50, 80, 20)}, {"source": "two.png", "points": points(150, 80, 30)}]
    (tmp_path / "p.jsonl").write_text("\n".join(map(json.dumps, rows)))
    Image.fromarray(RNG.integers(0, 255, (160, 220, 3), np.uint8)).save(tmp_path / "two.png")
    given = Given(tmp_path / "p.jsonl")
    extract([tmp_path / "two.png"], tmp_path / "one", given, Settings(size=32))
    extract([tmp_path / "two.png"], tmp_path / "both", given, Settings(size=32, largest=False))
    (one,), both = sidecar.read(tmp_path / "one"), list(sidecar.read(tmp_path / "both"))
    assert one.points[0][0] == pytest.approx(150 - 15)
    assert [row.file for row in both] == ["two-0.png", "two-1.png"]
    assert [row.points[0][0] for row in both] == pytest.approx([135, 40])


def test_bad_inputs_are_named_and_do_not_end_it(clips, tmp_path):
    folder, given = clips
    (folder / "text.mp4").write_text("no video")
    (folder / "notes.txt").write_text("left alone")
    (folder / "empty.png").write_bytes(b"")
    good = (folder / "take 0_b.mp4").read_bytes()
    (folder / "half.mp4").write_bytes(good[: len(good) // 2])
    (folder / "copy.mp4").write_bytes(good)
    os.mkfifo(folder / "pipe.png")
    found = extract([folder, folder / "take 0_b.mp4"], tmp_path / "out", given, SMALL)
    assert {bad["source"] for bad in found["bad"]} == {"text.mp4", "empty.png", "half.mp4", "pipe.png"}
    assert "no regular file" in next(bad["reason"] for bad in found["bad"] if bad["source"] == "pipe.png")
    assert all(bad["reason"] and "\n" not in bad["reason"] for bad in found["bad"])
    assert (found["counts"]["sources"], found["counts"]["copies"]) == (5, 1)

    with pytest.raises(InputError, match="none of the 1 inputs can be used"):
        extract([folder / "text.mp4"], tmp_path / "bad", given, SMALL)
    (tmp_path / "nothing").mkdir()
    with pytest.raises(InputError, match="no image or video lies in"):
        extract([tmp_path / "nothing"], tmp_path / "bad2", given, SMALL)
    with pytest.raises(InputError, match="there is no"):
        extract([tmp_path / "gone"], tmp_path / "bad3", given, SMALL)
    assert not (tmp_path / "bad2").exists()


def test_crops_below_their_own_input_folder_are_no_input(clips):
    folder, given = clips
    for _ in range(2):
        found = extract([folder], folder / "out", given, SMALL)
        assert found["counts"]["sources"] == 5


def test_a_crop_is_marked_synthetic_where_its_source_is(tmp_path):
    face = rendered.render(2, [0], 64)
    image = face.image[0].permute(1, 2, 0).numpy()
    (tmp_path / "fake.png").write_bytes(png(image, {"Synthetic": "true", "Method": "renderer"}))
    Image.fromarray(image[:, ::-1]).save(tmp_path / "photo.png")
    rows = [{"source": name, "points": face.landmarks[0].tolist()} for name in ("fake.png", "photo.png")]
    rows += film(tmp_path / "swapped.mp4", 1, 2, synthetic="the face") + film(
        tmp_path / "camera.mp4", 2, 2, synthetic=None
    )
    (tmp_path / "p.jsonl").write_text("\n".join(map(json.dumps, rows)))
    inputs = [tmp_path / name for name in ("fake.png", "photo.png", "swapped.mp4", "camera.mp4")]
    extract(inputs, tmp_path / "out", Given(tmp_path / "p.jsonl"), Settings(size=32, min_size=10))
    texts = {p.name: Image.open(p).info for p in (tmp_path / "out").glob("*.png")}
    assert texts["fake-0.png"]["Synthetic"] == "true"
    assert texts["fake-0.png"]["Method"] == "renderer"
    assert "Synthetic" not in texts["photo-0.png"]
    assert texts["swapped-f000000-0.png"]["Synthetic"] == "the face"
    assert "Synthetic" not in texts["camera-f000000-0.png"]


def test_a_face_beyond_the_picture_or_many_times_its_size_is_none(tmp_path):
    """Whoever says so: 100 px of picture, eyes 20 px apart inside it, outside it, and 2000 px apart."""
    for name, (eyes, at) in {"in": (20, 50), "out": (20, 400), "huge": (2000, 50)}.items():
        found = align.usable(
            torch.tensor(align.FACE, dtype=torch.float64) * eyes + at, align.template(64), 64, 100, 100
        )
        assert found == (name == "in"), name
    face = torch.tensor(align.FACE, dtype=torch.float64)
    mirrored = face.roll(1, 1) * 20  # turns and scales to nothing, or nearly: never an inverse of it
    assert not align.usable(mirrored * 0, align.template(64), 64, 100, 100)


def test_a_crop_in_strips_is_the_crop(monkeypatch):
    frame = torch.from_numpy(RNG.uniform(0, 255, (1, 3, 90, 120)))
    matrix = torch.tensor([[[0.11, 0.04, 9.0], [-0.04, 0.11, 14.0]]])
    whole = align.crop(frame, matrix, 24)
    monkeypatch.setattr(align, "SAMPLES", 5000)
    assert torch.equal(align.crop(frame, matrix, 24), whole)


def test_what_a_killed_call_left_half_written_is_removed(clips, tmp_path):
    folder, given = clips
    extract([folder], tmp_path / "out", given, SMALL)
    strays = [tmp_path / "out" / name for name in (".a-0.png.x.part", ".extract/.sheet.png.x.part")]
    for stray in strays:
        stray.write_bytes(b"half")
    extract([folder], tmp_path / "out", given, SMALL)
    assert not any(stray.exists() for stray in strays)


def test_two_sources_of_one_name_keep_apart(tmp_path):
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
        Image.fromarray(RNG.integers(0, 255, (90, 90, 3), np.uint8)).save(tmp_path / folder / "a.png")
    points = (np.array(align.FACE) * 20 + 45).tolist()
    rows = [{"source": name, "points": points} for name in ("x/a.png", "y/a.png")]
    (tmp_path / "p.jsonl").write_text("\n".join(map(json.dumps, rows)))
    extract([tmp_path], tmp_path / "out", Given(tmp_path / "p.jsonl"), Settings(size=32))
    assert [row.file for row in sidecar.read(tmp_path / "out")] == ["a-0.png", "a~2-0.png"]


# The command


def test_the_command_extracts_and_reports(mtcnn, tmp_path):
    face = rendered.render(3, [0], 128).image[0]
    Image.fromarray(scene(face, 40, 30)).save(tmp_path / "a.png")
    done = CliRunner().invoke(command, [str(tmp_path / "a.png"), str(tmp_path / "out"), "--device", "cpu"])
    assert done.exit_code == 0, done.output
    assert "1 crop in" in done.output
    assert "0 frames without a face (100.0% have one)" in done.output
    words = [str(tmp_path / "a.png"), str(tmp_path / "out"), "--device", "cpu", "--json"]
    assert json.loads(CliRunner().invoke(command, words).stdout)["counts"]["crops"] == 1

    Image.fromarray(np.full((99, 99, 3), 70, np.uint8)).save(tmp_path / "wall.png")
    done = CliRunner().invoke(command, [str(tmp_path / "wall.png"), str(tmp_path / "none"), "--device", "cpu"])
    assert done.exit_code == 1
    assert "no face came out" in done.output


def test_the_command_refuses_what_makes_no_sense(tmp_path):
    for words, reason in {
        ("out",): "expected INPUT",
        ("a.png", "out", "--landmarks", "x"): "is for --locator given",
        ("a.png", "out", "--locator", "yunet", "--face-model", "none"): "no model file",
        ("a.png", "out", "--size", "30", "--locator", "given", "--landmarks", __file__): "line 1",
        ("a.png", "out", "--size", "3"): "--size",
        ("a.png", "out", "--min-sharpness", "inf"): "--min-sharpness: a finite number",
        ("a.png", "out", "--min-size", "inf"): "--min-size: a finite number",
    }.items():
        done = CliRunner().invoke(command, list(words))
        assert isinstance(done.exception, InputError), words
        assert reason in str(done.exception)
    for settings in ({"size": 8}, {"coverage": 0.0}, {"every": 0}, {"min_sharpness": float("nan")}):
        with pytest.raises(InputError):
            Settings(**settings)


def test_a_real_clip_gives_a_face_in_nearly_every_frame(mtcnn, real_data, tmp_path):
    clip = real_data / "grid_two_speakers" / "clips" / "A_s1" / "bbaf2n.mpg"
    if not clip.exists():
        pytest.skip("no grid_two_speakers here")
    found = extract([clip], tmp_path / "out", mtcnn, Settings(every=15, size=64))
    assert found["counts"]["frames"] == 5
    assert found["frames_with_face"] >= 0.95
    for row in sidecar.read(tmp_path / "out"):
        (left, right, *_), matrix = row.points, np.array(row.matrix)
        assert 40 < right[0] - left[0] < 60  # px between the eyes in these 360 x 288 frames
        assert abs(np.degrees(np.arctan2(matrix[1, 0], matrix[0, 0]))) < 10
