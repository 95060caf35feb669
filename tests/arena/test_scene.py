"""Films of a synthetic person: no seam, truths that fit the pictures, found by a detector, written with their marks."""

import itertools
import json
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from click.testing import CliRunner

from arena.data._face_paint import paint
from arena.errors import InputError
from arena.faces import scene as scenes
from arena.faces.locate import locator
from arena.faces.scene import _Stage, film, scene
from arena.faces.scene_command import scene as command
from arena.faces.video import open_video


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def some(person, index, numbers, width=320, height=240):
    """Some frames of a film, by number."""
    stage = _Stage(0, index, person, "any", width, height, 0.5, 25.0)
    return list(stage.shoot(torch.tensor(numbers), True))


@pytest.fixture(scope="module")
def shots():
    """Frames of three people, two seconds apart."""
    return [some(person, person, [0, 50, 100, 150]) for person in (3, 11, 20)]


def test_the_square_in_the_scene_is_the_renderers():
    """More pixels about the square change none in it but where a layer ends at its edge."""
    stage = _Stage(0, 2, 7, "any", 320, 240, 0.5, 25.0)
    p = stage.settled(torch.zeros(1, dtype=torch.int64))
    p.cx, p.cy = 0 * p.cx, 0 * p.cy
    alone, mask, _ = paint(p, 96)
    wide, wide_mask, _ = paint(p, 96, (40, 30, 24, 50))
    assert wide.shape == (1, 3, 176, 160)
    inner, inner_mask = wide[:, :, 30:126, 40:136], wide_mask[:, 30:126, 40:136]
    core = slice(2, -2)
    torch.testing.assert_close(inner[..., core, core], alone[..., core, core], atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(inner_mask[..., core, core], mask[..., core, core], atol=1e-4, rtol=1e-3)
    assert wide_mask.sum() == pytest.approx(float(mask.sum()), rel=1e-3)


def test_a_given_background_shows_where_the_person_is_not():
    p = _Stage(0, 2, 7, "any", 320, 240, 0.5, 25.0).settled(torch.zeros(1, dtype=torch.int64))
    wall = torch.rand(1, 3, 64, 104)
    kept = wall.clone()
    picture, _, _ = paint(p, 64, (20, 0, 20, 0), wall)
    assert torch.equal(wall, kept)
    assert torch.equal(picture[:, :, :6, :8], wall[:, :, :6, :8])


def test_shapes_and_ranges(shots):
    for shot in itertools.chain(*shots):
        assert shot.image.shape == (240, 320, 3)
        assert shot.image.dtype == np.uint8
        assert shot.landmarks.shape == (68, 2)
        assert shot.points.shape == (5, 2)
        left, top, right, bottom = shot.box
        assert 0 < left < right < 320
        assert 0 < top < bottom < 240
        assert shot.points[0, 0] < shot.points[1, 0]
        assert np.abs(shot.pose).max() < 60
    assert [shot.number for shot in shots[0]] == [0, 50, 100, 150]
    assert shots[0][1].seconds == 2.0


def test_the_person_moves_and_the_camera_does_not(shots):
    for film_ in shots:
        centres = np.array([shot.landmarks.mean(0) for shot in film_])
        assert np.ptp(centres[:, 0]) > 3
        corners = np.array([shot.image[:20, :20].mean() for shot in film_])
        assert np.ptp(corners) < 1
        assert len({shot.image[:20, :20].tobytes() for shot in film_}) == 4  # new noise in every frame


def test_motion_is_smooth():
    stage = _Stage(0, 4, 9, "any", 320, 240, 0.5, 25.0)
    p = stage.settled(torch.arange(100))
    place = torch.stack((p.cx, p.cy), -1).flatten(1) * stage.size
    assert place.diff(dim=0).norm(dim=-1).max() < 1.5  # pixels a frame
    assert place.diff(dim=0).diff(dim=0).norm(dim=-1).max() < 0.1
    three = [shot.landmarks for shot in stage.shoot(torch.arange(20, 23), False)]
    assert np.abs(three[1] - (three[0] + three[2]) / 2).max() < 1


def test_a_frame_depends_on_its_number_alone(monkeypatch):
    whole = list(scene(0, 5, 5, 96, 96, identity=2))
    monkeypatch.setattr(scenes, "FIRST", 2)
    parts = list(scene(0, 5, 3, 96, 96, identity=2))
    for a, b in zip(whole, parts, strict=False):
        assert np.array_equal(a.image, b.image)
        assert np.array_equal(a.landmarks, b.landmarks)
    assert not np.array_equal(whole[0].image, next(scene(0, 5, 1, 96, 96, identity=3)).image)


def test_a_long_film_starts_at_once():
    shot = next(scene(0, 0, 10**9, 64, 64, identity=1, camera=False))
    assert shot.number == 0


def test_a_detector_finds_the_faces_where_they_are(shots):
    pytest.importorskip("facenet_pytorch")
    finder = locator("mtcnn", smallest=40)
    every = list(itertools.chain(*shots))
    found = finder([shot.image for shot in every])
    assert sum(len(faces) == 1 for faces in found) >= 0.95 * len(every)
    pairs = [(faces[0], shot) for faces, shot in zip(found, every, strict=True) if faces]
    errors = [
        np.linalg.norm(face.points - shot.points, axis=1) / np.linalg.norm(np.subtract(*shot.points[:2]))
        for face, shot in pairs
    ]
    assert np.mean(errors) < 0.10
    assert np.median(errors, 0).max() < 0.15
    for face, shot in pairs:
        a, b = np.array(face.box), np.array(shot.box)
        both = np.clip(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0, None).prod()
        assert both / (np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - both) > 0.5


def test_a_film_with_its_truths_and_a_tone(tmp_path):
    out = tmp_path / "a.mp4"
    shots = list(scene(0, 1, 12, 160, 120, identity=4, fps=24.0))
    wrote = film(out, iter(shots), 24.0, tone=True, marks={"Person": "4"})
    assert wrote["frames"] == 12
    video = open_video(out)
    assert (video.count, video.rate, video.width, video.height) == (12, 24, 160, 120)
    assert video.has_audio
    with av.open(str(out)) as file:
        assert "Synthetic: true" in file.metadata["comment"]
        assert "Person: 4" in file.metadata["comment"]
        sound = np.concatenate([frame.to_ndarray()[0] for frame in file.decode(audio=0)])
    assert len(sound) == pytest.approx(0.5 * 48000, abs=3000)
    strongest = np.abs(np.fft.rfft(sound)).argmax() * 48000 / len(sound)
    assert strongest == pytest.approx(440, abs=5)
    assert np.mean([np.abs(frame.image.astype(float) - shots[frame.number].image).mean() for frame in video]) < 6

    given = locator("given", landmarks=tmp_path / "a.landmarks.jsonl")
    faces = given([shot.image for shot in shots], [("a.mp4", shot.number) for shot in shots])
    for (face,), shot in zip(faces, shots, strict=True):
        np.testing.assert_allclose(face.points, shot.points, atol=2e-3)
        np.testing.assert_allclose(face.box, shot.box, atol=2e-3)


def test_the_command(tmp_path):
    out = tmp_path / "b.mp4"
    wanted = [str(out), "--person", "3", "--frames", "2", "--size", "96x80", "--json"]
    answer = CliRunner().invoke(command, wanted)
    assert answer.exit_code == 0, answer.output
    said = json.loads(answer.stdout)
    assert said["frames"] == 2
    assert not open_video(out).has_audio
    rows = [json.loads(line) for line in Path(said["landmarks"]).read_text().splitlines()]
    assert [row["frame"] for row in rows] == [0, 1]
    assert rows[0]["identity"] == 3
    again = CliRunner().invoke(command, wanted)
    assert isinstance(again.exception, InputError)
    assert "nothing is overwritten" in str(again.exception)
    wrong = CliRunner().invoke(command, [str(tmp_path / "c.mp4"), "--person", "3", "--size", "big"])
    assert "480x360" in str(wrong.exception)
    other = CliRunner().invoke(command, [str(tmp_path / "c.txt"), "--person", "3", "--frames", "1"])
    assert isinstance(other.exception, InputError)
    assert {path.name for path in tmp_path.iterdir()} == {"b.mp4", "b.landmarks.jsonl"}


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"width": 20}, "width"),
        ({"height": 5000}, "height"),
        ({"head": 0.1}, "head"),
        ({"width": 64, "height": 64, "head": 0.3}, "too small"),
        ({"frames": 0}, "frames"),
        ({"fps": 0.0}, "fps"),
        ({"identity": -1}, "identity"),
        ({"seed": -1}, "seed"),
        ({"index": -1}, "indices"),
        ({"style": "blue"}, "style"),
    ],
)
def test_bad_arguments_are_named(change, word):
    with pytest.raises(InputError, match=word):
        scene(**{"seed": 0, "index": 0, "frames": 1, "identity": 0} | change)
