"""The leaderboard: figures as the board has them, strangers' text inert, sorted by every column, fit for a phone."""

import csv
import json
import random
import re
from html.parser import HTMLParser

import pytest
from browser import Browser, chromium
from PIL import Image

from arena.errors import InputError
from arena.report.board import render, short, standings, write_board
from arena.report.board_csv import write_csv
from arena.report.board_data import name_of, plain

SCRIPT = "<script>alert(1)</script>\"'&{{ 7*7 }}<img src=x onerror=alert(2)>"
OVERRIDE = "Sly\u202egnp.exe\u2066\x00\x1b[31m"
FORMULA = '=HYPERLINK("http://evil.example/","prize")'
TEAMS = ["Aurora", "Borealis", "Cirrus & Söhne", "Team 10", "Team 9", SCRIPT, OVERRIDE, FORMULA, "Éclair", "שלום עולם"]
GENERATORS = [0, 1, 2, 3, 5, 6, 7, 9]
DETECTORS = [0, 1, 2, 4, 5, 6, 9]


def around(value, half=0.04, top=1.0):
    return {"value": value, "low": max(0.0, value - half), "high": min(top, value + half)}


def key(place):
    return f"team{place}-1a2b3c4d"


def example():
    """A rich event: ten teams, one of them out and one refused, strange names, figures missing here and there."""
    rng = random.Random(3)
    teams = [
        {
            "key": key(place), "team": name, "file": f"{name}.zip", "status": "scored", "reasons": [],
            "notes": ["test set scored twice"] if place == 2 else [], "tracks": ["generation", "detection"],
            "generator": "cyclegan" if place in GENERATORS else None,
            "detector": "cnnspot" if place in DETECTORS else None, "licence": "Apache-2.0" if place else SCRIPT,
        }
        for place, name in enumerate(TEAMS)
    ]  # fmt: skip
    teams[7] |= {"status": "out", "reasons": ["copied public reals: 93 % of its fakes", SCRIPT]}
    teams[8] |= {"status": "refused", "tracks": [],
                 "reasons": ["fakes/../../x: a name that leaves its folder", "+cmd|' /C calc'!A0"]}  # fmt: skip
    generation = [
        {
            "key": key(place), "team": TEAMS[place], "rank": rank, "fooled": around(0.9 - 0.11 * rank, 0.04),
            "rating": around(1700 - 60.5 * rank, 45, 9999), "coverage": around(rng.random()), "n": 200,
            "distance": {"name": "rfd-conv704", "value": 20.0 + rng.random(), "low": 19.5, "high": 22, "floor": 2.73},
            "density": around(2 * rng.random(), top=9), "copied": around(0.02), "container_auc": around(0.52),
            "why_unranked": None,
        }
        for rank, place in enumerate(GENERATORS, 1)
    ]  # fmt: skip
    generation[6] |= {"rank": None, "rating": None, "distance": None, "coverage": None,
                      "why_unranked": "copied public reals"}  # fmt: skip
    detection = [
        {
            "key": key(place), "team": TEAMS[place], "rank": rank, "auc": around(0.96 - 0.03 * rank),
            "worst": {"team": TEAMS[GENERATORS[rank % 4]], **around(0.7 - 0.02 * rank)},
            "tpr_at_1_fpr": 0.5 - 0.03 * rank, "ece": 0.02 * rank, "brier": 0.1 + 0.005 * rank,
            "rating": around(1620 - 41 * rank, 40, 9999), "parameters": 23_512_000 // rank, "flops": 4.1e9 / rank,
            "ms": 12.5 * rank, "megabytes": 94.1 / rank, "test_auc": around(0.9), "control_auc": around(0.5),
            "house": False, "why_unranked": None,
        }
        for rank, place in enumerate(DETECTORS, 1)
    ]  # fmt: skip
    house = {"key": "house-spectrum", "team": "spectrum", "house": True, "rank": None, "why_unranked": None}
    detection.append({**detection[3], **house, "worst": None, "parameters": 385, "flops": None, "ms": 0.4})
    scores = [
        {"key": "csv-11", "team": "Team 9", "rank": 1, "auc": around(0.91), "tpr_at_1_fpr": 0.4, "ece": 0.1},
        {**detection[0], "rank": None, "model": True},
        {"key": key(8), "team": TEAMS[8], "rank": 2, "auc": around(0.88), "tpr_at_1_fpr": None, "ece": 0.2},
    ]
    cells = [
        [around(min(1.0, 0.45 + 0.06 * (up + 1) + 0.04 * down)) | {"n_real": 200, "n_fake": 200} for down in range(8)]
        for up in range(8)
    ]
    cells[0][3], cells[7][7], cells[2][5] = None, None, around(0.31)
    return {
        "schema": 1,
        "challenge": {"id": "faces-1a2b3c4d", "title": "Faces of spring: who fools whom?", "size": 64, "frames": 1,
                      "tracks": ["generation", "detection"], "codec": "jpeg-90", "n_real": 200, "n_fakes": 200,
                      "n_test": 80},
        "protocol": [["reals", "200 secret reals, sha256 ab12"], ["codec", "all images once through JPEG at 90"]],
        "protections": ["seccomp: no network", "4 GB of memory, 60 s of processor time a job"],
        "warnings": ["only 200 fakes a team: differences below 0.05 cannot be told"],
        "teams": teams, "generation": generation, "detection": detection, "scores": scores,
        "matrix": {
            "detectors": [{"key": row["key"], "team": row["team"]} for row in detection],
            "generators": [{"key": row["key"], "team": row["team"]} for row in generation],
            "cells": cells, "own": True,
        },
        "league": {"cyclic": around(0.08), "text": "The league is nearly transitive: one rating tells most of it."},
    }  # fmt: skip


def empty(**parts):
    nothing = {"teams": [], "generation": [], "detection": [], "scores": [], "league": None, "warnings": []}
    return {**example(), **nothing, "matrix": {"detectors": [], "generators": [], "cells": [], "own": True}, **parts}


class Page(HTMLParser):
    """Checks that tags balance; keeps tags, attributes, and text."""

    def __init__(self, html):
        super().__init__()
        self.open, self.tags, self.attributes, self.text = [], [], [], []
        self.feed(html)
        self.close()
        assert self.open == []
        self.text = re.sub("[ \\n]+", " ", " ".join(self.text))

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attributes]
        if tag not in ("meta", "img", "path", "use", "rect"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.attributes += [(tag, name, value or "") for name, value in attributes]

    def handle_endtag(self, tag):
        if tag not in ("path", "use", "rect"):
            assert self.open.pop() == tag

    def handle_data(self, text):
        if not self.open or self.open[-1] not in ("style", "script"):
            self.text.append(text)


def test_shows_the_figures_of_the_board():
    page = Page(render(example()))
    for said in (
        "Faces of spring: who fools whom?", "79.0\u00a0% 75.0\u00a0%–83.0\u00a0%", "0.930 0.890–0.970", "1,640",
        "floor 2.73", "rfd-conv704", "23.5\u00a0M", "4.10\u00a0G", "385", "94.1", "house", "model",
        "copied public reals: 93 % of its fakes", "a name that leaves its folder", "4 GB of memory",
        "only 200 fakes a team", "nearly transitive", "arena submit score CHALLENGE SUBMISSIONS --out BOARD", "0.310",
    ):  # fmt: skip
        assert said in page.text, said
    assert page.tags.count("table") == 5  # generation, detection, scores, matrix, protocol
    assert page.tags.count("svg") == 2
    assert render(example()) == render(example())


def test_tiles_count_teams_and_pairs():
    text = Page(render(example())).text
    own = len(set(GENERATORS) & set(DETECTORS))
    assert f"Pairs played {8 * 8 - 2 - own} and {own} own pairs, not counted" in text
    board = example()  # the same, said of each pair
    del board["matrix"]["own"]
    for up, detector in enumerate(board["matrix"]["detectors"]):
        for across, generator in enumerate(board["matrix"]["generators"]):
            if cell := board["matrix"]["cells"][up][across]:
                board["matrix"]["cells"][up][across] = {**cell, "own": detector["key"] == generator["key"]}
    assert Page(render(board)).text == text
    assert "Teams 10 handed in" in text
    assert "Out 1" in text
    assert "Refused 1" in text
    assert "Ranked 9 7 in generation, 7 in detection, 2 in scores" in text


def test_strangers_text_is_inert():
    html = render(example())
    page = Page(html)
    assert page.tags.count("script") == 1
    assert "img" not in page.tags
    assert not [entry for entry in page.attributes if entry[1].startswith("on")]
    assert "{{ 7*7 }}" in page.text
    assert not re.search("[\u202a-\u202e\x00-\x08\x0b\x0c\x0e-\x1f]", html)
    assert "Sly⟨U+202E⟩gnp.exe⟨U+2066⟩⟨U+0000⟩⟨U+001B⟩[31m" in page.text
    assert html.count("\u2068") == html.count("\u2069") > 0  # what runs to the left is isolated
    assert "&lt;script&gt;alert" in html[html.index('aria-label="Ratings of generators') :].split("</svg>")[0]


def test_asks_nothing_of_the_network():
    page = Page(render(example()))
    policy = next(value for tag, name, value in page.attributes if tag == "meta" and "default-src" in value)
    assert re.fullmatch(
        r"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-[\w+/]{43}='; "
        r"base-uri 'none'; form-action 'none'", policy)  # fmt: skip
    for _, name, value in page.attributes:
        assert not (name in ("src", "href", "action", "srcset", "xlink:href") and not value.startswith(("data:", "#")))
        assert "url(http" not in value


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (None, ""), ("a\r\nb\u2028c", "a  b c"), ("e" + "\u0301" * 40, "e" + "\u0301" * 3), ("\ud800", "⟨U+D800⟩"),
        ("x" * 999, "x" * 599 + "…"), ("می\u200cخواهم", "می\u200cخواهم"), ("\u3164", "⟨U+3164⟩"), (7, "7"),
    ],
)  # fmt: skip
def test_plain(text, shown):
    assert plain(text) == shown


def test_a_name_that_shows_nothing_gives_way_to_the_key():
    assert name_of({"team": " \u200d ", "key": "aurora-1"}) == "aurora-1"
    assert name_of({}) == "(no name)"


@pytest.mark.parametrize(
    ("second", "said"),
    [
        (
            around(0.5),
            "leads clearly: its fakes bring detectors 80.0\u00a0% (76.0\u00a0%\u2060–\u206084.0\u00a0%) of the way",
        ),
        (around(0.76), "and the intervals overlap"),
        ({"value": 0.7}, "how surely cannot be told"),
        (None, "follows with an unknown figure"),
    ],
)
def test_claims_a_lead_only_where_intervals_part(second, said):
    rows = [{"team": "B", "rank": 2, "fooled": second}, {"team": "A", "rank": 1, "fooled": around(0.8)}]
    first, other = standings(empty(generation=rows))
    assert said in first
    assert first.startswith("In generation A ")
    assert other == "In detection nobody is ranked."
    rows[0]["rank"] = 1
    assert standings(empty(generation=rows))[0] == "In generation B and A share the first place."


def test_two_teams_of_one_name_are_told_apart():
    rows = [{"key": f"{name}-1", "team": name, "rank": 1} for name in ("Aurora", "aurora", "Cirrus")]
    text = Page(render(empty(generation=rows))).text
    assert "Aurora Aurora-1" in text
    assert "aurora aurora-1" in text
    assert "Cirrus-1" not in text


def test_short():
    assert [short(n) for n in (None, 0, 385, 23_512_000, 4.1e9)] == ["–", "0", "385", "23.5\u00a0M", "4.10\u00a0G"]


def only(*parts):
    """The example with some of its parts alone."""
    return empty(**{part: example()[part] for part in parts})


@pytest.mark.parametrize(
    "board",
    [
        empty(),
        only("teams", "generation"),
        only("teams", "detection"),
        only("scores"),
        empty(teams=example()["teams"][:1], generation=example()["generation"][:1]),
        empty(teams=[{**team, "status": "refused"} for team in example()["teams"]]),
        empty(generation=[{"key": "a", "team": "A", "rank": None}], detection=[{"key": "a"}]),
        empty(matrix={"detectors": [{"key": "a"}], "generators": [{"key": "b"}], "cells": [[None]], "own": True}),
        {"schema": 1, "challenge": {"id": "x"}},
    ],
)
def test_empty_boards(board, tmp_path):
    page = Page(render(board))
    assert "What each column means" in page.text
    assert "None" not in page.text.replace("None of", "")
    write_csv(tmp_path, board)
    assert (tmp_path / "matrix.csv").read_text().startswith("detector,generator,auc,low,high,n_real,n_fake\n")


def test_damaged_boards_are_refused_in_one_line(tmp_path):
    for text in ("{", "[]", '{"schema": 1}', '{"schema": 2, "challenge": {"id": "x"}}'):
        (tmp_path / "board.json").write_text(text)
        with pytest.raises(InputError, match=r"board\.json"):
            write_board(tmp_path)
    assert not (tmp_path / "leaderboard.html").exists()


def test_csv_holds_every_figure_and_no_formula(tmp_path):
    board = example()
    board["teams"][1]["team"] = "-5.5e3"
    write_csv(tmp_path, board)
    rows = list(csv.DictReader((tmp_path / "teams.csv").open(newline="", encoding="utf-8")))
    assert [row["key"] for row in rows[:10]] == [key(place) for place in range(10)]
    assert [row["status"] for row in rows[7:12]] == ["out", "refused", "scored", "house", "house"]
    first, given = rows[0], board["generation"][0]
    assert float(first["generation_fooled"]) == given["fooled"]["value"]
    assert float(first["generation_fooled_low"]) == given["fooled"]["low"]
    assert float(first["generation_distance_floor"]) == 2.73
    assert int(first["detection_parameters"]) == 23_512_000
    assert float(first["model_auc"]) == board["detection"][0]["auc"]["value"]
    assert first["tracks"] == "generation; detection"
    assert rows[1]["team"] == "-5.5e3"  # a number stays one
    assert rows[7]["team"] == "'" + FORMULA
    assert rows[8]["reasons"].startswith("fakes/")
    assert not [c for row in rows for c in row.values() if c[:1] in ("=", "+", "@")]
    pairs = list(csv.DictReader((tmp_path / "matrix.csv").open(newline="", encoding="utf-8")))
    assert len(pairs) == 62
    assert (pairs[0]["detector"], pairs[0]["generator"], float(pairs[0]["auc"])) == (key(0), key(0), 0.51)
    assert pairs[0]["n_fake"] == "200"


def folder_of(board, tmp_path):
    for place in (0, 1, 2, 7):
        path = tmp_path / "teams" / key(place) / "preview.png"
        path.parent.mkdir(parents=True)
        Image.effect_mandelbrot((160, 80), (-2.2, -1.2, 1.0, 1.2), 9 + 12 * place).save(path)
    (tmp_path / "board.json").write_text(json.dumps(board))
    return write_board(tmp_path)


def test_previews_of_scored_teams_alone(tmp_path):
    board = example()
    board["teams"].append({**board["teams"][0], "key": "../outside"})
    (tmp_path / "in").mkdir()
    html = folder_of(board, tmp_path / "in").read_text("utf-8")
    assert Page(html).tags.count("img") == 3  # not the one that is out
    assert "no photographs" in html
    preview = tmp_path / "in/teams" / key(0) / "preview.png"
    bomb = bytearray(preview.read_bytes())
    bomb[16:20] = (100_000).to_bytes(4, "big")
    for content in (b"GIF89a" + bytes(99), bytes(bomb), preview.read_bytes() + bytes(400_000)):
        preview.write_bytes(content)
        assert Page(write_board(tmp_path / "in").read_text("utf-8")).tags.count("img") == 2
    Image.new("RGB", (9, 9)).save(tmp_path / "outside.png")
    preview.unlink()
    preview.symlink_to(tmp_path / "outside.png")
    assert Page(write_board(tmp_path / "in").read_text("utf-8")).tags.count("img") == 2


def test_a_full_event_stays_below_5_megabytes(tmp_path):
    board = example()
    for place in range(30):
        board["teams"].append({**board["teams"][0], "key": f"more-{place}"})
        path = tmp_path / "teams" / f"more-{place}" / "preview.png"
        path.parent.mkdir(parents=True)
        Image.effect_noise((600, 600), 60).save(path)
        assert 200_000 < path.stat().st_size < 400_000
    (tmp_path / "board.json").write_text(json.dumps(board))
    assert write_board(tmp_path).stat().st_size < 5_000_000


# ---- in a browser ----------------------------------------------------------------------------------------------------

needs_browser = pytest.mark.skipif(not chromium(), reason="no Chromium here")


@pytest.fixture(scope="module")
def browser():
    with Browser() as page:
        yield page


COLUMNS = "[...document.querySelectorAll('table.sorts')].map(t => t.tHead.rows[0].cells.length)"
READ = """(([table, place]) => {
  const it = document.querySelectorAll('table.sorts')[table], head = it.tHead.rows[0].cells[place];
  return {way: head.getAttribute('aria-sort'), kind: head.dataset.kind, first: head.dataset.first,
          others: [...it.querySelectorAll('[aria-sort]')].filter(h => h.getAttribute('aria-sort') != 'none').length,
          shown: [...it.tBodies[0].rows].map(row => row.cells[place].firstChild.textContent),
          keys: [...it.tBodies[0].rows].map(row => row.cells[place].dataset.sort ?? null)};
})"""
PRESS = "(([table, place]) => document.querySelectorAll('table.sorts')[table].tHead.rows[0].cells[place]\
.querySelector('button').click())"
CONTRAST = """(() => {
  const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
  const bytes = colour => { canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3); };
  const light = rgb => rgb.map(v => v / 255).map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  return Math.min(...[...document.querySelectorAll('.duels td.sees, .duels td.fooled')].flatMap(cell =>
    [cell, ...cell.querySelectorAll('small')].map(part => {
      const a = light(bytes(getComputedStyle(part).color)), b = light(bytes(getComputedStyle(cell).backgroundColor));
      return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05); })));
})()"""  # WCAG 2.2, "contrast ratio" and "relative luminance"


@needs_browser
def test_every_header_of_every_table_sorts_both_ways(browser, tmp_path):
    browser.open(folder_of(example(), tmp_path))
    counts = browser.run(COLUMNS)
    assert counts == [10, 14, 5, 9]
    seen = 0
    for table, count in enumerate(counts):
        for place in range(count):
            was = browser.run(f"{READ}([{table}, {place}])")
            ways = []
            for _ in range(2):
                browser.run(f"{PRESS}([{table}, {place}])")
                found = browser.run(f"{READ}([{table}, {place}])")
                assert found["others"] == 1
                known = [key for key in found["keys"] if key is not None]
                assert found["keys"][: len(known)] == known, "missing figures stand last"
                assert sorted(found["shown"]) == sorted(was["shown"])
                if found["kind"] == "number":
                    numbers = [float(key) for key in known]
                    assert numbers == sorted(numbers, reverse=found["way"] == "descending")
                ways.append(found["way"])
                seen += len(known)
            assert sorted(ways) == ["ascending", "descending"]
            if (table, place) != (0, 0) and not (place == 0 and table < 3):  # these are sorted by rank already
                assert ways[0] == found["first"]
    assert seen > 500
    browser.run(f"{PRESS}([1, 1])")  # names as people sort them: capitals and accents aside, numbers as numbers
    names = browser.run(f"{READ}([1, 1])")["shown"]
    assert names.index("Borealis") < names.index("spectrum") < names.index("Team 9")
    assert browser.errors == []
    assert browser.requests == []


@needs_browser
def test_sorting_keeps_ties_in_order_and_obeys_the_keyboard(browser, tmp_path):
    browser.open(folder_of(example(), tmp_path))
    heads = browser.run("[...document.querySelectorAll('table.sorts')[0].tHead.rows[0].cells].map(h => h.innerText)")
    fooled, copied = (next(n for n, head in enumerate(heads) if what in head) for what in ("fooled", "copied"))
    browser.run(f"{PRESS}([0, {fooled}])")
    order = browser.run(f"{READ}([0, 1])")["shown"]
    head = f"document.querySelectorAll('table.sorts')[0].tHead.rows[0].cells[{copied}]"
    browser.run(f"{head}.querySelector('button').focus()")
    for key, way in (("Enter", "ascending"), (" ", "descending")):
        browser.press(key)
        assert browser.run(f"{head}.getAttribute('aria-sort')") == way
        assert browser.run(f"{READ}([0, 1])")["shown"] == order  # all have copied the same share


@needs_browser
@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [390, 1280])
def test_fits_and_reads_on_phone_and_desk(browser, tmp_path, width, dark):
    board = example()
    board["challenge"]["title"] = board["teams"][3]["reasons"] = "W" * 300
    board["teams"][8]["reasons"], board["warnings"] = ["x" * 590], ["y" * 590]
    board["generation"][0]["team"] = board["detection"][0]["team"] = "M" * 60
    browser.open(folder_of(board, tmp_path), width=width, dark=dark)
    assert browser.run("innerWidth") == width
    assert browser.run("document.documentElement.scrollWidth - document.documentElement.clientWidth") == 0
    assert browser.run("matchMedia('(prefers-color-scheme: dark)').matches") is dark
    stuck = browser.run("Math.max(...[...document.querySelectorAll('.sorts .name')].map(cell => cell.offsetWidth))")
    assert 60 < stuck < 0.45 * width  # names stay in sight while figures pass, and leave them room
    assert browser.run(CONTRAST) > 4.5
    assert browser.errors == []
    assert browser.requests == []


@needs_browser
def test_a_script_that_slipped_in_would_be_refused(browser, tmp_path):
    path = folder_of(example(), tmp_path)
    html = path.read_text("utf-8")
    path.write_text(html.replace("</main>", "</main><script>window.slipped = 1</script><img src='http://a.example/'>"))
    browser.open(path)
    assert browser.run("window.slipped === undefined") is True
    assert len(browser.errors) == 2
    browser.run("document.querySelector('table.sorts button').click()")  # the page's own still runs
    assert browser.run("document.querySelector('table.sorts th').getAttribute('aria-sort')") == "descending"
