"""The whole way with nobody's face: film two synthetic people, extract, train, swap a new film."""

import json

from click.testing import CliRunner

from arena.cli import main
from arena.faces.video import open_video


def arena(*words):
    result = CliRunner().invoke(main, [str(word) for word in words], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_from_video_to_video(tmp_path):
    for person, domain in ((0, "A"), (1, "B")):
        film = tmp_path / f"{domain}.mp4"
        arena("scene", film, "--person", person, "--frames", 40, "--size", "320x240", "--fps", 5)
        arena("extract", film, tmp_path / "faces" / domain, "--size", 32, "--keep-duplicates")
    run = tmp_path / "run"
    arena("run", "--generator", "faceswap", "--detector", "spectrum", "--data", tmp_path / "faces",
          "--preset", "smoke", "--rounds", 1, "--out", run)  # fmt: skip
    summary = json.loads((run / "summary.json").read_text())
    assert summary["data"]["name"] == "faces"
    assert not summary["rounds"][0]["truth"]  # nobody knows the exact swap of a film

    new, out = tmp_path / "new.mp4", tmp_path / "swapped.mp4"
    arena("scene", new, "--person", 0, "--index", 3, "--frames", 12, "--size", "320x240", "--tone")
    found = json.loads(arena("swap", run, new, out, "--consent", "nobody is shown", "--json"))
    assert found["frames"] == 12
    assert found["faces"] >= 11
    with open_video(new) as before, open_video(out) as after:
        assert (before.rate, before.has_audio, len([*before])) == (after.rate, after.has_audio, len([*after]))
    manifest = json.loads((tmp_path / "swapped.mp4.manifest.json").read_text())
    assert (manifest["method"], manifest["consent"]) == ("faceswap", "nobody is shown")
