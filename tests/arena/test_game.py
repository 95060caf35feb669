"""The whole game with planted players, whose result is known beforehand."""

import json

import numpy as np
import pytest
import torch
from bitwise import equal

from arena import build
from arena.config import resolve
from arena.errors import DivergedError, InputError
from arena.evasion import evading
from arena.ledger import Ledger
from arena.run import run
from arena.training import Feed, train
from arena.watch import Silent

SMALL = {
    "data": {"size": 32, "train": 40, "val": 20, "judge": 60},
    "rounds": 1,
    "generator_steps": 3,
    "detector_steps": 30,
}


def play(tmp_path, generator, detector, name="run", **settings):
    layer = {"generator": generator, "detector": detector, **SMALL, "detector_batch": 16, **settings}
    return run(resolve([layer], "smoke"), tmp_path / name, Silent())


@pytest.mark.parametrize("codec", ["png", "jpeg-60"])
def test_a_generator_that_returns_its_source_is_at_chance(tmp_path, player_file, codec):
    """Reals and fakes take the same path: nothing but the picture may tell. Every detector must come out at 0.5."""
    identity = player_file("planted:Identity")
    for detector in ("spectrum", player_file("planted:Colour")):
        summary = play(tmp_path, identity, detector, detector[-5:], data={**SMALL["data"], "codec": codec})
        after = summary["rounds"][0]["after"]
        assert abs(after["auc"] - 0.5) < 0.02, detector
        assert after["auc_low"] < 0.5 < after["auc_high"]
        assert (after["n_real"], after["n_fake"]) == (120, 120)


def test_stored_fakes_of_the_identity_are_the_stored_reals(tmp_path, player_file):
    play(tmp_path, player_file("planted:Identity"), "spectrum")
    for split in ("train", "val", "judge"):
        for way, domain in (("a2b", "a"), ("b2a", "b")):
            fakes = np.load(tmp_path / "run" / "rounds" / "00" / "fakes" / f"{split}-{way}.npy")
            assert np.array_equal(fakes, np.load(tmp_path / "run" / "data" / f"{split}-{domain}.npy"))


def test_a_generator_that_paints_grey_is_found_out(tmp_path, player_file):
    summary = play(tmp_path, player_file("planted:Grey"), "spectrum")
    assert summary["rounds"][0]["after"]["auc"] > 0.99
    assert summary["rounds"][0]["before"] is None


def test_summary_and_ledger_say_everything(tmp_path, player_file):
    summary = play(tmp_path, player_file("planted:Shift"), player_file("planted:Colour"), rounds=2)
    stored = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert stored == summary
    assert stored["status"] == "finished"
    assert stored["schema"] == 1
    first, second = stored["rounds"]
    keys = {"auc", "auc_low", "auc_high", "ap", "eer", "n_real", "n_fake", "accuracy", "threshold", "escape"}
    for scores in (first["after"], second["before"], second["after"], first["baseline"]):
        assert keys <= scores.keys()
    for name, value in first["quality"].items():
        assert {"value", "low", "high", "n", "floor", "features"} <= value.keys(), name
        assert not name.startswith("fid") or "inception" in value["features"].lower()
    assert set(first["seconds"]) >= {"train generator", "forge", "train detector", "judge after"}
    for file in ("report.html", "data/manifest.jsonl", "rounds/01/sheet.png", "rounds/01/fakes/manifest.jsonl"):
        assert (tmp_path / "run" / file).stat().st_size > 0
    assert all(stored["provenance"][key] for key in ("torch", "device", "platform"))


def test_judged_reals_trained_nobody(tmp_path, player_file):
    play(tmp_path, player_file("planted:Identity"), "spectrum")
    rows = [json.loads(line) for line in (tmp_path / "run" / "data" / "manifest.jsonl").read_text().splitlines()]
    for key in ("sha256", "name", "group"):
        split_of = {}
        for row in rows:
            assert split_of.setdefault(row[key], row["split"]) == row["split"]
    assert {row["split"] for row in rows} == {"train", "val", "judge"}


def test_pictures_say_that_they_are_synthetic(tmp_path, player_file):
    from PIL import Image

    play(tmp_path, player_file("planted:Identity"), "spectrum")
    found = list((tmp_path / "run").rglob("*.png"))
    assert found
    for path in found:
        text = Image.open(path).text
        mixed = {"sheet": "every row but sources and reals"}
        mixed |= dict.fromkeys(("explained", "neighbours"), "all but the reals")
        part = mixed.get(path.stem)  # pictures that hold sources and reals as well
        assert text["Synthetic"] == (f"contains synthetic images: {part}" if part else "true")
        assert text["Method"] == "identity"
        assert text["Seed"] == "0"
        assert text["Run"] == "run"
        kind = "compositeWithTrainedAlgorithmicMedia" if part else "trainedAlgorithmicMedia"
        assert f'digitalsourcetype/{kind}"' in text["XML:com.adobe.xmp"]


def test_the_penalty_is_the_cross_entropy_towards_real_and_frees_the_detector(player_file):
    detector = build.build(resolve([{"generator": "cyclegan", "detector": player_file("planted:Colour")}]).detector, 0)
    images = torch.rand(4, 3, 8, 8, requires_grad=True)
    with evading(detector, 2.0) as penalty:
        assert not any(p.requires_grad for p in detector.net.parameters())
        loss = penalty(images)
    expected = -2 * torch.log(1 - torch.sigmoid(detector.score(images))).mean()
    torch.testing.assert_close(loss, expected)
    (grad,) = torch.autograd.grad(loss, images)
    assert grad.abs().sum() > 0
    assert all(p.requires_grad for p in detector.net.parameters())
    assert all(p.grad is None for p in detector.net.parameters())


def test_evading_raises_the_escape_rate(tmp_path, player_file):
    """A generator that paints a colour over the embedded faces, hunted by a detector of colour: with the penalty it
    washes its colour out and escapes; without, it stays and is caught."""
    generator, detector = player_file("planted:Shift"), player_file("planted:Colour")
    settings = {"rounds": 2, "generator_steps": 60, "detector_steps": 80}
    plain = play(tmp_path, generator, detector, "plain", **settings)["rounds"][1]["before"]
    evading_run = play(tmp_path, generator, detector, "evading", evade=1.0, **settings)["rounds"][1]["before"]
    assert plain["escape"] < 0.2
    assert evading_run["escape"] > plain["escape"] + 0.3
    assert evading_run["auc"] < plain["auc"]


def test_a_loss_that_diverges_names_step_loss_and_files_and_rolls_back(tmp_path, player_file):
    with pytest.raises(DivergedError) as stop:
        play(tmp_path, player_file("planted:Diverging", at=4), "spectrum", generator_steps=9, save_seconds=0)
    message = str(stop.value)
    assert "loss of the generator became nan at step 4 of round 0" in message
    assert "faces/0/a/" in message
    assert "faces/0/b/" in message
    with Ledger(tmp_path / "run") as ledger:
        entry = ledger.saves("generator")[0]
        assert entry["step"] == 4
        state = torch.load(ledger.path(entry["file"]), weights_only=True)
        assert state["net"]["weight"].isfinite().all()


def test_weights_that_diverge_are_never_saved(tmp_path, player_file):
    """The loss of the last step is finite, its update is not."""
    with pytest.raises(DivergedError, match="weights of the generator"):
        play(tmp_path, player_file("planted:BadGradient"), "spectrum", generator_steps=3)
    with Ledger(tmp_path / "run") as ledger:
        assert ledger.saves("generator")[0]["step"] == 0


def test_a_round_in_which_nothing_changes_scores_the_same_before_and_after(tmp_path, player_file):
    summary = play(tmp_path, player_file("planted:Grey"), player_file("planted:Colour", lr=0.0), rounds=2)
    second = summary["rounds"][1]
    assert second["before"]["auc"] == second["after"]["auc"] == summary["rounds"][0]["after"]["auc"]


def test_replay_share_and_balance(tmp_path):
    from arena.data.feeds import Labelled, Store

    def store(value, n):
        return Store(np.full((n, 3, 2, 2), value, np.uint8), [f"{value}-{i}" for i in range(n)])

    feed = Labelled([store(0, 7), store(1, 5)], [store(10, 6), store(11, 6)], [store(20, 3)], 16, 0.5, "key")
    counts = {}
    for step in range(35):
        images, labels = feed[step]
        assert labels.tolist() == [0.0] * 8 + [1.0] * 8
        for value, label in zip(images[:, 0, 0, 0].tolist(), labels.tolist(), strict=True):
            assert (value >= 10) == (label == 1)
            counts[value] = counts.get(value, 0) + 1
        assert len(feed.names(step)) == 16
    assert counts == {0: 140, 1: 140, 10: 70, 11: 70, 20: 140}


def test_feed_starts_anywhere(tmp_path):
    from arena.data.feeds import Store, Unlabelled

    store = Store(np.random.default_rng(0).integers(0, 256, (9, 3, 2, 2), np.uint8), [str(i) for i in range(9)])
    dataset = Unlabelled([store, store], 2, "key")
    device = torch.device("cpu")
    whole, late = list(Feed(dataset, 0, 9, device)), list(Feed(dataset, 5, 9, device))
    assert all(torch.equal(x, y) for a, b in zip(whole[5:], late, strict=True) for x, y in zip(a, b, strict=True))
    seen = [int(name) for step in range(9) for name in dataset.names(step)[:2]]
    assert sorted(seen) == sorted([*range(9), *range(9)])  # two epochs, each image once in each
    assert whole[0][0].min() >= -1
    assert whole[0][0].max() <= 1


def test_a_fit_that_stops_by_itself_is_done(tmp_path, player_file):
    class Stops:
        def __init__(self):
            self.net = torch.nn.Linear(1, 1)

        def fit(self, fabric, batches):
            yield {"loss": torch.zeros(())}

    with Ledger(tmp_path) as ledger:
        from arena.data.feeds import Store, Unlabelled

        store = Store(np.zeros((4, 3, 2, 2), np.uint8), list("abcd"))
        dataset, fabric = Unlabelled([store], 2, "key"), build.fabric("cpu", "32-true")
        keywords = {"name": "detector", "round": 0, "steps": 10, "seed": 0, "ledger": ledger}
        train(fabric, Stops(), dataset, **keywords)
        assert ledger.saves("detector")[0]["step"] == 10
        assert (tmp_path / "rounds" / "00" / "detector.csv").read_text() == "step,loss\n0,0.0\n"


def test_domains_weigh_alike_where_a_detector_is_judged():
    from arena.data.source import balanced

    def rows(split, domain, n):
        return [{"name": f"{split}{domain}{i}", "split": split, "domain": domain} for i in range(n)]

    given = rows("train", "a", 9) + rows("train", "b", 5) + rows("val", "a", 4) + rows("val", "b", 4)
    given += rows("judge", "a", 3) + rows("judge", "b", 8)
    kept, notes = balanced(given, ("a", "b"), 0)
    counts = {
        (s, d): sum((r["split"], r["domain"]) == (s, d) for r in kept) for s in ("train", "val", "judge") for d in "ab"
    }
    expected = {("train", "a"): 9, ("train", "b"): 5, ("val", "a"): 4, ("val", "b"): 4}
    assert counts == {**expected, ("judge", "a"): 3, ("judge", "b"): 3}
    assert notes == ["5 judge images of domain b left out, so that both weigh alike"]
    assert balanced(given, ("a", "b"), 0) == (kept, notes)


@pytest.mark.parametrize("lost", ["generator", "detector"])
def test_a_lost_save_is_trained_again_to_the_same_end(tmp_path, player_file, monkeypatch, lost):
    """The newest save is gone though its fit is recorded: the fit is done again, and nothing else changes."""
    monkeypatch.setattr(Ledger, "trim_saves", lambda self: None)
    players = player_file("planted:Shift"), player_file("planted:Colour")
    settings = {"rounds": 2, "generator_steps": 6, "detector_steps": 6, "save_seconds": 0}
    expected = play(tmp_path, *players, **settings)
    root = tmp_path / "run"
    newest = root / json.loads((root / f"state/{lost}.json").read_text())[0]["file"]
    before, weights = torch.load(newest, weights_only=True), (root / f"rounds/01/{lost}.safetensors").read_bytes()
    for file in (newest, root / "summary.json", root / f"rounds/01/{lost}.safetensors"):
        file.unlink()
    again = play(tmp_path, *players, **settings)
    assert equal(torch.load(newest, weights_only=True), before)
    assert (root / f"rounds/01/{lost}.safetensors").read_bytes() == weights
    for a, b in zip(again["rounds"], expected["rounds"], strict=True):
        assert equal([a[k] for k in ("quality", "before", "after")], [b[k] for k in ("quality", "before", "after")])


def test_a_generator_that_evaded_is_not_trained_again_against_another_detector(tmp_path, player_file, monkeypatch):
    monkeypatch.setattr(Ledger, "trim_saves", lambda self: None)
    players = player_file("planted:Shift"), player_file("planted:Colour")
    settings = {"rounds": 2, "evade": 1.0, "save_seconds": 0}
    play(tmp_path, *players, **settings)
    root = tmp_path / "run"
    (root / json.loads((root / "state/generator.json").read_text())[0]["file"]).unlink()
    (root / "summary.json").unlink()
    with pytest.raises(InputError, match="has moved on"):
        play(tmp_path, *players, **settings)
