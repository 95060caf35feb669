"""Layers, types and the words of refusals."""

import pytest

from arena.config import differences, names, over, parse_set, parse_yaml, resolve
from arena.errors import InputError

WHO = {"generator": "cyclegan", "detector": "cnnspot"}


def test_later_layers_win():
    config = resolve([WHO, {"rounds": 5}, {"rounds": 7, "data": {"size": 128}}])
    assert (config.rounds, config.data.size, config.data.train) == (7, 128, 300)


def test_player_keywords_from_yaml_preset_and_set():
    config = resolve([WHO, parse_set(["generator.width=16", "generator.lr=2e-4", "data.size=96"])])
    assert config.generator.options["width"] == 16
    assert config.generator.options["blocks"] == 4  # the quick preset's
    assert config.generator.options["lr"] == 2e-4  # YAML 1.1 reads 2e-4 as a string: brought to its type
    assert config.data.size == 96


def test_paper_preset_leaves_the_papers_defaults():
    assert "width" not in resolve([WHO], "paper").generator.options


def test_horizon_is_the_runs_own_length():
    assert resolve([WHO, {"rounds": 4, "generator_steps": 25}]).generator.options["steps"] == 100
    assert resolve([WHO, parse_set(["generator.steps=77"])]).generator.options["steps"] == 77


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        ({"generator": "cycelgan"}, "did you mean 'cyclegan'"),
        ({"detector": "cnnspott"}, "did you mean 'cnnspot'"),
        ({"roundz": 3}, "did you mean 'rounds'"),
        ({"rounds": 0}, "rounds: input should be greater than or equal to 1, not 0"),
        ({"rounds": "many"}, "rounds: input should be a valid integer"),
        ({"data": {"sise": 64}}, "did you mean 'size'"),
        ({"data": {"size": 63}}, "data.size"),
        ({"generator": {"wdth": 3}}, "did you mean 'width'"),
        ({"generator": {"width": "wide"}}, "generator cyclegan: width: input should be a valid integer"),
        ({"precision": "fp8"}, "precision"),
        ({"baseline": "spectre"}, "did you mean 'spectrum'"),
        ({"data": 7}, "expected keywords"),
    ],
)
def test_refusals_say_where_and_what(layer, words):
    with pytest.raises(InputError) as refusal:
        resolve([WHO, layer])
    assert words in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_unknown_preset():
    with pytest.raises(InputError, match="did you mean 'quick'"):
        resolve([WHO], "quik")


HOSTILE = ["a: 1\na: 2", "a: [", "- 1", "a: !!python/object:os.system x", "[" * 5000, "a: &x [1]\nb: *x"]


@pytest.mark.parametrize("text", HOSTILE)
def test_yaml_is_safe_and_strict(text):
    with pytest.raises(InputError, match="here"):
        parse_yaml(text, "here")


@pytest.mark.parametrize("pair", ["rounds", "=3", "a.b=3", "data.a.b=3"])
def test_set_wants_key_and_value(pair):
    with pytest.raises(InputError, match="expected"):
        parse_set([pair])


def test_over_a_stored_run():
    stored = resolve([WHO, {"rounds": 5}])
    assert over(stored, []) == stored
    assert over(stored, [WHO, {"rounds": 5}]) == stored
    found = differences(stored.model_dump(), over(stored, [{"rounds": 6}]).model_dump())
    assert "rounds: 5 there, 6 asked for" in found
    assert over(stored, [{"detector": "spectrum"}]).detector.name == "spectrum"


def test_every_packaged_player_and_preset_resolves():
    for preset in names("run"):
        for gen in names("gen"):
            for detect in names("detect"):
                assert resolve([{"generator": gen, "detector": detect}], preset).generator.name == gen


def test_a_generator_brings_its_data_and_the_presets_settings_with_it():
    layers = [{"generator": "faceswap", "detector": "cnnspot"}, parse_set(["generator.width=24"])]
    config = resolve(layers)
    assert config.data.source == "faces-two"
    assert config.generator_batch == 8
    assert config.generator.options["width"] == 24
    assert config.generator.options["size"] == config.data.size
    mine = resolve([*layers, {"data": {"source": "faces", "size": 32}, "generator_batch": 3}])
    assert (mine.data.source, mine.generator_batch, mine.generator.options["size"]) == ("faces", 3, 32)
    assert resolve([{"generator": "cyclegan", "detector": "cnnspot"}]).data.source == "faces"


def test_a_generators_size_is_the_images():
    with pytest.raises(InputError, match="--size 128"):
        resolve([{"generator": "faceswap", "detector": "cnnspot"}, parse_set(["generator.size=128"])])
