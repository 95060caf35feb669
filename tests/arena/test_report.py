"""The report: figures equal to the ledger's, one file without outside requests, hostile names, runs of every state."""

import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw
from PIL.PngImagePlugin import PngInfo

from arena.errors import InputError
from arena.report import round_files, write_report
from arena.report.compare import curves
from arena.report.ledger_view import Estimate, rounds_of
from arena.report.round_files import SHOWN, shown_rounds
from arena.report.table import MISSING, amount, duration, round_table, unit
from arena.report.tournament import far
from arena.report.words import verdict

ROOT = Path(__file__).parents[2]
HOSTILE = "<script>alert(1)</script>\"'&{{ 7*7 }}<img src=x onerror=alert(2)>"
GENERATOR = ["cycle_a", "cycle_b", "identity_a", "identity_b", "adversarial_a", "adversarial_b", "loss_d_a", "loss_d_b"]


def auc_with_interval(real, fake):
    """Mann-Whitney, with Hanley and McNeil's standard error on the logit scale: good enough for a made-up ledger."""
    auc = float(np.clip(np.mean(fake[:, None] > real[None, :]), 1e-3, 1 - 1e-3))
    a, b = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    variance = auc * (1 - auc) + (len(fake) - 1) * (a - auc**2) + (len(real) - 1) * (b - auc**2)
    variance /= len(fake) * len(real)
    centre, half = np.log(auc / (1 - auc)), 1.96 * np.sqrt(variance) / (auc * (1 - auc))
    return auc, *(float(1 / (1 + np.exp(-end))) for end in (centre - half, centre + half))


def scores(real, fake, threshold):
    auc, low, high = auc_with_interval(real, fake)
    strict = np.quantile(real, 0.99)
    eer = min(max(float(np.mean(real >= t)), float(np.mean(fake < t))) for t in np.r_[real, fake])
    right = (np.mean(real < threshold) + np.mean(fake >= threshold)) / 2
    return {
        "auc": auc, "auc_low": low, "auc_high": high, "ap": min(1.0, auc + 0.004), "eer": eer, "n_real": len(real),
        "n_fake": len(fake), "accuracy": float((np.mean(real < 0) + np.mean(fake >= 0)) / 2), "threshold": threshold,
        "accuracy_frozen": float(right), "tpr_at_1_fpr": float(np.mean(fake > strict)),
        "escape": float(np.mean(fake < threshold)),
    }  # fmt: skip


def face(rng, size, worn=0.0):
    """A drawn head; `worn` adds what a generator gets wrong."""
    skin, hair, wall = (tuple(map(int, rng.integers(*ends, 3))) for ends in ((120, 235), (20, 130), (90, 230)))
    big = Image.new("RGB", (size * 2, size * 2), wall)
    draw, s = ImageDraw.Draw(big), size * 2
    draw.ellipse((0.2 * s, 0.1 * s, 0.8 * s, 0.75 * s), fill=hair)
    draw.ellipse((0.27 * s, 0.2 * s, 0.73 * s, 0.85 * s), fill=skin)
    for x in (0.4, 0.6):
        draw.ellipse(((x - 0.05) * s, 0.44 * s, (x + 0.05) * s, 0.5 * s), fill="white")
        draw.ellipse(((x - 0.02) * s, 0.45 * s, (x + 0.02) * s, 0.5 * s), fill=hair)
    draw.arc((0.4 * s, 0.6 * s, 0.6 * s, 0.72 * s), 10, 170, fill=(150, 60, 60), width=max(2, s // 40))
    pixels = np.asarray(big.resize((size, size), Image.Resampling.BILINEAR), np.float64)
    checks = 40 * worn * ((np.indices((size, size)).sum(0) % 4 < 2) - 0.5)
    pixels = pixels * (1 - 0.35 * worn) + 60 * worn + checks[..., None] + rng.normal(0, 4 + 20 * worn, pixels.shape)
    return np.clip(pixels, 0, 255).astype(np.uint8)


def save_sheet(path, rows, gap=2):
    size = rows[0][0].shape[0]
    picture = np.full((len(rows) * (size + gap) + gap, len(rows[0]) * (size + gap) + gap, 3), 255, np.uint8)
    for r, row in enumerate(rows):
        for c, image in enumerate(row):
            top, left = gap + r * (size + gap), gap + c * (size + gap)
            picture[top : top + size, left : left + size] = image
    text = PngInfo()
    text.add_text("Synthetic", "true")
    Image.fromarray(picture).save(path, "PNG", pnginfo=text)


SMALL = {"size": 16, "steps": 8, "losses": ["loss_g"]}


def make_ledger(run, rounds=3, *, size=32, status="finished", baseline=True, fid=False, ways=("a2b", "b2a"),
                name="cyclegan-cnnspot-faces-s0", evil="", n=200, steps=150, losses=GENERATOR):  # fmt: skip
    """A run folder with made-up but consistent figures and drawn faces."""
    rng = np.random.default_rng(3)
    (run / "data").mkdir(parents=True)
    counts = {"train": 60, "val": 10, "judge": 30}
    with (run / "data" / "manifest.jsonl").open("w") as file:
        for split, count in counts.items():
            for domain in "ab":
                for i in range(count):
                    row = {
                        "name": f"{evil}{domain}/{split}-{i:04d}.png",
                        "sha256": f"{split}{domain}{i}",
                        "width": size,
                    }
                    row |= {"height": size, "format": "PNG", "bytes": 9000 + i, "domain": domain, "split": split}
                    file.write(json.dumps(row | {"group": f"{split}-{domain}-{i // 4}"}) + "\n")
    entries = []
    panel = [[face(rng, size) for _ in range(8)] for _ in range(4)]
    for r in range(rounds):
        folder = run / "rounds" / f"{r:02d}"
        folder.mkdir(parents=True)
        apart, worn = 3.4 + 0.4 * min(r, 3), 0.7 / (1 + r)
        arrays = {"after_real": rng.normal(-2, 1.1, n), "after_fake": rng.normal(-2 + apart, 1.4, n)}
        entry = {"round": r, "before": None, "after": scores(arrays["after_real"], arrays["after_fake"], -0.3)}
        if r:
            arrays |= {"before_real": rng.normal(-2, 1.1, n), "before_fake": rng.normal(-0.5 + 0.3 * min(r, 4), 1.6, n)}
            entry["before"] = scores(arrays["before_real"], arrays["before_fake"], -0.25)
        entry["baseline"] = None
        if baseline:
            real, fake = rng.normal(-1, 1.2, n), rng.normal(1.5 - 0.2 * min(r, 5), 1.3, n)
            arrays |= {"baseline_real": real, "baseline_fake": fake}
            entry["baseline"] = {"name": "spectrum", **scores(real, fake, 0.0)}
        np.savez(folder / "scores.npz", **arrays)
        quality = {}
        for place, way in enumerate(ways):
            scale = (0.8 + 0.9 / (1 + r)) * (1 + 0.2 * place)
            for metric, factor, floor in (("fid", 80, 31), ("rfd-conv704-s0", 1, 0.31), ("rfd-conv704-s1", 1.2, 0.35),
                                          ("kid-conv704-s0", 0.004, 0.0001), ("sfd", 12, 0.2)):  # fmt: skip
                if metric != "fid" or fid:
                    value = scale * factor
                    key = f"{evil}{metric}:{way}" if way else metric
                    quality[key] = {"value": value, "low": value * 0.93, "high": value * 1.07, "n": n, "floor": floor,
                                    "features": "random convolutions, 704 dims"}  # fmt: skip
                    if metric == "sfd":
                        at = np.arange(1, size // 2 + 1) / size
                        reals = -20 - 30 * np.log10(at * size)
                        bump = np.where(at > 0.4, (6 + 3 * place) / (1 + r), 0.0)
                        curves = {"frequency": at, "reals": reals, "reals_low": reals - 4, "reals_high": reals + 4}
                        curves["fakes"] = reals + bump
                        quality[key]["curve"] = {line: curve.tolist() for line, curve in curves.items()}
        entry["quality"] = quality
        seconds = {"train generator": 75 + r, "forge": 3.1, "judge before": 2.2 * (r > 0), "train detector": 52.0,
                   "judge after": 2.4, "record": 9.5}  # fmt: skip
        entry["seconds"] = seconds
        entry["images_per_second"] = {
            "train generator": 4.1,
            "forge": 160.0,
            "train detector": 32.0,
            "judge after": 180.0,
        }
        entries.append(entry)
        rows = []
        for place in range(len(ways)):
            targets = panel[2 * place + 1]
            fakes = [np.clip(x + rng.normal(0, 60 * worn, x.shape), 0, 255).astype(np.uint8) for x in targets]
            rows += [panel[2 * place], fakes, targets]
        save_sheet(folder / "sheet.png", rows)
        save_sheet(folder / "extremes.png", [[face(rng, size, w) for _ in range(8)] for w in (worn, worn / 4)])
        listed = {
            kind: [{"name": f"{evil}fake of round {r}: judge-{i:04d}", "logit": sign * (4 - 0.3 * i)} for i in range(8)]
            for kind, sign in (("easiest", 1), ("hardest", -1))
        }
        (folder / "extremes.json").write_text(json.dumps(listed))
        for who, names in (("generator", losses), ("detector", ["loss"])):
            step = np.arange(steps) + steps * r
            with (folder / f"{who}.csv").open("w") as file:
                file.write(",".join(["step", *(evil.replace('"', "") + name for name in names)]) + "\n")
                for i in step:
                    values = [(1 + k / 3) * np.exp(-i / 200) + 0.2 + 0.1 * rng.random() for k in range(len(names))]
                    file.write(",".join([str(i % steps), *map(repr, map(float, values))]) + "\n")
    summary = {
        "schema": 1, "run": evil + name, "status": status,
        "settings": {
            "preset": "quick", "seed": 0,
            "generator": {"name": "cyclegan", "of": "gen.cyclegan:CycleGAN", "options": {"width": 32}},
            "detector": {"name": "cnnspot", "of": "detect.cnnspot:CNNSpot", "options": {"stem_stride": 2, "p": 0.1}},
            "data": {"source": "faces", "size": size, "train": 400}, "rounds": max(rounds, 3), "generator_steps": steps,
            "evade": 0.0, "baseline": None, "precision": "32-true",
        },
        "provenance": {
            "arena": "0.1.0", "python": "3.11.7", "torch": "2.15.0", "device": "cpu: AMD EPYC, 2 threads",
            "command": f"arena run --generator cyclegan --detector cnnspot {evil}", "git": "abc1234",
            "started": "2026-11-21T05:00:00+00:00",
            "ended": "2026-11-21T05:08:12+00:00" if status == "finished" else None,
            "weights": {"cyclegan": "from scratch", "cnnspot": "from scratch: ImageNet weights were not found"},
        },
        "data": {"name": evil + "faces", "manifest": "data/manifest.jsonl", "skipped": 0, "duplicates": 0,
                 "images": {split: {"a": c, "b": c} for split, c in counts.items()}, "reference": "9f" * 32},
        "notes": [evil + "FID's Inception weights were not found: a panel under other names stands in"],
        "rounds": entries,
    }  # fmt: skip
    (run / "summary.json").write_text(json.dumps(summary))
    return summary


VOID = {"meta", "img", "br", "hr", "input", "link"}


class Page(HTMLParser):
    """Checks that tags balance; keeps what tests ask about."""

    def __init__(self, html):
        super().__init__()
        self.open, self.tags, self.attributes, self.rows, self.text = [], [], [], [], []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += [(tag, key, value or "") for key, value in attributes]
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th") and self.rows:
            self.rows[-1].append("")

    def handle_startendtag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += [(tag, key, value or "") for key, value in attributes]

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open[-1:]:
            self.text.append(data)
        if {"td", "th"} & set(self.open[-2:]):
            self.rows[-1][-1] += ("\n" if self.open[-1] == "small" else "") + data


def read(run):
    html = write_report(run).read_text("utf-8")
    return html, Page(html)


def assert_self_contained(html, page):
    assert len(html.encode()) < 5_000_000
    assert not {"script", "link", "iframe", "object", "embed", "base"} & set(page.tags)
    for _, key, value in page.attributes:
        assert not key.startswith("on"), key
        if key in ("src", "href", "xlink:href", "data", "srcset", "action", "poster"):
            assert value.startswith(("data:image/png;base64,", "data:image/jpeg;base64,", "#")), value[:80]
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", html))
    assert "@import" not in html
    ids = [value for _, key, value in page.attributes if key == "id"]
    targets = {value[1:] for _, key, value in page.attributes if key == "href"}
    assert targets | set(re.findall(r"url\(#([^)]*)\)", html)) <= set(ids)


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    run = tmp_path_factory.mktemp("runs") / "three"
    summary = make_ledger(run)
    return run, summary, *read(run)


def test_the_page_is_one_file_with_balanced_tags(three):
    run, _, html, page = three
    assert_self_contained(html, page)
    assert html.count("<svg") == 2 + 3 + 2 + 5 + 9 + 1
    assert page.tags.count("img") == 6
    assert not list(run.glob(".*"))


def test_the_table_shows_the_ledgers_figures(three):
    _, summary, _, page = three
    rows = [row for row in page.rows if len(row) > 10]
    assert rows[0][:3] == ["round", "AUC before", "AUC after"]
    for row, entry in zip(rows[1:], summary["rounds"], strict=True):
        shown = dict(zip(rows[0], row, strict=True))
        after, before, baseline = entry["after"], entry["before"], entry["baseline"]

        def auc(score):
            return f"{score['auc']:.3f}\n{score['auc_low']:.3f}–{score['auc_high']:.3f}" if score else "–"

        assert shown["round"] == str(entry["round"])
        assert (shown["AUC before"], shown["AUC after"]) == (auc(before), auc(after))
        assert shown["spectrum AUC"] == auc(baseline)
        assert shown["AP"] == f"{after['ap']:.3f}"
        for header, key in (("EER", "eer"), ("TPR at 1 % FPR", "tpr_at_1_fpr"), ("accuracy", "accuracy_frozen"),
                            ("escape after", "escape")):  # fmt: skip
            assert shown[header] == f"{100 * after[key]:.1f}\u00a0%", header
        assert shown["escape before"] == (f"{100 * before['escape']:.1f}\u00a0%" if before else "–")
        for way in ("a2b", "b2a"):
            found = entry["quality"][f"rfd-conv704-s0:{way}"]
            value, low, high = (float(f"{found[key]:.3g}") for key in ("value", "low", "high"))
            first, second = shown[f"rfd-conv704-s0 {way.replace('2', '→')}"].split("\n")
            assert float(first) == value
            assert [float(end) for end in second.split("–")] == [low, high]
        assert shown["time"] == duration(sum(entry["seconds"].values()))
    assert [list(row) for row in round_table(summary).rows] == rows[1:]  # the terminal's table is the same
    brief = round_table(summary, brief=True)
    assert brief.headers == [*rows[0][:3], rows[0][7], *rows[0][9:]]
    assert brief.rows == [[*row[:3], row[7], *row[9:]] for row in rows[1:]]


def test_the_power_spectra_of_the_first_and_the_last_round_are_drawn(three):
    html = three[2]
    assert "Their power spectra" in html
    for gap in ("2.0 dB more power than reals at 0.41", "3.0 dB more power than reals at 0.41"):  # 6 / 3 and 9 / 3
        assert f"after round 2: at most {gap} cycles per pixel" in html
    assert html.count("</i>of round 0</span>") == 2


@pytest.mark.parametrize("harm", [{"fakes": [1.0]}, {"reals": "no"}, {"frequency": None}, {"fakes": ["a"] * 16}])
def test_damaged_spectra_are_not_drawn(tmp_path, harm):
    summary = make_ledger(tmp_path / "run", rounds=1, ways=("",))
    curve = summary["rounds"][0]["quality"]["sfd"]["curve"]
    for damage, drawn in (({}, True), (harm, False)):
        summary["rounds"][0]["quality"]["sfd"]["curve"] = {**curve, **damage}
        (tmp_path / "run" / "summary.json").write_text(json.dumps(summary))
        assert ("Their power spectra" in read(tmp_path / "run")[0]) == drawn


def test_the_same_ledger_gives_the_same_bytes(three, tmp_path):
    run, _, html, _ = three
    assert write_report(run).read_text("utf-8") == html
    code = "import sys, pathlib, arena.report; arena.report.write_report(pathlib.Path(sys.argv[1]))"
    environment = {**os.environ, "PYTHONHASHSEED": "7", "TZ": "Asia/Tokyo"}
    subprocess.run([sys.executable, "-c", code, str(run)], check=True, env=environment, cwd=ROOT)
    assert (run / "report.html").read_text("utf-8") == html


def test_hostile_names_stay_text(tmp_path):
    make_ledger(tmp_path / "run", 2, evil=HOSTILE, **SMALL)
    html, page = read(tmp_path / "run")
    assert_self_contained(html, page)
    assert "<script" not in html.lower()
    assert "<img src=x" not in html
    text = "".join(page.text)
    assert HOSTILE in text  # shown as it was written, template braces and all
    assert not {"script"} & set(page.tags)


def test_importing_the_report_loads_no_models():
    code = "import sys, arena.report, arena.report.page, arena.report.table; print(*sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=ROOT).stdout
    loaded = {name.split(".")[0] for name in out.split()}
    assert not loaded & {"torch", "gen", "detect", "matplotlib", "numpy", "jinja2", "PIL"}


# Runs of every state


def test_a_run_before_its_first_round(tmp_path):
    run = tmp_path / "run"
    summary = make_ledger(run, 1, status="running", **SMALL)
    (run / "run.json").write_text(json.dumps({key: summary[key] for key in ("schema", "settings", "provenance")}))
    (run / "summary.json").unlink()
    html, page = read(run)
    assert_self_contained(html, page)
    assert "No round has been judged yet." in html
    assert "still running" in html
    assert "loss_g" in html  # the losses of the fit that is on


def test_a_running_run_says_so_and_shows_losses_of_the_round_that_plays(tmp_path):
    run = tmp_path / "run"
    summary = make_ledger(run, 3, status="running", **SMALL)
    summary["rounds"].pop()
    (run / "summary.json").write_text(json.dumps(summary))
    for name in ("sheet.png", "extremes.png", "extremes.json", "scores.npz", "detector.csv"):
        (run / "rounds" / "02" / name).unlink()
    with (run / "rounds" / "02" / "generator.csv").open("a") as file:
        file.write("8,0.")  # a line in the middle of being written
    html, page = read(run)
    assert_self_contained(html, page)
    assert "So far, after 2 of 3 rounds" in html
    assert "generator, 3 rounds" in html
    assert "detector, 2 rounds" in html
    assert "Left out" not in html


def test_only_the_summary_is_needed(tmp_path):
    import shutil

    make_ledger(tmp_path / "run", 2, **SMALL)
    shutil.rmtree(tmp_path / "run" / "rounds")
    shutil.rmtree(tmp_path / "run" / "data")
    html, page = read(tmp_path / "run")
    assert_self_contained(html, page)
    assert page.tags.count("img") == 0
    assert "Left out" not in html


def test_parts_of_a_round_may_be_missing(tmp_path):
    summary = make_ledger(tmp_path / "run", 7, **SMALL)
    for r, key in enumerate(["quality", "before", "after", "baseline", "seconds", "images_per_second"]):
        del summary["rounds"][r][key]
    summary["rounds"][-1]["after"] = {"auc": 0.7}
    (tmp_path / "run" / "summary.json").write_text(json.dumps(summary))
    html, page = read(tmp_path / "run")
    assert_self_contained(html, page)
    rows = [row for row in page.rows if len(row) > 10][1:]
    assert rows[6][2:4] == ["0.700", "–"]
    assert rows[2][2] == rows[1][1] == rows[3][9] == rows[0][10] == rows[4][-1] == "–"


def test_distances_without_bounds_are_shown_without_in_report_comparison_and_tournament(tmp_path):
    summary = make_ledger(tmp_path / "run", 2, **SMALL, ways=("",))
    for entry in summary["rounds"]:
        for score in entry["quality"].values():
            score |= {"low": None, "high": None}
    (tmp_path / "run" / "summary.json").write_text(json.dumps(summary))
    html, page = read(tmp_path / "run")
    assert_self_contained(html, page)
    assert "no intervals, so no verdict" in html
    value = amount(summary["rounds"][-1]["quality"]["rfd-conv704-s0"]["value"])
    assert round_table(summary).rows[-1][-2] == value
    assert far(rounds_of(summary)).split("\n")[:2] == [value, MISSING]
    assert any("rfd-conv704-s0" in curve["title"] for curve in curves([summary]))


@pytest.mark.parametrize("keywords", [{"rounds": 1}, {"baseline": False}, {"fid": True}, {"ways": ("",)}])
def test_other_kinds_of_runs(tmp_path, keywords):
    keywords = {"rounds": 2, **keywords}
    make_ledger(tmp_path / "run", **SMALL, **keywords)
    html, page = read(tmp_path / "run")
    assert_self_contained(html, page)
    assert ("no FID: stand-in distances" in html) == (not keywords.get("fid"))
    assert ("fid a→b" in html) == bool(keywords.get("fid"))
    assert ("→b" in html) == (keywords.get("ways") is None)


def test_many_rounds_and_large_pictures_stay_below_five_megabytes(tmp_path):
    run = tmp_path / "run"
    summary = make_ledger(run, 2, **SMALL)
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 255, (600, 900, 3)).astype(np.uint8)  # 1.6 MB as PNG: the worst that a picture can be
    last = summary["rounds"][-1]
    for r in range(2, 40):
        summary["rounds"].append({**last, "round": r})
        folder = run / "rounds" / f"{r:02d}"
        folder.mkdir()
        if r in (14, 39):
            Image.fromarray(noise).save(folder / "sheet.png")
            Image.fromarray(noise).save(folder / "extremes.png")
    (run / "summary.json").write_text(json.dumps(summary))
    html, page = read(run)
    assert_self_contained(html, page)
    assert "data:image/jpeg" in html
    assert "Reduced for this page; the full picture is rounds/39/sheet.png" in html
    assert f"{SHOWN} of 40 rounds are shown" in html
    assert shown_rounds(list(range(40)))[0] == 0
    assert shown_rounds(list(range(40)))[-1] == 39


# Damage


@pytest.mark.parametrize("content", [b"\x89PNG\r\n\x1a\n\0broken", b'{"easiest": 3}\nx,y\n1\n'])
def test_damaged_files_cost_their_parts_and_are_named(tmp_path, content):
    run = tmp_path / "run"
    make_ledger(run, 2, **SMALL)
    files = ("sheet.png", "extremes.png", "extremes.json", "scores.npz", "generator.csv")
    names = [*(f"rounds/01/{name}" for name in files), "data/manifest.jsonl"]
    for name in names:
        (run / name).write_bytes(content)
    html, page = read(run)
    assert_self_contained(html, page)
    assert page.tags.count("img") == 2  # those of the round that is whole
    for name in names:
        assert f"{name}: " in html[html.index("Left out") :]


@pytest.mark.parametrize("reader", [round_files.read_picture, round_files.read_scores, round_files.read_extremes])
def test_an_empty_file_is_damaged_and_a_missing_one_is_none(tmp_path, reader):
    budget = [1000] if reader is round_files.read_picture else []
    assert reader(tmp_path / "none", *budget) is None
    (tmp_path / "empty").touch()
    with pytest.raises(round_files.Damaged):
        reader(tmp_path / "empty", *budget)


def test_a_picture_that_is_no_png_is_not_embedded(tmp_path):
    run = tmp_path / "run"
    make_ledger(run, 1, **SMALL)
    (run / "rounds/00/sheet.png").write_text("<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>")
    html, page = read(run)
    assert page.tags.count("img") == 1
    assert "rounds/00/sheet.png: not a readable PNG" in html


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "no summary.json"),
        ("{", "cannot read"),
        ("[]", "damaged"),
        ('{"schema": 1, "rounds": [3]}', r"rounds\[0\]"),
        ('{"schema": 1, "rounds": {}}', "list of rounds"),
        ('{"schema": 99, "rounds": []}', "schema 99"),
    ],
)
def test_a_missing_or_damaged_summary_is_an_input_error(tmp_path, content, said):
    if content is not None:
        (tmp_path / "summary.json").write_text(content)
    with pytest.raises(InputError, match=said) as caught:
        write_report(tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "report.html").exists()


# Words and figures


def test_verdict_claims_only_what_intervals_bear_out(tmp_path):
    summary = make_ledger(tmp_path / "run", 2, **SMALL)
    first, last = summary["rounds"]

    def say(after=(0.9, 0.87, 0.93), before=(0.7, 0.65, 0.75), base=(0.8, 0.76, 0.84), new=(1.0, 0.9, 1.1)):
        for score, key in ((after, "after"), (before, "before"), (base, "baseline")):
            last[key] |= dict(zip(("auc", "auc_low", "auc_high"), score, strict=True))
        for entry, score in ((first, (1.5, 1.4, 1.6)), (last, new)):
            entry["quality"] = {"rfd-x:a2b": dict(zip(("value", "low", "high"), score, strict=True)) | {"floor": 0.31}}
        return " ".join(verdict(summary))

    text = say()
    assert (
        "CNNSpot tells CycleGAN’s fakes from reals with AUC 0.900 (95\u00a0% CI 0.870–0.930, 200 real + 200 fake)"
        in text
    )
    assert "before it had seen this round’s fakes, 0.700 (0.650–0.750)." in text
    assert "CNNSpot clearly beats it" in text
    assert "Fakes came closer to the reals from round 0 to round 1: rfd-x a→b 1.50 → 1.00 (floor 0.310)." in text
    assert "no clear change" in say(before=(0.88, 0.85, 0.91)).split(". ")[0]
    assert "does not clearly tell" in say(after=(0.52, 0.47, 0.57))
    assert "more real than the reals" in say(after=(0.3, 0.25, 0.35))
    assert "no clear difference" in say(base=(0.88, 0.86, 0.9))
    assert "it clearly beats CNNSpot" in say(base=(0.99, 0.98, 1.0))
    assert "No clear change in the fakes’ distance" in say(new=(1.45, 1.35, 1.55))
    assert "moved away" in say(new=(2.0, 1.9, 2.1))
    assert "no intervals, so no verdict" in say(new=(1.0, None, None))


def test_amounts_have_three_figures():
    given = (1.234, 0.85, 0.9996, 12.34, 1234.5, 0.00012, 0, -0.5, None)
    assert " ".join(map(amount, given)) == "1.23 0.850 1.00 12.3 1,234 1.20e-04 0 -0.500 –"


def test_nearly_one_is_never_called_one():
    given = (0.98123, 0.99961, 0.99999, 1.0, None)
    assert " ".join(map(unit, given)) == "0.981 0.9996 0.99999 1.000 –"


def test_figures_that_are_no_numbers_are_missing():
    after = {"auc": "0.9", "ap": None, "eer": True, "n_fake": float("nan")}
    entry = {"round": 0, "after": after, "quality": {"fid": 3}}
    (found,) = rounds_of({"rounds": [entry]})
    assert found.after.auc is None
    assert found.after.ap is found.after.eer is found.after.n_fake is None
    assert found.distances == []
    assert Estimate(0.9).compare(Estimate(0.5, 0.4, 0.6)) is None


def test_the_verdict_on_swaps_says_what_chance_and_the_mean_face_reach(tmp_path):
    from arena.report.words import verdict

    def swaps(identity, low, gain):
        share = {"value": identity, "low": low, "high": 1.0, "n": 50, "chance": 0.125, "mean": 0.4, "copy": 0.0}
        near = {
            "value": 21.0,
            "low": 20.5,
            "high": 21.5,
            "over_mean": dict(zip(("value", "low", "high"), gain, strict=True)),
        }
        return {"rounds": [{"round": 0, "truth": {"identity:a2b": share, "swap-psnr:a2b": near}}]}

    good, bad, even = (
        verdict(swaps(*case))[-1]
        for case in ((0.9, 0.8, (2.0, 1.5, 2.5)), (0.1, 0.05, (-7.4, -8.2, -6.6)), (0.2, 0.13, (0.1, -0.2, 0.4)))
    )
    assert "a→b: 90.0" in good
    assert "no better than chance" not in good
    assert "2.0 dB (1.5 to 2.5) above the mean face" in good
    assert "no better than chance" in bad
    assert "7.4 dB (6.6 to 8.2) below the mean face" in bad
    assert "no clear difference from the mean face" in even
