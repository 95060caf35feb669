"""Whole files or none; saves that survive; one run at a time."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from arena.errors import InputError
from arena.files import atomic, read_json, write_json
from arena.ledger import Ledger, read_losses


class Player:
    def __init__(self, fill=0.0):
        self.net = torch.nn.Linear(2, 2)
        torch.nn.init.constant_(self.net.weight, fill)
        self.opt = torch.optim.Adam(self.net.parameters())


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "x.json"
    write_json(path, {"a": 1})

    def fail():
        with atomic(path) as file:
            file.write(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert read_json(path) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(path, float("nan"))


def test_a_full_disk_is_one_line_and_loses_nothing(tmp_path, monkeypatch):
    path = tmp_path / "x.json"
    write_json(path, [1])

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("arena.files.os.fsync", full)
    with pytest.raises(InputError, match="No space left on device"):
        write_json(path, [2])
    monkeypatch.undo()
    assert read_json(path) == [1]
    assert len(list(tmp_path.iterdir())) == 1


def test_saves_keep_the_newest_two_and_name_them(tmp_path):
    with Ledger(tmp_path) as ledger:
        for step in (1, 2, 3):
            ledger.save(Player(step), "detector", round=0, step=step, seconds=1.0)
        assert [e["step"] for e in ledger.saves("detector")] == [3, 2]
        assert len(list(tmp_path.glob("state/*.ckpt"))) == 2
        player = Player()
        assert ledger.load(player, "detector")["step"] == 3
        assert (player.net.weight == 3).all()
        ledger.trim_saves()
        assert len(list(tmp_path.glob("state/*.ckpt"))) == 1


@pytest.mark.parametrize("damage", ["cut", "flip", "empty"])
def test_a_damaged_save_is_named_and_the_one_before_serves(tmp_path, damage):
    with Ledger(tmp_path) as ledger:
        for step in (1, 2):
            ledger.save(Player(step), "detector", round=0, step=step, seconds=1.0)
        path = ledger.path(ledger.saves("detector")[0]["file"])
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes({"cut": data[: len(data) // 2], "flip": data, "empty": b""}[damage])
        player = Player()
        with pytest.raises(InputError, match=r"is damaged\. Delete it and run again"):
            ledger.load(player, "detector")
        path.unlink()
        assert ledger.load(player, "detector")["step"] == 1
        assert (player.net.weight == 1).all()


def test_weights_are_safetensors(tmp_path):
    with Ledger(tmp_path) as ledger:
        ledger.write_weights(Player(5), "w.safetensors")
    found = load_file(tmp_path / "w.safetensors")
    assert found.keys() == {"net.weight", "net.bias"}
    assert (found["net.weight"] == 5).all()


def test_one_run_at_a_time(tmp_path):
    with Ledger(tmp_path), pytest.raises(InputError, match="in use by another run"), Ledger(tmp_path):
        pass


def test_leftovers_of_a_killed_write_are_swept(tmp_path):
    (tmp_path / "rounds").mkdir()
    (tmp_path / "rounds" / ".x.json.abc.part").write_bytes(b"half")
    with Ledger(tmp_path):
        assert not list(tmp_path.rglob("*.part"))


def test_images_round_trip_in_chunks(tmp_path):
    images = torch.randint(0, 256, (10, 3, 4, 4), dtype=torch.uint8)
    with Ledger(tmp_path) as ledger:
        ledger.write_images("x.npy", images.split(3), 10, 4)
        assert np.array_equal(ledger.read_images("x.npy"), images.numpy())
        (tmp_path / "x.npy").write_bytes((tmp_path / "x.npy").read_bytes()[:-5])
        with pytest.raises(InputError, match="is damaged"):
            ledger.read_images("x.npy")


def test_losses_are_cut_back(tmp_path):
    with Ledger(tmp_path) as ledger:
        ledger.append_losses("g", 0, [(0, {"a": 1.0, "b": 0.1})])
        length = (tmp_path / "rounds/00/g.csv").stat().st_size
        ledger.append_losses("g", 0, [(1, {"a": 2.0, "b": 0.2})])
        ledger.cut_losses("g", 0, length)
        ledger.append_losses("g", 0, [(1, {"a": 3.0, "b": 0.3})])
        assert list(read_losses(tmp_path / "rounds/00/g.csv")) == [
            {"step": 0, "a": 1.0, "b": 0.1}, {"step": 1, "a": 3.0, "b": 0.3},
        ]  # fmt: skip
