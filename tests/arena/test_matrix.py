"""The game across rounds: figures against hand-worked and simulated games, and the matrix of real runs."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from scipy.special import ndtr
from scipy.stats import binom

from arena import build, game, lineage
from arena.cli import Commands
from arena.config import resolve
from arena.errors import InputError, StoppedError
from arena.ledger import Ledger
from arena.matrix_command import matrix
from arena.metrics.detection import delong
from arena.ratings import league_auc, nash
from arena.report import game as shown
from arena.run import run
from arena.stored import stored_config
from arena.watch import Silent

RPS = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]])
SMALL = {
    "data": {"size": 32, "train": 40, "val": 20, "judge": 60},
    "generator_steps": 3, "detector_steps": 30, "detector_batch": 16, "rounds": 2,
}  # fmt: skip
PLANTED = """
import torch
from planted import Colour, Identity
from torch import nn


class Turncoat(Identity):
    '''Paints red into its source in one round, and takes red out of it in the next.'''

    def __init__(self):
        self.net = nn.Linear(1, 1, bias=False)
        nn.init.constant_(self.net.weight, -0.7)

    def fit(self, fabric, batches, *, penalty=None):
        with torch.no_grad():
            self.net.weight *= -1
        yield from super().fit(fabric, batches)

    def sample(self, source, *, rng, reverse=False):
        return (source + self.net.weight.view(1, 1, 1, 1) * torch.tensor([1.0, 0, 0]).view(3, 1, 1)).clamp(-1, 1)


class Stuck(Colour):
    '''Learns in the first fit of its life only.'''

    def fit(self, fabric, batches, *, val=()):
        if hasattr(self, "learnt"):
            for images, _ in batches:
                yield {"loss": images.new_zeros(())}
        else:
            self.learnt = True
            yield from super().fit(fabric, batches, val=val)
"""


def play(root, generator, detector, **settings):
    run(resolve([{"generator": generator, "detector": detector, **SMALL, **settings}], "smoke"), root, Silent())
    return read(root)


def read(root):
    return json.loads((root / "game" / "game.json").read_text())


def again(root, fresh=0):
    config = stored_config(root)
    with Ledger(root) as ledger:
        return game.Game(ledger, config, build.fabric("cpu", "32-true")).play(fresh)


def command(*words):
    group = Commands("arena")
    group.add_command(matrix)
    return CliRunner().invoke(group, ["matrix", *map(str, words)])


def untimed(found):
    return {key: value for key, value in found.items() if key != "seconds"}


def scores(rng, d_prime, n, shared=0.3, content=0.0):
    """Logits of the same reals and fakes by every detector; `content`: what a source's fakes have in common."""
    d, g = np.shape(d_prime)
    source = rng.normal(size=n)

    def seen(mean, common):
        return mean + np.sqrt(shared) * common + np.sqrt(1 - shared) * rng.normal(size=n)

    of_real = rng.normal(size=n)
    of_fakes = np.sqrt(content) * source + np.sqrt(1 - content) * rng.normal(size=(g, n))
    return [seen(0, of_real) for _ in range(d)], [
        [seen(d_prime[i, j], of_fakes[j]) for j in range(g)] for i in range(d)
    ]


def planted(auc):
    """Logits whose AUCs are exactly these (tenths): ten reals 0 ... 9, and fakes that all score alike."""
    reals = [np.arange(10.0)] * len(auc)
    return reals, [[np.full(10, 10 * value - 0.5) for value in row] for row in auc]


# The figures


def test_hand_worked():
    """Four rounds; the detector of round 2 forgot round 0, and the generator of round 3 got ahead."""
    auc = np.array([[0.9, 0.5, 0.4, 0.3], [0.8, 0.8, 0.6, 0.4], [0.6, 0.8, 0.9, 0.2], [0.7, 0.8, 0.9, 0.7]])
    played = lineage.table(*planted(auc))
    assert played.auc == pytest.approx(auc)
    found = lineage.figures([0, 1, 2, 3], played)

    def values(entries):
        return [entry["value"] for entry in entries]

    assert values(found["retention"]) == pytest.approx([0.8, 0.7, 0.8])
    assert values(entry["lost"] for entry in found["retention"]) == pytest.approx([0.1, 0.15, 0.2 / 3])
    assert [entry["worst"]["round"] for entry in found["retention"]] == [0, 0, 0]
    assert values(found["foresight"]) == pytest.approx([0.4, 0.5, 0.2])
    assert values(found["worst"]["detectors"]) == pytest.approx([0.3, 0.4, 0.2, 0.7])
    assert [entry["against"] for entry in found["worst"]["detectors"]][:3] == [3, 3, 3]
    assert values(found["worst"]["generators"]) == pytest.approx([0.9, 0.8, 0.9, 0.7])
    assert found["gap"]["value"] == pytest.approx(0.7 - 0.7)
    assert found["nash"]["value"] == pytest.approx(0.7)  # the last detector and one of two generators: a saddle point
    assert [entry["value"] for entry in found["nash"]["detectors"]] == [0, 0, 0, 1]
    step = found["moves"][2]
    assert (step["from"], step["to"]) == (2, 3)
    assert step["generator"]["value"] == pytest.approx(0.9 - 0.2)
    assert step["detector"]["value"] == pytest.approx(0.7 - 0.2)
    assert (step["before"]["value"], step["back"]["value"]) == pytest.approx((0.2, 0.9))


def test_the_gap_of_a_pair_that_others_beat():
    auc = np.array([[0.6, 0.9], [0.5, 0.7]])
    found = lineage.figures([0, 1], lineage.table(*planted(auc)))["gap"]
    assert found["value"] == pytest.approx(0.9 - 0.5)
    assert (found["detector"], found["generator"]) == (0, 0)


def test_the_covariance_is_that_of_the_league():
    rng = np.random.default_rng(0)
    reals, fakes = scores(rng, np.full((3, 2), 1.0), 50)
    auc, covariance = league_auc(reals, fakes)
    played = lineage.table(reals, fakes)
    assert played.auc == pytest.approx(auc)
    assert played.covariance == pytest.approx(covariance)
    assert (played.low[1, 1], played.high[1, 1]) == pytest.approx(delong(reals[1], fakes[1][1])[1:])


def test_fakes_of_one_source_hang_together():
    """The mean over rounds whose fakes share their sources: held only where the table knows of it."""
    rng = np.random.default_rng(1)
    truth = ndtr(1.2 / np.sqrt(2))
    held = {True: 0, False: 0}
    for _ in range(300):
        both = scores(rng, np.full((1, 8), 1.2), 100, shared=0.9, content=0.9)
        for paired in held:
            found = lineage.table(*both, paired).mean([(0, j) for j in range(8)])
            held[paired] += found["low"] <= truth <= found["high"]
    assert held[True] / 300 > 0.92
    assert held[False] < held[True] - 15


def test_smallest_largest_and_gap_hold_the_truth():
    """Of players who are all alike the observed extremes are the most misleading."""
    rng = np.random.default_rng(2)
    held, narrow = np.zeros(3), 0
    cells = [(0, j) for j in range(5)]
    for _ in range(200):
        played = lineage.table(*scores(rng, np.full((5, 5), 1.2), 100))
        truth = ndtr(1.2 / np.sqrt(2))
        for k, (found, value) in enumerate(
            ((played.smallest(cells), truth), (played.largest(cells), truth), (played.gap(), 0.0))
        ):
            assert found["low"] <= found["value"] <= found["high"]
            held[k] += found["low"] <= value <= found["high"]
        narrow += played.low[0].max() > truth
    assert (held / 200 > 0.94).all()
    assert narrow > 200 - held[1]  # the largest cell's own interval misses it more often


def test_a_lineage_of_known_skill_is_ranked_and_is_not_cyclic():
    rng = np.random.default_rng(3)
    order = np.arange(5) * 0.35
    rings = 0
    for _ in range(30):
        found = lineage.figures(list(range(5)), lineage.table(*scores(rng, 1 + np.subtract.outer(order, order), 300)))
        for side in ("detectors", "generators"):
            assert list(np.argsort([entry["value"] for entry in found["skill"][side]])) == list(range(5))
        rings += found["cyclic"]["found"]
    assert rings <= 3  # at 1 in 100


def test_rock_paper_scissors_is_called_cyclic():
    found = lineage.figures([0, 1, 2], lineage.table(*scores(np.random.default_rng(4), 1.5 + RPS, 200)))
    assert found["cyclic"]["found"]
    assert found["cyclic"]["low"] > 0.8
    shares = [entry["value"] for entry in found["nash"]["detectors"]]
    assert shares == pytest.approx([1 / 3] * 3, abs=0.12)
    page = {**found, "rounds": [0, 1, 2], "run": "r"}
    assert "goes in rings" in shown._rings(page)
    assert shown._committee(page).count("round") == 3


def test_the_value_of_the_game_and_its_interval(monkeypatch):
    nashpy = pytest.importorskip("nashpy")
    rng = np.random.default_rng(5)
    for shape in ((4, 4), (3, 6)):
        payoff = rng.uniform(0.4, 1, shape)
        value, row, column = lineage.solution(payoff)
        theirs = nashpy.Game(payoff).linear_program()
        assert value == pytest.approx(nashpy.Game(payoff)[theirs][0], abs=1e-6)
        assert (row @ payoff).min() == pytest.approx(value)
        assert (payoff @ column).max() == pytest.approx(value)
    saddle = np.array([[0.9, 0.6], [0.8, 0.5]])
    assert lineage.solution(saddle)[0] == pytest.approx(nash(saddle)[0]) == 0.6
    truth = nash(ndtr((1.2 + 0.8 * RPS) / np.sqrt(2)))[0]
    held = 0
    monkeypatch.setattr(lineage, "DRAWS", 80)
    for _ in range(25):
        found = lineage._nash([0, 1, 2], lineage.table(*scores(rng, 1.2 + 0.8 * RPS, 150)))
        held += found["low"] <= truth <= found["high"]
    assert held >= binom.ppf(0.001, 25, 0.95)


def test_where_every_fake_is_told_nothing_is_certain():
    reals, fakes = [np.zeros(40)] * 3, [[np.ones(40)] * 3] * 3
    found = lineage.figures([0, 1, 2], lineage.table(reals, fakes))
    json.dumps(found, allow_nan=False)
    for entry in (*found["retention"], *found["foresight"], found["nash"], *found["worst"]["detectors"]):
        assert entry["low"] < 0.999
        assert entry["high"] == 1
    assert found["moves"][0]["generator"]["value"] == 0
    assert found["moves"][0]["generator"]["low"] < -0.005
    assert not found["cyclic"]["found"]


def test_one_round_is_a_game_as_well():
    found = lineage.figures([0], lineage.table(*scores(np.random.default_rng(6), np.full((1, 1), 1.0), 50)))
    json.dumps(found, allow_nan=False)
    assert found["moves"] == found["retention"] == found["foresight"] == []
    assert found["cyclic"] is None
    assert found["gap"]["value"] == 0
    assert found["nash"]["value"] == pytest.approx(found["worst"]["detectors"][0]["value"])


@pytest.mark.parametrize(("gain", "verdict"), [(1.0, "more"), (0.0, "same"), (-1.0, "less")])
def test_the_honesty_row_is_paired_and_says_what_is_so(gain, verdict):
    level = np.full((5, 2), 1.2)
    level[2:] += gain
    level[:, 1] += 0.1
    played = lineage.table(*scores(np.random.default_rng(7), level, 200, shared=0.9))
    found = lineage.honesty([0, 1], played, 3)
    assert found["verdict"] == verdict
    assert len(found["seeds"]) == 3
    paired, alone = found["difference"], found["lineage"]
    assert paired["high"] - paired["low"] < 1.6 * (alone["high"] - alone["low"])


def test_seeds_that_disagree_make_no_claim():
    level = np.array([[0.5], [0.4], [0.6], [2.5]])  # one of three fresh detectors sees it
    played = lineage.table(*scores(np.random.default_rng(8), level, 400))
    found = lineage.honesty([0], played, 3)
    assert found["difference"]["value"] > 0.05
    assert found["verdict"] == "same"


@pytest.mark.parametrize("n", [200, 1000])
@pytest.mark.parametrize("truth", [0.76, 0.99])
def test_delongs_interval_covers_between_93_and_97_percent(truth, n):
    rng = np.random.default_rng(n)
    shift = np.sqrt(2) * torch.special.ndtri(torch.tensor(truth, dtype=torch.float64)).item()
    held = 0
    for _ in range(1500):
        _, low, high = delong(rng.normal(size=n), rng.normal(shift, 1, n))
        held += low <= truth <= high
    assert 0.93 <= held / 1500 <= 0.97


def test_reals_against_reals_are_at_chance_in_95_of_100():
    """One trained detector, one set of drawn faces, dealt into reals and "fakes" by lot."""
    from arena.data.faces import render

    player = build.build(resolve([{"generator": "cyclegan", "detector": "spectrum"}]).detector, 0)
    faces = render(0, range(240), 32).image
    images = torch.cat([faces[:60], game.noise(faces[:60], torch.Generator().manual_seed(0))]).float() / 127.5 - 1
    next(player.fit(build.fabric("cpu", "32-true"), [(images, torch.arange(120) // 60 * 1.0)]))
    logits = player.score(faces[60:].float() / 127.5 - 1).numpy()
    rng, held = np.random.default_rng(9), 0
    for _ in range(100):
        real, fake = np.split(rng.permutation(logits), 2)
        _, low, high = delong(real, fake)
        held += low <= 0.5 <= high
    assert binom.ppf(0.001, 100, 0.95) <= held <= binom.ppf(0.999, 100, 0.95)


# Runs


@pytest.fixture(scope="module")
def turncoat(tmp_path_factory):
    """A run whose generator changes sides, against a detector that learns but once."""
    folder = tmp_path_factory.mktemp("turncoat")
    (folder / "turncoat_players.py").write_text(PLANTED)
    for name in ("Turncoat", "Stuck"):
        (folder / f"{name.lower()}.yaml").write_text(f"of: turncoat_players:{name}\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        play(folder / "run", str(folder / "turncoat.yaml"), str(folder / "stuck.yaml"))
        yield folder / "run"


@pytest.fixture
def copy(turncoat, tmp_path):
    return Path(shutil.copytree(turncoat, tmp_path / "run"))


def test_source_unchanged_is_at_chance_and_grey_is_found_out(tmp_path, player_file):
    pairs = ("identity", "planted:Identity", player_file("planted:Colour")), ("grey", "planted:Grey", "spectrum")
    for name, generator, detector in pairs:
        found = play(tmp_path / name, player_file(generator), detector, rounds=1)
        table = found["matrix"]
        assert table["rows"] == ["0", "spectrum"]
        assert table["columns"] == ["0", "source", "blur", "noise"]
        auc, low, high = (np.array(table[key]) for key in ("auc", "low", "high"))
        assert auc[:, 1] == pytest.approx(0.5)
        if name == "identity":
            assert ((low[:, :2] < 0.5) & (high[:, :2] > 0.5)).all()
            assert "a2b" in found["domains"][0]["way"]
        else:
            assert (auc[:, 0] > 0.99).all()


def test_the_diagonal_is_what_the_rounds_recorded(turncoat):
    table = read(turncoat)["matrix"]
    for r in range(2):
        entry = json.loads((turncoat / "rounds" / f"{r:02d}" / "round.json").read_text())
        assert [table[key][r][r] for key in ("auc", "low", "high")] == [
            entry["after"][key] for key in ("auc", "auc_low", "auc_high")
        ]
    assert table["auc"][0][1] == entry["before"]["auc"]


def test_weights_in_the_folder_say_what_the_rounds_recorded(turncoat):
    """What the run had its players say, and what its files of weights say when they are read again."""
    config = stored_config(turncoat)
    with Ledger(turncoat) as ledger:
        played = game.Game(ledger, config, build.fabric("cpu", "32-true"), keep=False)
        for r in played.rounds:
            recorded, player = played.recorded(r), played.after(r)
            for column, expected in recorded.items():
                found = game.logits(player, played.stores(column), torch.device("cpu"))
                assert np.array_equal(found, expected), (r, column)


def test_a_generator_that_changes_sides_is_said_to_get_ahead(turncoat):
    found = read(turncoat)
    step = found["moves"][0]
    assert step["generator"]["sure"]
    assert step["generator"]["value"] > 0.5
    said = " ".join(shown.sentences(found))
    assert "From round 0 to 1 the generator got ahead" in said
    assert "training on them brings no sure gain" in said
    assert "was not tried" in said


def test_a_fresh_detector_sees_what_the_whole_line_missed(copy):
    assert max(row[1] for row in read(copy)["matrix"]["auc"][:2]) < 0.2
    found = again(copy, fresh=3)
    assert found["fresh"]["verdict"] == "more"
    assert found["fresh"]["auc"]["value"] > 0.9
    assert (found["fresh"]["steps"], found["fresh"]["capped"]) == (60, False)
    assert "see what the whole line missed" in shown.fresh_said(found)
    assert {path.name for path in (copy / "game").iterdir()} == {
        "detector-00.npz", "detector-01.npz", "spectrum.npz", "game.json",
        *(f"fresh-01-{seed}.npz" for seed in range(3)),
    }  # fmt: skip
    assert untimed(again(copy)) == untimed(found)  # they stay, and nothing is trained again


def test_fresh_detectors_come_seed_by_seed_and_stopped_ones_go_on(copy, monkeypatch):
    straight = again(copy, fresh=2)["fresh"]
    shutil.rmtree(copy / "game")
    again(copy, fresh=1)
    first = (copy / "game" / "fresh-01-0.npz").read_bytes()
    monkeypatch.setattr(game, "train", stopped_half_way(game.train))
    with pytest.raises(StoppedError):
        again(copy, fresh=2)
    monkeypatch.undo()
    assert (copy / "game" / "fresh-01-1").is_dir()
    assert again(copy, fresh=2)["fresh"] == straight
    assert (copy / "game" / "fresh-01-0.npz").read_bytes() == first
    assert not (copy / "game" / "fresh-01-1").exists()


def stopped_half_way(train):
    from arena.training import stopping

    def stop(*args, progress=None, **keywords):
        def ask(step, losses):
            if step >= 25:
                stopping.set()

        try:
            return train(*args, progress=ask, **keywords)
        finally:
            stopping.clear()

    return stop


def test_piece_by_piece_it_is_the_same_to_the_bit(copy, monkeypatch):
    whole = {path.name: path.read_bytes() for path in (copy / "game").glob("*.npz")}
    expected, later = read(copy), copy / "rounds" / "01" / "round.json"
    shutil.rmtree(copy / "game")
    later.rename(copy / "kept.json")
    first = again(copy)
    assert first["rounds"] == [0]
    assert first["matrix"]["columns"] == ["0", "source", "blur", "noise"]
    (copy / "kept.json").rename(later)

    scored = []
    real = game.Game.stores
    monkeypatch.setattr(game.Game, "stores", lambda self, column: (scored.append(column), real(self, column))[1])
    assert untimed(again(copy)) == untimed(expected)
    # of the detector of round 0 nothing (round 1 judged it before), of round 1 what it had not met, of the spectrum 01
    assert scored == ["00", "blur", "noise", "01"]
    assert {path.name: path.read_bytes() for path in (copy / "game").glob("*.npz")} == whole


def test_rows_that_are_damaged_or_of_other_weights_are_scored_again(copy):
    expected = read(copy)
    (copy / "game" / "detector-00.npz").write_bytes(b"PK no archive")
    with np.load(copy / "game" / "detector-01.npz") as arrays:
        held = dict(arrays)
    np.savez(copy / "game" / "detector-01.npz", **{**held, "stamp": np.array("other"), "00": held["00"] * 0})
    assert untimed(again(copy)) == untimed(expected)


def test_many_rounds_are_thinned(copy, monkeypatch):
    monkeypatch.setattr(game, "MOST", 1)
    found = again(copy)
    assert (found["rounds"], found["left_out"]) == ([0], 1)


def test_a_failure_costs_no_finished_run(copy, monkeypatch):
    said, expected = [], read(copy)

    class Notes(Silent):
        def note(self, text):
            said.append(text)

    shutil.rmtree(copy / "game")
    (copy / "report.html").unlink()
    monkeypatch.setattr(game.Game, "play", lambda self: 1 / 0)
    assert run(stored_config(copy), copy, Notes())["status"] == "finished"
    assert "division by zero" in said[-1]
    assert f"arena matrix {copy}" in said[-1]
    assert (copy / "report.html").exists()
    monkeypatch.undo()
    run(stored_config(copy), copy, Silent())  # shown again: the matrix is made up for
    assert untimed(read(copy)) == untimed(expected)


def test_clips_and_a_maker_of_stills(tmp_path, player_file):
    clips = {**SMALL, "data": {"source": "faces-clips", "size": 32, "train": 12, "val": 4, "judge": 16}, "rounds": 1}
    found = play(tmp_path / "clips", player_file("planted:Flicker"), player_file("planted:Motion", frames=4), **clips)
    assert (found["unit"], found["n_real"], found["n_fake"]) == ("clip", 32, 32)
    assert found["matrix"]["auc"][0][0] > 0.9  # seen by the motion
    assert found["matrix"]["auc"][0][-1] > 0.9  # noise moves, too
    few = {"size": 32, "train": 16, "val": 4, "judge": 16}
    found = play(tmp_path / "stills", "alae_mlp", player_file("planted:Colour"), rounds=1, data=few)
    assert found["domains"] is None
    assert found["matrix"]["rows"] == ["0", "spectrum"]


# The command and the page


def test_the_command_prints_tables_json_and_csv(copy, tmp_path):
    result = command(copy, "--csv", tmp_path / "m.csv")
    assert result.exit_code == 0, result.output
    for words in ("after round 1", "spectrum, frozen", "Who moved", "the generator got ahead"):
        assert words in result.output.replace("\n", " ")
    assert max(map(len, result.output.splitlines())) <= 80
    rows = (tmp_path / "m.csv").read_text().splitlines()
    assert rows[0] == "detector,fakes,auc,low,high,error,n_real,n_fake"
    assert len(rows) == 1 + 3 * 5
    found = json.loads(command(copy, "--json").stdout)
    assert found["matrix"] == read(copy)["matrix"]
    assert found["sentences"] == shown.sentences(found)
    assert rows[1].split(",")[2] == repr(found["matrix"]["auc"][0][0])


def test_a_run_in_use_is_shown_and_not_written_to(copy):
    (copy / "game" / "game.json").unlink()
    with Ledger(copy):
        result = command(copy, "--json")
        assert result.exit_code == 0
        assert "shown, not kept" in result.stderr
        assert command(copy, "--fresh", 1).exit_code == 2
    assert not (copy / "game" / "game.json").exists()


def test_what_has_no_matrix_is_told_in_a_line(tmp_path):
    given = resolve([{"generator": None, "detector": "spectrum", "data": {"source": "labelled"}}], "smoke")
    ready = resolve([{"generator": "cyclegan", "detector": "spectrum"}], "smoke")
    for name, config, words in (("given", given, "has no generator"), ("begun", ready, "no round that is over yet")):
        with Ledger(tmp_path / name) as ledger:
            ledger.write("run.json", {"settings": config.model_dump()})
        result = command(tmp_path / name)
        assert (result.exit_code, len(result.stderr.splitlines())) == (2, 1)
        assert words in result.stderr
    assert "no run.json" in command(tmp_path / "nothing").stderr
    with Ledger(tmp_path / "given") as ledger, pytest.raises(InputError):
        game.rounds_played(ledger, given)


def test_the_page_holds_every_figure_and_reads_on_light_and_dark(copy):
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    found = again(copy, fresh=1)
    folder = Path(shown.__file__).parent
    environment = Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.from_string('{% from "game.html" import game as section %}{{ section(game) }}')
    view = shown.view(copy / "game" / "game.json")
    html = page.render(game=view)
    for row in view["rows"]:
        assert row["name"] in html
        assert all(cell["text"] in html and cell["below"] in html for cell in row["cells"])
    assert sum(cell["own"] for row in view["rows"] for cell in row["cells"]) == 2
    assert max(cell["heat"] for row in view["rows"] for cell in row["cells"]) <= 40
    assert all(str(sentence).split(":")[0].replace("'", "&#39;") in html for sentence in view["sentences"])
    assert "as many as the line had in all" in html
    assert page.render(game=shown.view(copy / "game" / "game.json")) == html
    assert "http" not in html.replace("http://www.w3.org", "")
    assert found["fresh"]["steps"] == 60


def test_the_page_of_a_damaged_or_missing_matrix(tmp_path):
    from arena.report.round_files import Damaged

    path = tmp_path / "game.json"
    assert shown.view(path) is None
    for text in ("{", "[]", '{"schema": 9}', json.dumps({"schema": 1, **dict.fromkeys(shown.KEYS, 3)})):
        path.write_text(text)
        with pytest.raises(Damaged):
            shown.view(path)


def test_a_wide_matrix_fits_a_terminal():
    rounds = list(range(14))
    rng = np.random.default_rng(10)
    order = np.arange(14) * 0.1
    reals, fakes = scores(rng, 1 + np.subtract.outer(order, order), 60)
    played = lineage.table(reals, fakes)
    cells = {
        key: np.pad(getattr(played, key), ((0, 1), (0, 3)), constant_values=0.5).tolist()
        for key in ("auc", "low", "high")
    }
    keys = [*map(str, rounds), "spectrum"], [*map(str, rounds), "source", "blur", "noise"]
    found = {"rounds": rounds, "baseline": "spectrum", "matrix": {"rows": keys[0], "columns": keys[1], **cells}}
    table, hidden = shown.matrix_table(found, 80)
    assert hidden == 14 - (len(table.headers) - 4)
    assert table.headers[1] == "0"
    assert table.headers[-4:] == ["13", "source", "blur", "noise"]
    assert len(table.rows) == 15
    assert sum(max(len(row[k]) for row in table.rows) + 2 for k in range(len(table.headers))) <= 80
