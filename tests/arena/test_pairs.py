"""Pairs: found, checked, split and fed so that a and b stay together; and scored against the truth, which is b."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from bitwise import equal, saved_values
from click.testing import CliRunner
from PIL import Image

from arena.alarms import Seen, alarms
from arena.cli import main
from arena.config import DataConfig, resolve
from arena.data import _face_maps
from arena.data.faces import PARTS, render
from arena.data.feeds import Store, Unlabelled
from arena.data.source import SPLITS, open_source
from arena.errors import InputError
from arena.metrics.likeness import restoration_scores
from arena.round import Arena
from arena.run import run
from arena.watch import Silent

SIZE, MORE = 32, 10  # a is b and ten grey levels
SMALL = {
    "data": {"size": SIZE, "train": 24, "val": 8, "judge": 20}, "rounds": 1, "generator_steps": 4,
    "detector_steps": 6, "detector_batch": 8,
}  # fmt: skip


def picture(seed, size=(SIZE, SIZE)):
    """b: smooth noise in [40, 200], so that nothing is cut off."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(40, 201, (8, 8, 3), dtype=np.uint8))
    return np.asarray(small.resize(size, Image.Resampling.BILINEAR))


def save(path: Path, values: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path, lossless=True) if path.suffix == ".webp" else Image.fromarray(values).save(path)
    return path


def by_name(root: Path, names, folders=("A", "B"), suffixes=(".png", ".webp")) -> Path:
    for seed, name in enumerate(names):
        b = picture(seed)
        save(root / folders[0] / f"{name}{suffixes[0]}", b + MORE)
        save(root / folders[1] / f"{name}{suffixes[1]}", b)
    return root


def montages(root: Path, names, first=0) -> Path:
    for seed, name in enumerate(names, first):
        b = picture(seed)
        save(root / f"{name}.png", np.concatenate([b + MORE, b], 1))
    return root


def opened(root, **settings):
    return open_source(DataConfig(source=str(root), size=SIZE, **settings), "pairs")


def content(source):
    """Of every split the images of a and of b, and their pairs' names."""
    found = {}
    for split in SPLITS:
        mine = [[row for row in source.manifest if (row["split"], row["domain"]) == (split, domain)] for domain in "ab"]
        images = [torch.cat(list(source.images(rows))).numpy().astype(int) for rows in mine]
        found[split] = (*images, *([row["pair"] for row in rows] for rows in mine))
    return found


def check_alignment(source, sign=1):
    for a, b, names_a, names_b in content(source).values():
        assert names_a == names_b
        assert (a - b == sign * MORE).all()
    return source


NAMES = [
    "apple", "bell", "cat", "door", "elm", "fox", "gate", "hut", "inn", "jar", "key", "log", "mug", "net", "oak", "pen",
]  # fmt: skip


# Layouts


def test_two_folders_with_equal_names_and_other_suffixes(tmp_path):
    source = check_alignment(opened(by_name(tmp_path, NAMES)))
    assert source.domains == ("a", "b")
    assert source.summary["paired"]
    assert {row["pair"] for row in source.manifest} == {f"A/{name}.png" for name in NAMES}
    assert len({row["name"] for row in source.manifest}) == 2 * len(NAMES)


def test_cyclegans_folders_with_equal_names(tmp_path):
    by_name(tmp_path, NAMES, ("trainA", "trainB"))
    by_name(tmp_path, ["x", "y", *NAMES[:2]], ("testA", "testB"))  # two names as in train, other pictures
    for k, name in enumerate([*NAMES[:2], "x", "y"], 100):
        save(tmp_path / "testA" / f"{name}.png", picture(k) + MORE)
        save(tmp_path / "testB" / f"{name}.webp", picture(k))
    source = check_alignment(opened(tmp_path))
    judged = {row["pair"] for row in source.manifest if row["split"] == "judge"}
    assert judged == {f"testA/{name}.png" for name in ["x", "y", *NAMES[:2]]}


def test_folders_below_split_folders(tmp_path):
    by_name(tmp_path, NAMES, ("train/labels", "train/photos"))
    for k, name in enumerate(NAMES[:5], 50):
        save(tmp_path / "test/labels" / f"{name}.png", picture(k) + MORE)
        save(tmp_path / "test/photos" / f"{name}.png", picture(k))
    source = check_alignment(opened(tmp_path))
    assert "a = labels, b = photos" in source.summary["layout"]


def test_montages_in_train_val_test_as_pix2pix_has_them(tmp_path):
    for number, (split, names) in enumerate({"train": NAMES, "val": NAMES[:3], "test": NAMES[:4]}.items()):
        montages(tmp_path / split, names, 100 * number)
    source = check_alignment(opened(tmp_path))
    counts = {split: len(names) for split, (_, _, names, _) in content(source).items()}
    assert counts == {"train": 16, "val": 3, "judge": 4}
    assert all((row["width"], row["height"]) == (SIZE, SIZE) for row in source.manifest)


def test_montages_in_one_folder_are_split_like_anything(tmp_path):
    assert "montages" in check_alignment(opened(montages(tmp_path, NAMES))).summary["layout"]


@pytest.mark.parametrize("make", [by_name, montages])
def test_the_other_direction(tmp_path, make):
    """data.pairs=b2a: make the first of the second."""
    check_alignment(opened(make(tmp_path, NAMES), pairs="b2a"), sign=-1)


def test_halves_are_resized_each_on_its_own(tmp_path):
    """A large montage: each half as if it had been a file, nothing of the other bleeding over the middle."""
    for k in range(16):
        b = picture(k, (80, 80))
        save(tmp_path / "m" / f"{k}.png", np.concatenate([255 - b, b], 1))
        save(tmp_path / "f" / "A" / f"{k}.png", 255 - b)
        save(tmp_path / "f" / "B" / f"{k}.png", b)
    one, two = (
        {
            (row["domain"], row["pair"].rpartition("/")[2]): image
            for domain in "ab"
            for rows in [[row for row in source.manifest if row["domain"] == domain]]
            for row, image in zip(rows, torch.cat(list(source.images(rows))), strict=True)
        }
        for source in (opened(tmp_path / "m", group="none"), opened(tmp_path / "f", group="none"))
    )
    assert one.keys() == two.keys()
    assert all(torch.equal(one[key], two[key]) for key in one)


# Mistakes


def unequal(root):
    by_name(root, NAMES)
    (root / "B" / "cat.webp").unlink()
    (root / "B" / "key.webp").unlink()


def all_unequal(root):
    by_name(root, NAMES[:6])
    shutil.rmtree(root / "B")
    by_name(root, NAMES[6:], ("X", "B"))
    shutil.rmtree(root / "X")


def twice(root):
    by_name(root, NAMES)
    save(root / "A" / "cat.webp", picture(77))


def odd(root):
    for k, name in enumerate(NAMES):
        save(root / f"{name}.png", picture(k, (65, 32)))


def squares(root):
    for k, name in enumerate(NAMES):
        save(root / f"{name}.png", picture(k))


def classes(root):
    for k, name in enumerate(NAMES):
        save(root / "xyz"[k % 3] / f"{name}.png", picture(k))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (unequal, ["2 of 16", "A/cat.png, A/key.png", "equal names"]),
        (all_unequal, ["6 of 6", "A/apple.png, A/bell.png, A/cat.png ...", "montages"]),
        (twice, ["A/cat.png and A/cat.webp bear one name", "Rename"]),
        (odd, ["16 of 16 pairs", "width of 65 px is odd"]),
        (squares, ["no pairs", "32 x 32 px", "A left and B right", "equal names"]),
        (classes, ["3 folders", "no pairs", "equal names"]),
        (lambda root: root.mkdir(exist_ok=True), ["no PNG"]),
    ],
)
def test_mistakes_are_told_in_one_line(tmp_path, make, said):
    make(tmp_path)
    with pytest.raises(InputError) as error:
        opened(tmp_path)
    assert all(words in str(error.value) for words in said), error.value
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("side", ["A/cat.png", "B/cat.webp"])
def test_a_pair_with_an_unreadable_file_is_skipped_whole_and_counted(tmp_path, side):
    by_name(tmp_path, NAMES)
    (tmp_path / side).write_bytes(b"no picture")
    source = check_alignment(opened(tmp_path))
    assert source.summary["skipped"] == 1
    assert source.summary["bad"][0][0] == side
    assert not any("cat" in row["name"] for row in source.manifest)
    with pytest.raises(InputError, match="1 of 16 pairs"):
        opened(tmp_path, max_bad=0)


def test_single_montages_of_a_wrong_shape_are_skipped_and_counted(tmp_path):
    montages(tmp_path, NAMES)
    save(tmp_path / "odd.png", picture(50, (65, 32)))
    save(tmp_path / "one.png", picture(51))
    source = check_alignment(opened(tmp_path))
    assert dict(source.summary["bad"]) == {
        "odd.png": "its width of 65 px is odd: it has no middle",
        "one.png": "32 x 32 px are no two pictures side by side",
    }  # fmt: skip


def test_the_embedded_data_and_the_generator_must_agree():
    with pytest.raises(InputError, match=r"learns from pairs, and faces has none.*faces-segments"):
        open_source(DataConfig(source="faces"), "pairs")
    with pytest.raises(InputError, match="needs stills"):
        open_source(DataConfig(source="faces-drawing"), "stills")
    assert open_source(DataConfig(source="faces-drawing", size=32, train=4, val=2, judge=4), "domains").manifest


# Splits


def test_groups_go_to_a_split_whole_by_the_rule_that_is_asked_for(tmp_path):
    names = [f"clip{c}_{i}" for c in range(12) for i in range(4)]
    source = check_alignment(opened(by_name(tmp_path, names), group="prefix:(clip[0-9]+)_"))
    where = {}
    for row in source.manifest:
        where.setdefault(row["pair"].split("/")[1].split("_")[0], set()).add(row["split"])
    assert all(len(splits) == 1 for splits in where.values())
    assert {row["split"] for row in source.manifest} == set(SPLITS)


def test_pairs_that_share_one_of_their_pictures_are_never_torn_apart(tmp_path):
    """The same photograph with several maps, and the same map with several photographs."""
    names = [f"{word}{k}" for word in NAMES for k in range(3)]
    by_name(tmp_path, names)
    for word in NAMES[:6]:
        for k in (1, 2):
            shutil.copy(tmp_path / "B" / f"{word}0.webp", tmp_path / "B" / f"{word}{k}.webp")
    for word in NAMES[6:]:
        for k in (1, 2):
            shutil.copy(tmp_path / "A" / f"{word}0.png", tmp_path / "A" / f"{word}{k}.png")
    source = opened(tmp_path, group="none")
    where = {}
    for row in source.manifest:
        where.setdefault(row["sha256"], set()).add(row["split"])
    assert all(len(splits) == 1 for splits in where.values())
    assert {row["split"] for row in source.manifest} == set(SPLITS)


def test_a_pair_leaves_train_if_the_judge_has_either_of_its_pictures(tmp_path):
    by_name(tmp_path, NAMES, ("trainA", "trainB"))
    for k, name in enumerate(["x", "y", "z"], 100):
        save(tmp_path / "testA" / f"{name}.png", picture(k) + MORE)
        save(tmp_path / "testB" / f"{name}.webp", picture(k))
    shutil.copy(tmp_path / "testB" / "x.webp", tmp_path / "trainB" / "cat.webp")
    source = opened(tmp_path)
    assert not any("cat" in row["name"] for row in source.manifest)
    assert any("1 pairs are left out" in note for note in source.summary["notes"])


# Embedded faces


@pytest.mark.parametrize("name", ["faces-drawing", "faces-segments"])
def test_embedded_pairs_are_a_face_and_what_is_drawn_of_it(name):
    config = DataConfig(source=name, size=SIZE, train=6, val=2, judge=4, seed=3)
    source = open_source(config, "pairs")
    for split, (a, b, pairs, same) in content(source).items():
        assert pairs == same
        rows = [row for row in source.manifest if (row["split"], row["domain"]) == (split, "b")]
        faces = render(3, [row["index"] for row in rows], SIZE)
        assert np.array_equal(b, faces.image)
        assert np.array_equal(a, _face_maps.MAPS[name](faces))
    assert len({row["pair"] for row in source.manifest}) == 12
    other = content(open_source(config.model_copy(update={"pairs": "b2a"}), "pairs"))
    assert np.array_equal(other["judge"][0], content(source)["judge"][1])


def test_a_map_knows_shapes_and_no_colours():
    """Of one image with two hair colours, all else equal, the map and the drawing are the same."""
    dark, fair = (render(0, range(12), 64, style=style) for style in ("dark", "fair"))
    assert not torch.equal(dark.image, fair.image)
    for draw in (_face_maps.segments, _face_maps.drawing):
        assert torch.equal(draw(dark), draw(fair))


def test_a_map_shows_the_parts_where_they_are():
    faces = render(1, range(20), 64)
    maps = _face_maps.segments(faces)
    known = torch.tensor(list(_face_maps.COLOURS.values()))
    colours = maps.permute(0, 2, 3, 1).reshape(-1, 3)
    assert (colours[:, None] == known).all(-1).any(1).all()
    skin = torch.tensor(_face_maps.COLOURS["skin"])
    cheek = faces.landmarks[:, [2, 14, 30]].mean(1)  # between the cheeks: the nose's tip
    for image, face, at in zip(maps, faces.image.float(), cheek.long(), strict=True):
        assert image[:, at[1], at[0]].tolist() in [list(_face_maps.COLOURS[k]) for k in ("nose", "skin", "glasses")]
        background = (image == torch.tensor(_face_maps.COLOURS["background"])[:, None, None]).all(0)
        assert background[0, 0]
        shown = (image == skin[:, None, None]).all(0)
        assert (face[:, shown].mean(1)[0] > face[:, shown].mean(1)[2]).item()  # skin is redder than blue
    hair = faces.parts == PARTS.index("hair")
    assert 0.02 < hair.float().mean() < 0.5
    lines = _face_maps.drawing(faces)
    assert 0.02 < (lines < 128).float().mean() < 0.2


# Training and judging


def test_the_same_rows_are_drawn_of_both(tmp_path):
    stores = [
        Store(np.full((9, 3, 4, 4), k, np.uint8) + np.arange(9, dtype=np.uint8)[:, None, None, None], range(9))
        for k in (0, 100)
    ]
    feed = Unlabelled(stores, 4, "key", paired=True)
    for step in range(12):
        a, b = feed[step]
        assert torch.equal(a + 100, b)
    apart = Unlabelled(stores, 4, "key")
    assert not all(torch.equal(apart[step][0] + 100, apart[step][1]) for step in range(12))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return by_name(tmp_path_factory.mktemp("pairs"), [f"{word}{k}" for word in NAMES for k in range(6)])


@pytest.fixture(scope="module")
def passed_on(folder, tmp_path_factory):
    """A run of two rounds whose generator hands a back, where a is b and ten grey levels."""
    out = tmp_path_factory.mktemp("passed") / "run"
    yaml = out.with_name("pass_on.yaml")
    yaml.write_text("of: planted:PassOn")
    data = {**SMALL["data"], "source": str(folder)}
    layer = {"generator": str(yaml), "detector": "spectrum", **SMALL, "data": data, "rounds": 2}
    return out, run(resolve([layer], "smoke"), out, Silent())


def test_a_generator_that_passes_on_scores_the_known_psnr(passed_on):
    """All the way from the files: a and b differ by ten grey levels everywhere, so PSNR is 10 log10(255^2 / 100)."""
    out, summary = passed_on
    known = 10 * np.log10(255**2 / MORE**2)
    for entry in summary["rounds"]:
        assert entry["truth"].keys() == {"psnr:a2b", "ssim:a2b"}
        psnr = entry["truth"]["psnr:a2b"]
        assert psnr["value"] == pytest.approx(known, abs=1e-4)
        assert psnr["low"] == pytest.approx(known, abs=1e-4)
        assert psnr["copy"] == pytest.approx(known, abs=1e-4)
        assert psnr["over_copy"]["value"] == 0
        assert psnr["mean"] < 25
        assert psnr["over_mean"]["low"] > 3
        assert 0.9 < entry["truth"]["ssim:a2b"]["value"] < 1
        assert "copied-input" in {alarm["name"] for alarm in entry["alarms"]}  # for b is something else
    losses = (out / "rounds/00/generator.csv").read_text().splitlines()[1:]
    assert len(losses) == SMALL["generator_steps"]
    assert all(float(line.split(",")[-1]) < 1e-6 for line in losses)  # b was a's own in every batch


def test_the_detector_meets_the_second_domain_alone(passed_on):
    out, summary = passed_on
    images = summary["data"]["images"]["judge"]
    assert (
        images["a"] == images["b"] == summary["rounds"][0]["after"]["n_real"] == summary["rounds"][0]["after"]["n_fake"]
    )
    assert summary["rounds"][1]["before"]["n_fake"] == images["a"]
    fakes = np.load(out / "rounds/00/fakes/judge-a2b.npy")
    assert np.array_equal(fakes, np.load(out / "data/judge-a.npy"))
    assert not list((out / "rounds/00/fakes").glob("*-b2a*"))
    rows = [json.loads(line) for line in (out / "rounds/00/fakes/manifest.jsonl").read_text().splitlines()]
    assert all(row["source"].startswith("A/") for row in rows)


def test_sheet_matrix_audit_and_report_speak_of_pairs(passed_on):
    out, _ = passed_on
    pictures = [json.loads(line) for line in (out / "rounds/01/pictures.jsonl").read_text().splitlines()]
    assert next(row["rows"] for row in pictures if row["file"].endswith("sheet.png")) == ["source", "fake", "truth"]
    game = json.loads((out / "game/game.json").read_text())
    assert game["matrix"]["columns"] == ["0", "1", "source", "blur", "noise"]
    auc = np.array(game["matrix"]["auc"])
    assert np.allclose(auc[:, 2], auc[:, 0])  # its fakes are its sources, which here are no reals
    report = (out / "report.html").read_text()
    assert "Against the truth" in report
    assert "the other pictures of the pairs, handed in as they are" in report
    assert "so 0.5 whatever the detector does" not in report
    assert "other picture of the pair" in report
    assert "Against the true pictures" in report
    result = CliRunner().invoke(main, ["audit", str(out)], catch_exceptions=False)
    assert result.exit_code in (0, 1)
    assert "sources lie in several splits" not in result.output


def test_sample_and_forge_make_b_of_a(passed_on, tmp_path):
    out, _ = passed_on
    runner = CliRunner()
    result = runner.invoke(main, ["sample", str(out), str(tmp_path / "s"), "--n", "3"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    made = np.asarray(Image.open(tmp_path / "s" / "translations" / "00001.png")).transpose(2, 0, 1)
    assert np.array_equal(made, np.load(out / "data/judge-a.npy")[1])
    refused = runner.invoke(main, ["sample", str(out), str(tmp_path / "r"), "--reverse"])
    assert refused.exit_code == 2
    wide = save(tmp_path / "both.png", np.zeros((40, 80, 3), np.uint8))
    refused = runner.invoke(main, ["sample", str(out), str(tmp_path / "w"), "--source", str(wide)])
    assert refused.exit_code == 2
    assert "both.png is 80 x 40 px, a montage of a pair" in refused.output
    from arena.submission.forge import forge

    fakes, *_ = forge(out, 5, None)
    assert np.array_equal(fakes.numpy(), np.load(out / "data/judge-a.npy")[:5])
    with pytest.raises(InputError, match="500 are needed"):
        forge(out, 500, None)


def test_a_tournament_takes_runs_of_pairs(passed_on, tmp_path):
    from arena.tournament import play
    from arena.tournament_config import TournamentConfig

    out, _ = passed_on
    config = {
        "preset": "smoke", "settings": {"data": {"size": SIZE, "train": 24, "val": 8, "judge": 20}},
        "generators": {"given": {"run": str(out)}, "pix2pix": {}}, "detectors": {"spectrum": {"steps": 20}},
    }  # fmt: skip
    found = play(TournamentConfig.model_validate(config), tmp_path / "t")
    assert not found["failed"]
    assert [row["domain"] for row in found["cross"]["reals"]] == ["b", "b"]


class Stop(Silent):
    """Ctrl-C at a step of a round's generator."""

    def __init__(self, round, step):
        self.at = (round, step)

    def steps(self, round, player, steps):
        def show(step, losses):
            if player == "generator" and (round, step) >= self.at:
                raise KeyboardInterrupt

        return show


def test_a_run_of_pix2pix_stopped_and_resumed_is_equal_to_the_bit(tmp_path, monkeypatch):
    monkeypatch.setattr(Arena, "look_inside", lambda arena, r, fakes: {})  # slow, and not what is asked here
    data = {**SMALL["data"], "train": 8, "val": 3, "judge": 8}
    settings = {**SMALL, "data": data, "rounds": 2, "generator_steps": 12, "evade": 0.3, "save_seconds": 0}
    config = resolve([{"generator": "pix2pix", "detector": "spectrum", **settings}], "smoke")
    run(config, tmp_path / "one" / "run", Silent())
    with pytest.raises(KeyboardInterrupt):
        run(config, tmp_path / "two" / "run", Stop(1, 9))
    run(config, tmp_path / "two" / "run", Silent())
    one, two = (saved_values(tmp_path / name / "run") for name in ("one", "two"))
    assert one.keys() == two.keys()
    assert not [name for name in one if not equal(one[name], two[name])]


def test_the_command_line_plays_pix2pix(tmp_path):
    words = ["run", "--generator", "pix2pix", "--detector", "spectrum", "--preset", "smoke", "--rounds", "1"]
    words += ["--device", "cpu", "--out", str(tmp_path / "run"), "--data"]
    result = CliRunner().invoke(main, [*words, "faces-drawing"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert "Against the true pictures" in result.output
    result = CliRunner().invoke(main, [*words[:-2], str(tmp_path / "other"), "--data", "faces"], catch_exceptions=False)
    assert result.exit_code == 2
    assert "learns from pairs" in result.output


# Scores and alarms


def test_psnr_and_ssim_of_a_restoring_generator_stand_beside_plain_guesses(tmp_path, player_file):
    layer = {"generator": player_file("planted:Restore"), "detector": "spectrum", **SMALL}
    summary = run(resolve([layer], "smoke"), tmp_path / "run", Silent())
    truth = summary["rounds"][0]["truth"]
    reals = np.load(tmp_path / "run/data/judge-all.npy").astype(float)
    fakes = np.load(tmp_path / "run/rounds/00/fakes/judge-all.npy").astype(float)
    expected = 10 * np.log10(255**2 / ((reals - fakes) ** 2).mean((1, 2, 3)))
    assert truth["psnr"]["value"] == pytest.approx(expected.mean(), abs=1e-4)
    plain = 10 * np.log10(255**2 / ((reals - 128) ** 2).mean((1, 2, 3)))
    assert truth["psnr"]["plain"] == pytest.approx(plain.mean(), abs=1e-4)
    assert truth["psnr"]["over_plain"]["value"] == pytest.approx((expected - plain).mean(), abs=1e-4)
    assert truth["ssim"].keys() >= {"value", "low", "high", "plain"}
    rows = [json.loads(line) for line in (tmp_path / "run/rounds/00/fakes/manifest.jsonl").read_text().splitlines()]
    assert all(row["source"].startswith("faces/") for row in rows)
    html = (tmp_path / "run/report.html").read_text()
    assert "it is the source itself" in html
    assert "guesses at the very reals that they are compared with" in html


def test_restoration_scores_against_numpy_and_scikit_like_ssim():
    rng = np.random.default_rng(0)
    truths = torch.from_numpy(rng.integers(0, 256, (5, 3, 64, 64), dtype=np.uint8))
    noisy = (truths.int() + torch.from_numpy(rng.integers(-9, 10, truths.shape))).clamp(0, 255).to(torch.uint8)
    found = restoration_scores(noisy, truths, {"copy": truths})
    errors = ((noisy.double() - truths.double()) ** 2).mean((1, 2, 3)).numpy()
    assert found["psnr"]["value"] == pytest.approx(np.mean(10 * np.log10(255**2 / errors)), abs=1e-4)
    assert found["ssim"]["copy"] == pytest.approx(1, abs=1e-5)
    assert found["psnr"]["copy"] == pytest.approx(58.92, abs=0.01)
    assert found["psnr"]["low"] < found["psnr"]["value"] < found["psnr"]["high"]
    with pytest.raises(InputError, match="expected uint8 of shape"):
        restoration_scores(noisy[:4], truths)
    with pytest.raises(InputError, match="at least 3"):
        restoration_scores(noisy[:2], truths[:2])


def test_alarms_know_what_a_pair_asks_for():
    """A truth that is its source is no copying, a map without colours is no input ignored; a copy of a map is one."""
    faces = render(0, range(40), 32)
    maps, others = _face_maps.segments(faces), render(0, range(100, 140), 32).image
    assert {a["name"] for a in alarms([Seen(faces.image, others, faces.image, truths=faces.image)])} == set()
    assert {a["name"] for a in alarms([Seen(faces.image, others, maps, truths=faces.image)])} == set()
    assert "copied-input" in {a["name"] for a in alarms([Seen(maps, others, maps, truths=faces.image)])}
    assert "copied-input" in {a["name"] for a in alarms([Seen(faces.image, others, faces.image)])}
    turned = 255 - faces.image
    assert "inverted" in {a["name"] for a in alarms([Seen(turned, others, maps, truths=faces.image)])}
