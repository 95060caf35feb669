"""`arena sample`: what it shows is what the generator makes, it says so, and a mistake leaves nothing behind."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from arena.build import build
from arena.cli import Commands
from arena.config import DataConfig, resolve
from arena.data.source import open_source, store
from arena.errors import InputError
from arena.ledger import Ledger
from arena.sample_command import sample
from arena.sample_wishes import parse_seeds
from arena.seeds import rng
from arena.training import to_float, to_uint8

SIZE = 32
STYLE = {"size": SIZE, "latent": 12, "width": 4, "max_width": 8}
MLP = {"size": SIZE, "latent": 12, "width": 16}


def arena(*words):
    result = CliRunner().invoke(Commands("arena", {"sample": sample}), ["sample", *map(str, words)])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def done(*words):
    result = arena(*words, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def refused(result, *words):
    assert result.exit_code == 2, result.output
    for word in words:
        assert word in result.stderr, result.stderr


def make_run(root, name, of, keywords, data=False):
    """A run's folder as a finished run leaves it, of a player that is as good as new."""
    player = root.parent / f"{name}.yaml"
    player.write_text(f"of: {of}")
    layer = {"generator": {"name": str(player), **keywords}, "detector": "spectrum"}
    config = resolve([layer, {"data": {"size": SIZE, "train": 3, "val": 2, "judge": 3}}], "smoke")
    made = build(config.generator, config.seed, "generator")
    for part in vars(made).values():  # what training would have moved: a mean of w, the strength of noise
        if isinstance(part, torch.nn.Module):
            for key, value in part.state_dict().items():
                if key == "mean_w" or "strengths" in key:
                    value.copy_(torch.linspace(-0.3, 0.3, value.numel()).view_as(value))
    with Ledger(root) as ledger:
        ledger.write("run.json", {"schema": 1, "settings": config.model_dump(), "provenance": {}})
        ledger.save(made, "generator", round=0, step=6, seconds=1.0)
        if data:
            store(open_source(DataConfig(**config.data.model_dump()), "domains"), ledger)
    return root, made


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """name -> (folder, player): a style-based generator, two others with latents (one no encoder), two translators."""
    folder = tmp_path_factory.mktemp("runs")
    cycle = {"width": 4, "blocks": 1, "d_width": 4}
    return {
        "alae": make_run(folder / "alae-run", "alae", "gen.alae:ALAE", STYLE),
        "mlp": make_run(folder / "mlp-run", "mlp", "gen.alae:MLPALAE", MLP),
        "dcgan": make_run(folder / "dcgan-run", "dcgan", "gen.dcgan:DCGAN", {"latent": 12, "width": 4, "d_width": 4}),
        "cyclegan": make_run(folder / "cycle-run", "cyclegan", "gen.cyclegan:CycleGAN", cycle, data=True),
        "identity": make_run(folder / "identity-run", "identity", "planted:Identity", {}, data=True),
    }


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    draws = np.random.default_rng(0)
    for i in (1, 2, 10):
        Image.fromarray(draws.integers(0, 256, (SIZE, SIZE, 3), np.uint8)).save(folder / f"{i}.png")
    return folder


def read(path):
    return np.asarray(Image.open(path))


def cell(path, row, column):
    step = SIZE + 2
    return read(path)[2 + row * step :, 2 + column * step :][:SIZE, :SIZE]


def z_of(seed):
    return torch.randn(1, 12, generator=rng("sample", seed))


@torch.inference_mode()
def shown(player, w):
    """The image of one latent, without noise."""
    return to_uint8(player.decode(w))[0].permute(1, 2, 0).numpy()


def alike(a, b):
    """To the last bit of rounding, which a batch may move."""
    assert np.abs(a.astype(int) - b.astype(int)).max() <= 1


def manifest(out):
    return [json.loads(line) for line in (out / "manifest.jsonl").read_text().splitlines()]


# Samples


def test_the_image_of_a_seed_is_the_same_alone_and_among_others(runs, tmp_path):
    run, player = runs["alae"]
    found = done(run, tmp_path / "many", "--n", 4)
    assert [row["n"] for row in found["written"]] == [4, 1]
    done(run, tmp_path / "one", "--seeds", 2)
    name = "samples/seed-000002.png"
    assert (tmp_path / "many" / name).read_bytes() == (tmp_path / "one" / name).read_bytes()
    with torch.inference_mode():
        image = to_uint8(player.decode(player.map(z_of(2)), rng=rng("sample noise", 2)))[0]
    alike(read(tmp_path / "one" / name), image.permute(1, 2, 0).numpy())
    alike(cell(tmp_path / "many" / "samples.png", 1, 0), read(tmp_path / "one" / name))
    files = [tmp_path / "many" / "samples" / f"seed-{i:06d}.png" for i in range(4)]
    assert len({file.read_bytes() for file in files}) == 4


def test_truncation(runs, tmp_path):
    run, player = runs["mlp"]
    done(run, tmp_path / "mean", "--seeds", "4,7", "--psi", 0)
    mean = shown(player, player.mean_w[None])
    for seed in (4, 7):
        alike(read(tmp_path / "mean" / f"samples/seed-{seed:06d}.png"), mean)
    done(run, tmp_path / "all", "--seeds", "4", "--psi", 1)
    alike(read(tmp_path / "all" / "samples/seed-000004.png"), shown(player, player.map(z_of(4))))
    run, player = runs["alae"]
    done(run, tmp_path / "some", "--interpolate", "lerp", "--seeds", "4,7", "--psi", 0.5, "--cutoff", 3)
    w = player.map(z_of(7))
    short = (w + player.mean_w) / 2
    w = torch.cat([short[:, None].expand(1, 3, -1), w[:, None].expand(1, player.levels - 3, -1)], 1)
    alike(cell(tmp_path / "some" / "interpolation.png", 0, 8), shown(player, w))


def test_every_file_says_that_it_is_synthetic(runs, tmp_path, pictures):
    out = tmp_path / "out"
    done(runs["alae"][0], out, "--reconstruct", pictures, "--mix", 2, 3, "--directions", 2)
    rows = manifest(out)
    files = {str(file.relative_to(out)) for file in out.rglob("*") if file.is_file()}
    assert files == {row["file"] for row in rows} | {"manifest.jsonl"}
    for row in rows:
        assert (row["method"], row["run"], row["round"], row["seed"]) == ("alae", "alae-run", 0, 0)
        if row["file"].endswith(".png"):
            text = Image.open(out / row["file"]).text
            assert {"Source", "Method", "Run", "Round", "Seed", "Description"} <= text.keys()
            mixed = row["file"] == "reconstructions.png"
            assert text["Synthetic"].startswith("contains synthetic images: " if mixed else "true")
            assert row["synthetic"] == (text["Synthetic"] if mixed else True)
            assert ("compositeWith" if mixed else "/trainedAlgorithmicMedia") in text["XML:com.adobe.xmp"]
    assert not list(out.rglob(".*"))


# Walks


def test_interpolation_goes_from_seed_to_seed(runs, tmp_path):
    run, player = runs["alae"]
    done(run, tmp_path / "w", "--interpolate", "lerp", "--seeds", "3,5,3")
    sheet = tmp_path / "w" / "interpolation.png"
    w3, w5 = player.map(z_of(3)), player.map(z_of(5))
    for place, t in ((0, 0.0), (4, 0.5), (8, 1.0)):
        alike(cell(sheet, 0, place), shown(player, (1 - t) * w3 + t * w5))
        alike(cell(sheet, 1, 8 - place), shown(player, (1 - t) * w3 + t * w5))
    done(run, tmp_path / "z", "--interpolate", "slerp", "--seeds", "3,5")
    middle = z_of(3) / z_of(3).norm() + z_of(5) / z_of(5).norm()  # F's pixel norm does not see its length
    alike(cell(tmp_path / "z" / "interpolation.png", 0, 4), shown(player, player.map(middle)))
    assert manifest(tmp_path / "z")[0]["sample_seeds"] == [3, 5]


def test_a_generator_without_an_encoder_goes_from_seed_to_seed(runs, tmp_path):
    run, player = runs["dcgan"]
    done(run, tmp_path / "out", "--interpolate", "lerp", "--seeds", "3,5")
    uniform = [torch.erf(z_of(seed) / 2**0.5) for seed in (3, 5)]
    sheet = tmp_path / "out" / "interpolation.png"
    for place, t in ((0, 0.0), (4, 0.5), (8, 1.0)):
        alike(cell(sheet, 0, place), shown(player, (1 - t) * uniform[0] + t * uniform[1]))
    done(run, tmp_path / "half", "--seeds", 3, "--psi", 0.5)
    alike(read(tmp_path / "half" / "samples" / "seed-000003.png"), shown(player, uniform[0] / 2))
    done(run, tmp_path / "walk", "--interpolate", "slerp", "--seeds", "3,5", "--directions", 1, "--path-length", 20)


def test_interpolation_between_images(runs, tmp_path, pictures):
    run, player = runs["mlp"]
    done(run, tmp_path / "out", "--interpolate", "lerp", "--source", pictures)
    with torch.inference_mode():
        w = [player.encode(to_float(torch.from_numpy(read(pictures / f"{i}.png").copy()).permute(2, 0, 1)[None]))
             for i in (1, 2, 10)]  # fmt: skip
    sheet = tmp_path / "out" / "interpolation.png"
    for row, column, expected in ((0, 0, w[0]), (0, 8, w[1]), (1, 4, (w[1] + w[2]) / 2), (1, 8, w[2])):
        alike(cell(sheet, row, column), shown(player, expected))
    assert manifest(tmp_path / "out")[0]["made_from"] == ["1.png", "2.png", "10.png"]


def test_a_film_of_the_interpolation(runs, tmp_path):
    av = pytest.importorskip("av")
    run, player = runs["mlp"]
    out = tmp_path / "out"
    done(run, out, "--interpolate", "lerp", "--seeds", "0-2", "--video", "walk.mp4", "--frames", 7)
    with av.open(str(out / "walk.mp4")) as film:
        frames = [frame.to_ndarray(format="rgb24") for frame in film.decode(video=0)]
        assert film.streams.video[0].average_rate == 25
        assert "synthetic" in film.metadata["title"].lower()
        assert "Method: mlp" in film.metadata["comment"]
    assert len(frames) == 15
    for place, seed in ((0, 0), (7, 1), (14, 2)):
        grey = [image @ [0.2126, 0.7152, 0.0722] for image in (frames[place], shown(player, player.map(z_of(seed))))]
        assert np.corrcoef(grey[0].ravel(), grey[1].ravel())[0, 1] > 0.98  # H.264 keeps brightness at full size
    row = next(row for row in manifest(out) if row["file"] == "walk.mp4")
    assert row["synthetic"] is True


@pytest.mark.parametrize("level", [None, 1, 5])
def test_mixing_takes_coarse_styles_from_the_left_and_fine_ones_from_the_top(runs, tmp_path, level):
    run, player = runs["alae"]
    done(run, tmp_path / "out", "--mix", 2, 3, "--seeds", "10-15", *([] if level is None else ["--level", level]))
    sheet = tmp_path / "out" / "mixing.png"
    w = [player.map(z_of(seed)) for seed in range(10, 15)]
    assert (cell(sheet, 0, 0) == 255).all()
    for r in range(2):
        alike(cell(sheet, 1 + r, 0), shown(player, w[r]))
        for c in range(3):
            alike(cell(sheet, 0, 1 + c), shown(player, w[2 + c]))
            k = level or 4  # of 8 levels
            styles = [*[w[r]] * k, *[w[2 + c]] * (8 - k)]
            alike(cell(sheet, 1 + r, 1 + c), shown(player, torch.stack(styles, 1)))


def test_directions_start_in_the_middle_and_move_most_along_the_first(runs, tmp_path):
    run, player = runs["mlp"]
    found = done(run, tmp_path / "out", "--directions", 3, "--seeds", 9)["figures"]["directions"]
    for row in range(3):
        alike(cell(tmp_path / "out" / "directions.png", row, 3), shown(player, player.map(z_of(9))))
        assert np.abs(cell(tmp_path / "out" / "directions.png", row, 6).astype(int)
                      - cell(tmp_path / "out" / "directions.png", row, 0)).max() > 1  # fmt: skip
    with torch.inference_mode():
        w = player.map(torch.randn(50_000, 12, generator=torch.Generator().manual_seed(1))).double().numpy()
    values = np.linalg.eigvalsh(np.cov(w, rowvar=False))[::-1]
    np.testing.assert_allclose(found["deviation"], np.sqrt(values[:3]), rtol=0.05)
    np.testing.assert_allclose(found["share_of_variance"], values[:3] / values.sum(), rtol=0.1)


def test_reconstructions_stand_below_their_originals(runs, tmp_path, pictures):
    run, player = runs["alae"]
    done(run, tmp_path / "out", "--reconstruct", pictures / "10.png", "--reconstruct", pictures / "2.png")
    for i, name in enumerate(("10.png", "2.png")):
        original = read(pictures / name)
        assert (cell(tmp_path / "out" / "reconstructions.png", 0, i) == original).all()
        with torch.inference_mode():
            x = to_float(torch.from_numpy(original.copy()).permute(2, 0, 1)[None])
            rebuilt = to_uint8(player.reconstruct(x))[0].permute(1, 2, 0).numpy()
        alike(cell(tmp_path / "out" / "reconstructions.png", 1, i), rebuilt)
        file = tmp_path / "out" / "reconstructions" / f"{i:05d}.png"
        alike(read(file), rebuilt)
        assert Image.open(file).text["Made from"] == name


def test_path_length(runs, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    for variable in ("ARENA_VGG16_WEIGHTS", "ARENA_LPIPS_WEIGHTS"):
        monkeypatch.delenv(variable, raising=False)
    figures = done(runs["alae"][0], tmp_path / "out", "--path-length", 5)["figures"]
    assert json.loads((tmp_path / "out" / "figures.json").read_text()) == figures
    assert [row["sampling"] for row in figures["path_length"]] == ["full", "end"]
    for row in figures["path_length"]:
        assert (row["name"], row["n"]) == ("path-length-conv352-s0", 5)
        assert row["low"] <= row["value"] <= row["high"]
    text = arena(runs["mlp"][0], tmp_path / "again", "--path-length", 3).output
    assert "path-length-conv352-s0, full:" in text
    assert "not PPL" in text


# Translators


def test_a_translator_translates_the_runs_own_judge_images(runs, tmp_path):
    run, player = runs["cyclegan"]
    for way, domain in (("forth", "a"), ("back", "b")):
        done(run, tmp_path / way, *(["--reverse"] if way == "back" else []))
        sources = np.load(run / f"data/judge-{domain}.npy")
        with torch.inference_mode():
            made = player.sample(to_float(torch.from_numpy(sources)), rng=rng(0), reverse=way == "back")
        made = to_uint8(made).permute(0, 2, 3, 1).numpy()
        assert len(list((tmp_path / way / "translations").iterdir())) == len(sources) == 3
        for i in range(3):
            alike(read(tmp_path / way / f"translations/{i:05d}.png"), made[i])
            alike(cell(tmp_path / way / "translations.png", 0, i), sources[i].transpose(1, 2, 0))
            alike(cell(tmp_path / way / "translations.png", 1, i), made[i])


def test_a_translator_translates_a_folder(runs, tmp_path, pictures):
    out = tmp_path / "out"
    done(runs["identity"][0], out, "--source", pictures)
    assert [row["made_from"] for row in manifest(out)[:3]] == ["1.png", "2.png", "10.png"]
    for i, name in enumerate(("1.png", "2.png", "10.png")):
        assert (read(out / f"translations/{i:05d}.png") == read(pictures / name)).all()
    assert len(manifest(out)) == 4
    done(runs["identity"][0], tmp_path / "two", "--source", pictures, "--n", 2)
    assert len(manifest(tmp_path / "two")) == 3


# Mistakes


@pytest.mark.parametrize(
    ("run", "words", "said"),
    [
        ("cyclegan", ["--mix", 2, 2], "cyclegan has no latents"),
        ("cyclegan", ["--path-length"], "cyclegan has no latents"),
        ("cyclegan", ["--seeds", "0-3"], "cyclegan has no latents"),
        ("cyclegan", ["--psi", 0.5], "cyclegan has no latents"),
        ("identity", ["--reconstruct", "PICTURES"], "identity cannot rebuild"),
        ("mlp", ["--mix", 2, 2], "one level"),
        ("mlp", ["--source", "PICTURES"], "translates nothing. To rebuild images"),
        ("dcgan", ["--source", "PICTURES"], "translates nothing. Give --seeds."),
        ("dcgan", ["--interpolate", "lerp", "--source", "PICTURES"], "cannot find the latent of an image"),
        ("dcgan", ["--reconstruct", "PICTURES"], "dcgan cannot rebuild images"),
        ("dcgan", ["--mix", 2, 2], "has one level"),
        ("mlp", ["--reverse"], "--reverse"),
        ("alae", ["--psi", 3], "-1 to 1"),
        ("alae", ["--psi", "nan"], "-1 to 1"),
        ("alae", ["--psi", 0.5, "--cutoff", 9], "8 levels"),
        ("alae", ["--mix", 2, 2, "--level", 8], "1 to 7"),
        ("alae", ["--mix", 2, 2, "--level", 0], "1 to 7"),
        ("alae", ["--mix", 2, 2, "--seeds", "0-2"], "needs 4 images"),
        ("alae", ["--mix", 2, 2, "--source", "PICTURES"], "needs 4 images"),
        ("alae", ["--mix", 40, 2], "1<=x<=32"),
        ("alae", ["--directions", 13], "12 dimensions"),
        ("alae", ["--interpolate", "lerp", "--seeds", "1"], "needs 2 images"),
        ("alae", ["--interpolate", "lerp", "--seeds", "0-64"], "at most 64"),
        ("alae", ["--interpolate", "lerp", "--video", "../walk.mp4"], "without a folder"),
        ("alae", ["--interpolate", "lerp", "--video", "walk.txt"], ".mp4"),
        ("alae", ["--video", "walk.mp4"], "--video needs --interpolate"),
        ("alae", ["--frames", 3], "--frames needs --video"),
        ("alae", ["--level", 3], "--level needs --mix"),
        ("alae", ["--cutoff", 3], "--cutoff needs --psi"),
        ("alae", ["--n", 3, "--seeds", "0-2"], "one of them"),
        ("alae", ["--n", 3, "--directions", 2], "--n counts"),
        ("alae", ["--n", 10**9], "--n"),
        ("alae", ["--psi", 0.5, "--path-length"], "--psi"),
        ("alae", ["--seeds", ""], "--seeds"),
        ("alae", ["--reconstruct", "nowhere"], "nowhere"),
        ("alae", ["--reconstruct", "EMPTY"], "no PNG"),
        ("alae", ["--device", "abacus"], "abacus"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(runs, tmp_path, pictures, run, words, said):
    (tmp_path / "empty").mkdir()
    paths = {"PICTURES": pictures, "EMPTY": tmp_path / "empty"}
    result = arena(runs[run][0], tmp_path / "out", *(paths.get(word, word) for word in words))
    refused(result, said)
    assert len([line for line in result.stderr.splitlines() if line.startswith(("arena:", "Error:"))]) == 1
    assert not (tmp_path / "out").exists()


def test_seeds():
    assert parse_seeds("0-3, 8,2") == (0, 1, 2, 3, 8, 2)
    for text in ("", "3-1", "a", "-1", "1-", "1,,2", "1.5", "9" * 5000, "0-100000", "0-99999,5"):
        with pytest.raises(InputError, match="--seeds"):
            parse_seeds(text)


def test_no_run_and_no_trained_generator(runs, tmp_path):
    refused(arena(tmp_path / "gone", tmp_path / "out"), "does not exist")
    refused(arena(tmp_path, tmp_path / "out"), "no run.json")
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "run.json").write_bytes((runs["alae"][0] / "run.json").read_bytes())
    refused(arena(tmp_path / "new", tmp_path / "out"), "no trained generator")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("harm", ["empty", "text", "cut"])
def test_a_damaged_picture_is_named_and_nothing_is_half_written(runs, tmp_path, pictures, harm):
    folder = tmp_path / "pictures"
    folder.mkdir()
    good = (pictures / "1.png").read_bytes()
    (folder / "a.png").write_bytes(good)
    (folder / "b.png").write_bytes({"empty": b"", "text": b"hello", "cut": good[:300]}[harm])
    for option, name in (("--reconstruct", "alae"), ("--source", "cyclegan")):
        refused(arena(runs[name][0], tmp_path / "out", option, folder, "--n", 2), "b.png")
        assert not (tmp_path / "out").exists()
    out = tmp_path / "there"  # an empty folder stays, and stays empty
    out.mkdir()
    refused(arena(runs["alae"][0], out, "--directions", 1, "--reconstruct", folder), "b.png")
    assert not list(out.iterdir())


def test_nothing_is_overwritten(runs, tmp_path):
    out = tmp_path / "out"
    done(runs["mlp"][0], out, "--n", 2)
    before = {file: file.read_bytes() for file in out.rglob("*") if file.is_file()}
    refused(arena(runs["mlp"][0], out, "--n", 2), "earlier", "new folder")
    assert before == {file: file.read_bytes() for file in out.rglob("*") if file.is_file()}
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.doc").write_text("x")
    refused(arena(runs["mlp"][0], tmp_path / "mine", "--n", 2), "not empty")
    refused(arena(runs["mlp"][0], tmp_path / "mine" / "thesis.doc", "--n", 2), "thesis.doc")
    assert [file.name for file in (tmp_path / "mine").iterdir()] == ["thesis.doc"]


def test_a_missing_video_library_is_said_before_anything_is_made(runs, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    result = arena(runs["mlp"][0], tmp_path / "out", "--interpolate", "lerp", "--video", "walk.mp4")
    refused(result, "pip install -e '.[faces]'")
    assert not (tmp_path / "out").exists()


def test_a_checkpoint_and_a_rounds_weights_do_as_well_as_the_run(runs, tmp_path):
    run, player = runs["mlp"]
    with Ledger(run) as ledger:
        ledger.write_weights(player, "rounds/00/generator.safetensors")
    for i, path in enumerate((run, next((run / "state").glob("*.ckpt")), run / "rounds/00/generator.safetensors")):
        done(path, tmp_path / str(i), "--n", 2)
    names = ("samples/seed-000000.png", "samples/seed-000001.png", "samples.png", "manifest.jsonl")
    for name in names:
        assert len({(tmp_path / str(i) / name).read_bytes() for i in range(3)}) == 1


def test_help_shows_examples_and_imports_nothing_heavy():
    code = (
        "import sys; from click.testing import CliRunner; from arena.sample_command import sample\n"
        "result = CliRunner().invoke(sample, ['--help'], catch_exceptions=False)\n"
        "assert 'Examples:' in result.output and 'arena sample' in result.output.split('Examples:')[1]\n"
        "print(sorted({'torch', 'torchvision', 'numpy', 'scipy', 'PIL', 'av', 'pydantic'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert found.stdout.strip() == "[]"
