"""Zips that strangers send: every way to cheat is refused with its reason, and nothing is left behind."""

import os
import stat
import struct
import warnings
import zipfile
from dataclasses import dataclass, replace

import pytest

from arena.errors import InputError
from arena.submission.archive import Problem, listing, printable, unpack, write_zip


@dataclass(frozen=True)
class Limits:
    zip_bytes: int = 500_000_000
    members: int = 20_000
    member_bytes: int = 200_000_000
    total_bytes: int = 2_000_000_000
    ratio: float = 200
    name_length: int = 120


def anything(name):
    return None


def link(info):
    info.external_attr = (stat.S_IFLNK | 0o777) << 16


def pipe(info):
    info.external_attr = (stat.S_IFIFO | 0o644) << 16


def zipped(path, members, how=None, method=zipfile.ZIP_DEFLATED):
    """A zip of (name, content) pairs, names as they are, `how` done to each entry."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of duplicate names
        with zipfile.ZipFile(path, "w", method) as archive:
            for name, content in members:
                info = zipfile.ZipInfo("x")
                info.filename, info.compress_type = name, method
                if how:
                    how(info)
                archive.writestr(info, content)
    return path


def end_record(count, length, start):
    return struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, count, count, length, start, 0)


def changed(path, old, new, times=-1):
    data = path.read_bytes()
    assert old in data
    path.write_bytes(data.replace(old, new, times))
    return path


def refused(tmp_path, path, limits=Limits(), allowed=anything):
    """Every problem's line; both ways to ask agree, and nothing is in the folder nor beside it."""
    before = sorted(tmp_path.rglob("*"))
    folder = tmp_path / "in" / "team"
    problems = unpack(path, folder, limits, allowed)
    assert problems
    assert list(folder.iterdir()) == []
    folder.rmdir()
    folder.parent.rmdir()
    assert sorted(tmp_path.rglob("*")) == before
    assert all(isinstance(problem, Problem) and str(problem).isprintable() for problem in problems)
    return "\n".join(map(str, problems))


NAMES = {
    "../evil.txt": "leaves its folder",
    "fakes/../../evil.txt": "leaves its folder",
    "/etc/passwd": "absolute",
    "C:/x.txt": "absolute",
    "..\\evil.txt": "absolute",
    "a//b.txt": "empty parts",
    "./a.txt": "empty parts",
    "a.txt ": "spaces",
    "a.txt.": "dot at its end",
    "fakes/CON.png": "Windows",
    "nul": "Windows",
    "a\x1b[31mb.txt": "plain ASCII",
    "a\u202egnp.exe": "plain ASCII",
    "\u00e4.txt": "plain ASCII",
    "a\nb.txt": "plain ASCII",
    "x" * 130: "130 characters",
    "weights.pt": "a pickle",
    "weights.PKL": "a pickle",
    "model.bin": "a pickle",
    "more.zip": "an archive inside",
    "more.tar.gz": "an archive inside",
    "scores.npz": "NumPy",
}


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_a_member_with_a_bad_name_is_refused(tmp_path, name):
    path = zipped(tmp_path / "a.zip", [("good.txt", b"good"), (name, b"evil")])
    assert NAMES[name] in refused(tmp_path, path)


@pytest.mark.parametrize(
    ("name", "word"), [(b"aa\0.txt", "plain ASCII"), (b"\x80\xffa.txt", "plain ASCII"), (b"..\\.txt", "absolute")]
)
def test_a_name_in_raw_bytes_is_refused(tmp_path, name, word):
    real = b"abcdefgh"[: len(name)]
    assert word in refused(tmp_path, changed(zipped(tmp_path / "a.zip", [(real.decode(), b"1")]), real, name))


def test_a_member_without_a_name_is_refused(tmp_path):
    assert "without a name" in refused(tmp_path, zipped(tmp_path / "a.zip", [("", b"1")]))


@pytest.mark.parametrize(("how", "word"), [(link, "symbolic link"), (pipe, "something special")])
def test_links_and_special_files_are_refused(tmp_path, how, word):
    assert word in refused(tmp_path, zipped(tmp_path / "a.zip", [("a.txt", b"/etc/passwd")], how))


def test_a_folder_is_passed_over_unless_it_holds_bytes(tmp_path):
    path = zipped(tmp_path / "a.zip", [("fakes/", b""), ("fakes/a.txt", b"1")])
    members, problems = listing(path, Limits(), anything)
    assert ([member.filename for member in members], problems) == (["fakes/a.txt"], [])
    assert "holds bytes" in refused(tmp_path, zipped(tmp_path / "b.zip", [("fakes/", b"12345")]))


@pytest.mark.parametrize(
    ("names", "word"),
    [(("a", "a"), "stands twice"), (("a.txt", "A.TXT"), "but for its case"), (("a", "A/"), "but for its case")],
)
def test_names_that_clash_are_refused(tmp_path, names, word):
    assert word in refused(tmp_path, zipped(tmp_path / "a.zip", [(name, b"") for name in names]))


def test_a_file_that_is_a_folder_to_another_leaves_nothing(tmp_path):
    assert "cannot be unpacked" in refused(tmp_path, zipped(tmp_path / "a.zip", [("a", b"1"), ("a/b", b"2")]))


def test_only_what_the_list_allows_may_be_there(tmp_path):
    path = zipped(tmp_path / "a.zip", [("a.txt", b"1"), ("run.sh", b"2")])
    assert (
        refused(tmp_path, path, allowed=lambda name: None if name == "a.txt" else "not wanted") == "run.sh: not wanted"
    )


def test_encryption_and_unknown_methods_are_refused(tmp_path):
    def locked(path, flags):  # bit 0 of the flags, which writing clears
        data = bytearray(path.read_bytes())
        for mark, place in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
            data[data.index(mark) + place] |= flags
        path.write_bytes(data)
        return path

    assert "encrypted" in refused(tmp_path, locked(zipped(tmp_path / "a.zip", [("a.txt", b"1")]), 1))
    lzma = zipped(tmp_path / "b.zip", [("a.txt", b"1" * 100)], method=zipfile.ZIP_LZMA)
    assert "method 14" in refused(tmp_path, lzma)


def test_bombs_are_refused_before_they_are_unpacked(tmp_path):
    bomb = zipped(tmp_path / "bomb.zip", [("a.txt", bytes(30_000_000))])
    assert "zip bomb" in refused(tmp_path, bomb)
    assert unpack(bomb, tmp_path / "fine", replace(Limits(), ratio=2000), anything) == []
    plain = zipped(tmp_path / "plain.zip", [(name, bytes(1000)) for name in "abc"])
    assert "1,000 bytes, more than the 900" in refused(tmp_path, plain, replace(Limits(), member_bytes=900))
    assert "3,000 bytes, more than the 2,900" in refused(tmp_path, plain, replace(Limits(), total_bytes=2900))
    assert "more than the 100 allowed" in refused(tmp_path, plain, replace(Limits(), zip_bytes=100))
    assert "3 members, at most 2" in refused(tmp_path, plain, replace(Limits(), members=2))


def test_members_that_share_their_bytes_are_refused(tmp_path):
    """The bomb of D. Fifield (2019) in small: many directory entries, one file."""
    path = zipped(tmp_path / "a.zip", [("a.txt", b"12345"), ("b.txt", b"12345")])
    data = path.read_bytes()
    first, second = data.index(b"PK\1\2"), data.index(b"PK\1\2", data.index(b"PK\1\2") + 1)
    entry = bytearray(data[second : data.index(b"PK\5\6")])
    entry[42:46] = data[first + 42 : first + 46]  # the second entry points to the first one's bytes
    path.write_bytes(data[:second] + entry + data[data.index(b"PK\5\6") :])
    said = refused(tmp_path, path)
    assert "shares bytes" in said
    assert "differ on its name" in said


def test_sizes_that_lie_are_refused(tmp_path):
    def lying(name, local, method=zipfile.ZIP_DEFLATED):
        """4000 bytes that say they are 100, in the directory and in their own header too or not."""
        path = zipped(tmp_path / name, [("a.txt", os.urandom(4000))], method=method)
        return changed(path, struct.pack("<L", 4000), struct.pack("<L", 100), -1 if local else 1)

    assert "differ on its name or size" in refused(tmp_path, lying("a.zip", False))
    assert "does not unpack" in refused(tmp_path, lying("b.zip", True))
    path = zipped(tmp_path / "c.zip", [("a.txt", b"1" * 3000)])
    changed(path, struct.pack("<L", 3000), struct.pack("<L", 5000))
    said = refused(tmp_path, path)
    assert "declares 5000 bytes" in said or "does not unpack" in said


def test_a_damaged_member_is_refused(tmp_path):
    path = zipped(tmp_path / "a.zip", [("a.txt", b"first"), ("b.txt", b"second")], method=zipfile.ZIP_STORED)
    assert "b.txt: does not unpack" in refused(tmp_path, changed(path, b"second", b"sEcond"))


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"PK\3\4and so on", "an archive inside"), (b"\x80\4\x95and so on", "a pickle"),
        (b"\x1f\x8b\x08and so on", "an archive inside"), (b"\x93NUMPYand so on", "NumPy"),
    ],
)  # fmt: skip
def test_content_in_disguise_is_refused(tmp_path, content, word):
    assert word in refused(tmp_path, zipped(tmp_path / "a.zip", [("0.png", b"first"), ("fakes/x.png", content)]))


def test_safetensors_whose_length_looks_like_a_pickle_are_none(tmp_path):
    content = struct.pack("<Q", 0x0280) + b"{" + b" " * 0x27E + b"}"
    assert (
        unpack(zipped(tmp_path / "a.zip", [("detector.safetensors", content)]), tmp_path / "b", Limits(), anything)
        == []
    )


def test_the_directory_is_bounded_before_it_is_read(tmp_path, monkeypatch):
    """A hundred thousand entries, a directory of 500 MB, one elsewhere: zipfile never sees them."""
    monkeypatch.setattr(zipfile, "ZipFile", lambda *_: pytest.fail("the directory was read"))
    entry = struct.pack("<4s6H3L5H2L", b"PK\1\2", 20, 20, 0, 0, 0, 33, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0) + b"a"
    cases = {
        "50000 members": entry * 50_000 + end_record(50_000, len(entry) * 50_000, 0),
        "ZIP64": entry * 100_000 + end_record(0xFFFF, len(entry) * 100_000, 0),
        "its directory has 60000 bytes": bytes(60_000) + end_record(1, 60_000, 0),
        "not where its end record says": entry + bytes(10) + end_record(1, len(entry), 0),
        "a ZIP64 archive": entry + b"PK\6\7" + bytes(16) + end_record(1, len(entry) + 20, 0),
    }
    for word, data in cases.items():
        (tmp_path / "a.zip").write_bytes(data)
        assert word in refused(tmp_path, tmp_path / "a.zip")


def test_what_is_no_zip_is_refused_and_never_waited_for(tmp_path):
    whole = zipped(tmp_path / "whole.zip", [("a.txt", b"1" * 500)]).read_bytes()
    cases = {"empty": b"", "text": b"no zip at all, " * 9, "cut": whole[:-10], "comment": whole + b"tail"}
    for name, data in cases.items():
        (tmp_path / f"{name}.zip").write_bytes(data)
    words = {"empty": "0 bytes", "text": "something else", "cut": "cut short", "comment": "bytes after its end"}
    for name, word in words.items():
        assert word in refused(tmp_path, tmp_path / f"{name}.zip")
    os.mkfifo(tmp_path / "pipe.zip")
    (tmp_path / "folder.zip").mkdir()
    (tmp_path / "link.zip").symlink_to(tmp_path / "whole.zip")
    for name in ("pipe", "folder", "link"):
        assert "expected a zip file, found a link" in refused(tmp_path, tmp_path / f"{name}.zip")
    assert "cannot be read" in refused(tmp_path, tmp_path / "none.zip")


def test_twenty_problems_are_told_and_the_rest_counted(tmp_path):
    path = zipped(tmp_path / "a.zip", [(f"{i}.pt", b"") for i in range(30)])
    assert refused(tmp_path, path).splitlines()[20] == "a.zip: and 10 more problems"


def test_a_folder_in_use_is_left_alone(tmp_path):
    (tmp_path / "mine").write_text("mine")
    path = zipped(tmp_path / "a.zip", [("b.txt", b"1")])
    with pytest.raises(InputError, match="not empty"):
        unpack(path, tmp_path, Limits(), anything)
    assert (tmp_path / "mine").read_text() == "mine"


def test_what_is_written_comes_back_and_is_the_same_twice(tmp_path):
    (tmp_path / "weights").write_bytes(bytes(3_000_000))
    members = {"fakes/b.png": b"\x89PNG" * 100, "a.json": b"{}" * 1000, "detector.onnx": tmp_path / "weights"}
    write_zip(tmp_path / "1.zip", members)
    os.utime(tmp_path / "weights", (0, 0))
    write_zip(tmp_path / "2.zip", dict(reversed(members.items())))
    assert (tmp_path / "1.zip").read_bytes() == (tmp_path / "2.zip").read_bytes()
    assert unpack(tmp_path / "1.zip", tmp_path / "out", Limits(), anything) == []
    assert (tmp_path / "out/detector.onnx").read_bytes() == bytes(3_000_000)
    assert (tmp_path / "out/fakes/b.png").read_bytes() == members["fakes/b.png"]
    assert stat.S_IMODE((tmp_path / "out/a.json").stat().st_mode) == 0o600
    with zipfile.ZipFile(tmp_path / "1.zip") as archive:
        kinds = {info.filename: info.compress_type for info in archive.infolist()}
        assert archive.testzip() is None
    assert kinds == {
        "a.json": zipfile.ZIP_DEFLATED,
        "detector.onnx": zipfile.ZIP_STORED,
        "fakes/b.png": zipfile.ZIP_STORED,
    }
    with pytest.raises(InputError, match="leaves its folder"):
        write_zip(tmp_path / "3.zip", {"../a": b""})
    assert not (tmp_path / "3.zip").exists()


def test_strings_of_strangers_are_made_printable():
    assert printable("plain (ä)") == "plain (ä)"
    assert printable("a\x1b[2J\r\n\u202e\ud800\0") == "a\\x1b[2J\\r\\n\\u202e\\ud800\\x00"
    assert printable("x" * 90) == "x" * 77 + "..."
    assert len(printable("\x00" * 50)) == 80
    assert str(Problem("a\x07", "text")) == "a\\x07: text"
