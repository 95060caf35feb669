"""From frames to videos: ids, means, and intervals over videos against pairwise truths and by coverage."""

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from arena.errors import InputError
from arena.metrics import detection, grouping
from arena.metrics.header import header_auc

METHODS = ("Deepfakes", "Face2Face", "FaceSwap", "NeuralTextures")


def faceforensics(frames=8):
    """The test split of FaceForensics++ by its names: 140 reals, four methods of 140 fakes each, all named alike."""
    rng = np.random.default_rng(0)
    rows = []
    for number in range(140):
        rows += [("original", f"{number:03d}", 0, f) for f in range(frames)]
    for method in METHODS:
        for number in range(140):
            rows += [(method, f"{number:03d}_{number ^ 1:03d}", 1, f) for f in range(frames)]
    shift = {"original": 0, "Deepfakes": 2, "Face2Face": 1, "FaceSwap": 1.5, "NeuralTextures": 0.3}
    level = {}
    logits = []
    for folder, name, _, _ in rows:
        level.setdefault((folder, name), shift[folder] + rng.normal(0, 1.5))
        logits.append(level[folder, name] + rng.normal(0, 1))
    return rows, np.array(logits), np.array([row[2] for row in rows], dtype=bool)


def test_faceforensics_has_700_videos_and_their_auc():
    rows, logits, fake = faceforensics()
    rule = grouping.parse_rule("parent")
    ids = [grouping.video_id(f"data/{folder}/{name}/{f:04d}.png", rule) for folder, name, _, f in rows]
    sides = [grouping.by_video(logits[fake == label], [i for i, y in zip(ids, fake) if y == label]) for label in (0, 1)]  # noqa: B905
    assert [len(names) for names, _ in sides] == [140, 560]
    means, truth = [], []  # the truth, by the order in which the videos were written
    for start in range(0, len(rows), 8):
        means.append(sum(logits[start : start + 8]) / 8)
        truth.append(rows[start][2])
    expected = roc_auc_score(truth, means)
    assert detection.auc(sides[0][1], sides[1][1]) == pytest.approx(expected, abs=1e-12)

    merged = {}  # by the folder's bare name, as is often done: 280 videos, and another figure
    for (_, name, label, _), logit in zip(rows, logits, strict=True):
        merged.setdefault((name, label), []).append(logit)
    assert len(merged) == 280
    wrong = roc_auc_score([label for _, label in merged], [np.mean(some) for some in merged.values()])
    assert abs(wrong - expected) > 0.02


def test_the_rules():
    parent, none = grouping.parse_rule("parent"), grouping.parse_rule("none")
    assert grouping.video_id("a/b/1.png", parent) == grouping.video_id("a/b/2.png", parent)
    assert grouping.video_id("a/b/1.png", parent) != grouping.video_id("c/b/1.png", parent)
    assert grouping.video_id("a/b/1.png", none) != grouping.video_id("a/b/2.png", none)
    prefix = grouping.parse_rule(r"prefix:(\d+)_")
    assert grouping.video_id("a/007_1.png", prefix) == grouping.video_id("a/007_2.png", prefix) == "a/007"
    assert grouping.video_id("b/007_1.png", prefix) == "b/007"
    assert grouping.video_id("a/x.png", prefix) == "a/x.png"
    assert grouping.video_id("a/x_1.png", grouping.parse_rule("prefix:[^_]+")) == "a/x"
    for rule in ("folder", "prefix:(", "", "auto"):
        with pytest.raises(InputError, match="--video-id"):
            grouping.parse_rule(rule)


def test_a_real_and_a_fake_video_of_one_name_are_two():
    real, fake = np.array([0.0, 2.0]), np.array([1.0, 3.0])
    value, low, high = grouping.clustered_delong(real, fake, ["v", "w"], ["v", "w"])
    assert (value, low, high) == pytest.approx(detection.delong(real, fake))


def test_single_frames_give_delongs_interval():
    rng = np.random.default_rng(1)
    real, fake = rng.normal(0, 1, 60), np.round(rng.normal(1, 1, 80))
    names = [str(i) for i in range(80)]
    assert grouping.clustered_delong(real, fake, names[:60], names) == pytest.approx(detection.delong(real, fake))


def test_frames_that_repeat_give_the_interval_of_their_videos():
    rng = np.random.default_rng(2)
    real, fake = rng.normal(0, 1, 30), rng.normal(1, 1, 40)
    names = [str(i) for i in range(40)]
    many = grouping.clustered_delong(
        np.repeat(real, 9), np.repeat(fake, 9), np.repeat(names[:30], 9), np.repeat(names, 9)
    )
    assert many == pytest.approx(detection.delong(real, fake), abs=1e-12)
    assert many[2] - many[1] > 2 * (detection.delong(np.repeat(real, 9), np.repeat(fake, 9))[2] - many[0])


def test_the_interval_over_videos_covers_and_the_one_over_frames_does_not():
    rng = np.random.default_rng(3)
    k, frames, times = 40, 10, 400
    names = np.repeat([str(i) for i in range(k)], frames)
    spread = np.sqrt(1 + 0.3**2)
    truth = norm.cdf(1 / (np.sqrt(2) * spread))
    ours = plain = 0
    for _ in range(times):
        real = np.repeat(rng.normal(0, 1, k), frames) + rng.normal(0, 0.3, k * frames)
        fake = np.repeat(rng.normal(1, 1, k), frames) + rng.normal(0, 0.3, k * frames)
        _, low, high = grouping.clustered_delong(real, fake, names, names)
        ours += low <= truth <= high
        _, low, high = detection.delong(real, fake)
        plain += low <= truth <= high
    assert 0.915 * times <= ours <= 0.98 * times
    assert plain < 0.7 * times


def test_separated_videos_count_as_videos():
    names = ["a"] * 50 + ["b"] * 50
    value, low, high = grouping.clustered_delong(np.zeros(100), np.ones(100), names, names)
    assert (value, high) == (1.0, 1.0)
    assert low == pytest.approx(0.025 ** (1 / 2))


def test_figures_of_unweighted_counts_are_those_of_the_metrics():
    rng = np.random.default_rng(4)
    for real, fake in ((rng.normal(0, 1, 70), rng.normal(1, 1, 90)), (rng.integers(0, 4, 50), rng.integers(1, 5, 30))):
        scores, false_alarms, hits = detection.sweep(np.asarray(real, float), np.asarray(fake, float))
        cuts = {"accuracy": int(np.sum(scores >= 0)), "accuracy_frozen": int(np.sum(scores >= 0.7))}
        found = grouping._figures(false_alarms, hits, cuts)
        truth = detection.detection_scores(real, fake, 0.7) | {"false_alarms": np.mean(np.asarray(real) >= 0.7)}
        assert found == pytest.approx({name: truth[name] for name in found}, abs=1e-12)


def test_drawn_videos_move_the_auc_as_the_formula_says():
    rng = np.random.default_rng(5)
    names = np.repeat([str(i) for i in range(60)], 5).tolist()
    real = np.repeat(rng.normal(0, 1, 60), 5) + rng.normal(0, 0.5, 300)
    fake = np.repeat(rng.normal(1, 1, 60), 5) + rng.normal(0, 0.5, 300)
    spread = grouping.Spread(real, fake, names, names, 0.5)
    low, high = spread.intervals["auc"]
    _, low_formula, high_formula = grouping.clustered_delong(real, fake, names, names)
    assert high - low == pytest.approx(high_formula - low_formula, rel=0.15)
    assert (low, high) == pytest.approx((low_formula, high_formula), abs=0.02)
    assert spread.intervals == grouping.Spread(real, fake, names, names, 0.5).intervals
    assert (np.diff(spread.band, axis=1) >= 0).all()
    assert (spread.band[0] <= spread.band[1]).all()
    assert spread.band[:, -1].tolist() == [1, 1]


def test_nothing_is_claimed_of_one_video_or_of_what_does_not_move():
    spread = grouping.Spread([0.0, 1.0], [2.0, 3.0], ["a", "a"], ["b", "c"], 1.5)
    assert set(spread.intervals.values()) == {None}
    assert spread.band is None
    assert grouping.Spread([0.0, 1.0], [2.0, 3.0], ["a", "b"], ["c", "d"], 1.5).intervals["ap"] is None


def test_headers_that_differ_tell_and_headers_that_do_not_are_at_chance():
    names = [str(i) for i in range(200)]
    jpeg, png = {"format": "JPEG", "width": 64}, {"format": "PNG", "width": 64}
    assert header_auc([jpeg] * 200, [png] * 200, names, names)[0] == 1.0
    assert header_auc([jpeg] * 200, [jpeg] * 200, names, names)[0] == 0.5
    rng = np.random.default_rng(6)
    values = []
    for _ in range(30):
        some = [
            {"width": int(w), "bytes": float(b)}
            for w, b in zip(rng.integers(1, 5, 400), rng.normal(0, 1, 400), strict=True)
        ]
        values.append(header_auc(some[:200], some[200:], names, names)[0])
    assert 0.46 < np.mean(values) < 0.52
    wide = [{"width": int(w)} for w in rng.integers(0, 1000, 200)]
    ends = [{"width": int(w) if w < 100 else 1000 - int(w) // 2} for w in rng.integers(0, 200, 200)]
    assert header_auc(wide, ends, names, names)[0] > 0.8  # not in order: small and large are fake


def test_headers_of_one_video_teach_nothing_of_another():
    """Each video has a width of its own: known videos would be told, new ones cannot be."""
    videos = [str(i // 20) for i in range(200)]
    real = [{"width": 100 + int(v)} for v in videos]
    fake = [{"width": 200 + int(v)} for v in videos]
    assert header_auc(real, fake, videos, videos)[0] > 0.9  # cut at deciles: a range of widths does tell
    shuffled = np.random.default_rng(7).permutation(20)
    real = [{"width": f"w{shuffled[int(v)]}"} for v in videos]
    fake = [{"width": f"w{shuffled[10 + int(v)]}"} for v in videos]
    assert header_auc(real, fake, videos, videos)[0] == pytest.approx(0.5, abs=0.2)
    assert header_auc(real[:1], fake, videos[:1], videos) is None
