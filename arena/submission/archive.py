"""Zip archives that strangers send: the whole listing is checked before one byte is unpacked; and zips that we write.

Everything in an archive is a claim: names, sizes, even the count. The end record bounds the directory before it is
parsed, the directory is compared with what stands at each member, and real bytes are counted while they are unpacked.
Layout and signatures: PKWARE APPNOTE 6.3.10, sections 4.3.7 (local header), 4.3.12 (directory), 4.3.16 (end record).
"""

import os
import re
import shutil
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from arena.errors import InputError
from arena.files import atomic

MOST_PROBLEMS = 20
SMALL = 1 << 20  # bytes; so little may be as hollow as it likes
CHUNK = 1 << 16
ENTRY_BYTES = 512  # of the directory a member: 46, its name, and what zip programs note about times and owners
STORED = frozenset({".png", ".mp4", ".onnx", ".safetensors"})  # deflate gains nothing, or too much: zeros look a bomb

_END, _LOCAL = struct.Struct("<4s4H2LH"), struct.Struct("<4s5H3L2H")
_ENCRYPTED = 0x1 | 0x40 | 0x2000  # section 4.4.4: also strongly, also the directory
_SIZES_FOLLOW = 0x8
_FOREIGN_EXTRAS = {0x0001: "ZIP64", 0x7075: "a second name"}
_RESERVED = {"con", "prn", "aux", "nul", "conin$", "conout$"} | {f"{k}{n}" for k in ("com", "lpt") for n in range(10)}
_NESTED = "an archive inside the archive: put its files in directly"
_PICKLE = "a pickle, which runs code when it is opened: hand in weights as .onnx or .safetensors"
_NUMPY = "a NumPy file, which may hold a pickle: hand in pictures as PNG, scores as CSV"
_REFUSED = (
    dict.fromkeys((".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".zst", ".7z", ".rar", ".whl", ".jar"), _NESTED)
    | dict.fromkeys((".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".bin", ".joblib"), _PICKLE)
    | dict.fromkeys((".npz", ".npy"), _NUMPY)
)  # fmt: skip
_SNIFFED = {
    b"PK\3\4": _NESTED, b"PK\5\6": _NESTED, b"\x1f\x8b": _NESTED, b"7z\xbc\xaf\x27\x1c": _NESTED, b"Rar!\x1a": _NESTED,
    b"\xfd7zXZ\0": _NESTED, b"BZh": _NESTED, b"\x28\xb5\x2f\xfd": _NESTED, b"\x93NUMPY": _NUMPY,
    b"\x80\2": _PICKLE, b"\x80\3": _PICKLE, b"\x80\4": _PICKLE, b"\x80\5": _PICKLE,
}  # fmt: skip


class ZipLimits(Protocol):
    """What an archive may be: bytes of the file, members, unpacked bytes of one and of all, and their ratio."""

    @property
    def zip_bytes(self) -> int: ...
    @property
    def members(self) -> int: ...
    @property
    def member_bytes(self) -> int: ...
    @property
    def total_bytes(self) -> int: ...
    @property
    def ratio(self) -> float: ...
    @property
    def name_length(self) -> int: ...


@dataclass(frozen=True)
class Problem:
    """What is wrong with a submission: where (a member or the archive), and one line with the remedy; both printable.

    `where` is made printable here, since it is mostly a stranger's; `text` must come so.
    """

    where: str
    text: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "where", printable(self.where))

    def __str__(self) -> str:
        return f"{self.where}: {self.text}"


def printable(text: str, most: int = 80) -> str:
    """A stranger's string for a terminal or a log: one line, control and format characters escaped, cut to `most`.

    Right-to-left overrides are format characters (Unicode category Cf), and so are zero-width ones. HTML and rich's
    markup want an escape of their own.
    """
    cut = text if len(text) <= most else text[: most - 3]
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in cut)
    if len(shown) > most or cut is not text:
        shown = shown[: most - 3] + "..."
    return shown


Allowed = Callable[[str], str | None]


def listing(path: Path, limits: ZipLimits, allowed: Allowed) -> tuple[list[zipfile.ZipInfo], list[Problem]]:
    """The members of a zip, plain folders left out, and all that is wrong with them, at most 20 problems and a count.

    allowed: name -> None if such a member may be there, else why not. Nothing is unpacked. Members are to be trusted
    only where there is no problem.
    """
    try:
        with _regular(Path(path)) as file:
            return _listing(file, Path(path).name, limits, allowed)[1:]
    except _Bad as bad:
        return [], [bad.problem]


def unpack(path: Path, folder: Path, limits: ZipLimits, allowed: Allowed) -> list[Problem]:
    """Unpack a zip into `folder`, which must be new or empty, if nothing is wrong with it; else say what is.

    After a problem `folder` is as empty as it was. Files get mode 0600. Raises InputError where `folder` cannot be
    written or holds something.
    """
    folder = Path(folder)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise InputError(f"{folder} is not empty: expected a new folder to unpack into.")
    except OSError as error:
        raise InputError(f"cannot write {folder}: {error.strerror or error}. Choose another folder.") from error
    try:
        with _regular(Path(path)) as file:  # one handle: what was checked is what is unpacked
            archive, members, problems = _listing(file, Path(path).name, limits, allowed)
            if archive is None or problems:
                return problems
            total = 0
            for member in members:
                total += _extract(archive, member, folder, limits.total_bytes - total)
            return []
    except _Bad as bad:
        _clear(folder)
        return [bad.problem]
    except BaseException:
        _clear(folder)
        raise


def write_zip(out: Path, members: Mapping[str, bytes | Path]) -> None:
    """Write a zip of name -> content, the same bytes for the same members: sorted, of 1980, without owners.

    Pictures, videos and weights are stored as they are, the rest deflated. Raises InputError where it cannot be
    written or a file cannot be read.
    """
    with atomic(out) as file, zipfile.ZipFile(file, "w") as archive:
        for name in sorted(members):
            if reason := _unsafe(name, 65535):
                raise InputError(f"{printable(name)}: {reason}.")
            content = members[name]
            info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            info.create_system = 3  # Unix, wherever it is written
            info.external_attr = (stat.S_IFREG | 0o644) << 16
            info.compress_type = zipfile.ZIP_STORED if Path(name).suffix in STORED else zipfile.ZIP_DEFLATED
            info.file_size = len(content) if isinstance(content, bytes) else content.stat().st_size
            with archive.open(info, "w") as target:
                if isinstance(content, bytes):
                    target.write(content)
                else:
                    with content.open("rb") as source:
                        shutil.copyfileobj(source, target)


class _Bad(Exception):
    def __init__(self, where: str, text: str):
        super().__init__(text)
        self.problem = Problem(where, text)


@contextmanager
def _regular(path: Path) -> Iterator[BinaryIO]:
    """An open regular file; never a wait for what a pipe may bring, never through a link."""
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    try:
        if path.is_symlink() or not stat.S_ISREG(path.stat().st_mode):
            raise _Bad(path.name, "expected a zip file, found a link, a folder or a device: hand in the file itself")
        handle = os.open(path, flags)
    except OSError as error:
        raise _Bad(path.name, f"cannot be read: {error.strerror}. Check the path and copy it anew") from error
    with os.fdopen(handle, "rb") as file:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise _Bad(path.name, "expected a zip file, found something else: hand in the file itself")
        yield file


def _listing(
    file: BinaryIO, name: str, limits: ZipLimits, allowed: Allowed
) -> tuple[zipfile.ZipFile | None, list[zipfile.ZipInfo], list[Problem]]:
    count, directory = _end(file, name, limits)
    try:
        archive = zipfile.ZipFile(file)
    except (zipfile.BadZipFile, NotImplementedError, ValueError, struct.error, OSError, EOFError) as error:
        raise _Bad(name, f"its directory is damaged ({printable(str(error))}): zip it anew") from error
    entries = archive.infolist()
    if len(entries) != count:
        raise _Bad(name, f"its end says {count} members, its directory holds {len(entries)}: zip it anew")

    problems = [
        Problem(entry.orig_filename, text) for entry in entries if (text := _entry(entry, limits, allowed)) is not None
    ]
    problems += _same_names(entries)
    if total := _over(sum(entry.file_size for entry in entries), limits.total_bytes):
        problems.append(Problem(name, f"unpacks to {total} in all: hand in fewer or smaller files"))
    if not problems:
        problems = _places(file, entries, directory)
    if len(problems) > MOST_PROBLEMS:
        problems = [*problems[:MOST_PROBLEMS], Problem(name, f"and {len(problems) - MOST_PROBLEMS} more problems")]
    return archive, [entry for entry in entries if not entry.orig_filename.endswith("/")], problems


def _end(file: BinaryIO, name: str, limits: ZipLimits) -> tuple[int, int]:
    """How many members the end record promises and where their directory starts, before anything parses it."""
    size = file.seek(0, os.SEEK_END)
    if over := _over(size, limits.zip_bytes):
        raise _Bad(name, f"has {over}: hand in fewer or smaller files")
    if size < _END.size:
        raise _Bad(name, f"expected a zip file, found {size} bytes: copy it anew")
    file.seek(max(0, size - _END.size - 20))
    tail = file.read()
    mark, disk, start_disk, here, count, length, directory, comment = _END.unpack(tail[-_END.size :])
    if mark != b"PK\5\6" or comment:
        file.seek(0)
        zips = file.read(4) in (b"PK\3\4", b"PK\5\6")
        raise _Bad(
            name,
            "a zip file that is cut short, or has a comment or other bytes after its end: zip it anew without a comment"
            if zips
            else "expected a zip file, found something else: zip the files (zip -X team.zip ...)",
        )
    # zipfile follows a ZIP64 locator wherever one stands, whatever the plain record says
    if tail[: -_END.size].startswith(b"PK\6\7") or 0xFFFF in (here, count) or 0xFFFFFFFF in (length, directory):
        raise _Bad(name, "a ZIP64 archive, for more members and bytes than are allowed: hand in fewer or smaller files")
    if disk or start_disk or here != count:
        raise _Bad(name, "one part of an archive of several: zip it into one file")
    if count > limits.members:
        raise _Bad(name, f"has {count} members, at most {limits.members} are allowed: hand in fewer files")
    if length > ENTRY_BYTES * count:
        raise _Bad(name, f"its directory has {length} bytes for {count} members: zip it anew (zip -X)")
    if directory + length != size - _END.size:
        raise _Bad(name, "its directory is not where its end record says: zip it anew")
    return count, directory


def _entry(entry: zipfile.ZipInfo, limits: ZipLimits, allowed: Allowed) -> str | None:
    """What is wrong with a member by what the directory says of it, or None."""
    name = entry.orig_filename  # filename is cut at a NUL
    is_folder = name.endswith("/")
    if reason := _unsafe(name[:-1] if is_folder else name, limits.name_length):
        return reason
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if stat.S_ISLNK(kind):
        return "a symbolic link: hand in the file itself"
    if kind and not (stat.S_ISDIR(kind) if is_folder else stat.S_ISREG(kind)):
        return "neither a file nor a folder but something special (a device, a pipe): leave it out"
    if entry.flag_bits & _ENCRYPTED:
        return "encrypted: zip it without a password"
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return f"compressed by method {entry.compress_type}: zip it with deflate (zip's usual one) or stored"
    for mark in _extras(entry.extra):
        if mark in _FOREIGN_EXTRAS:
            return f"carries {_FOREIGN_EXTRAS[mark]} in an extra field: zip it anew with plain names and sizes (zip -X)"
    if over := _over(entry.file_size, limits.member_bytes):
        return f"unpacks to {over}: make it smaller"
    if entry.file_size > SMALL and entry.file_size > limits.ratio * entry.compress_size:
        return (
            f"{entry.file_size} bytes packed into {entry.compress_size}, more than {limits.ratio:g} to 1, as in a zip "
            "bomb: store it without compression (zip -0)"
        )
    if entry.compress_type == zipfile.ZIP_STORED and entry.compress_size != entry.file_size:
        return f"stored as it is, yet {entry.compress_size} bytes stand for {entry.file_size}: zip it anew"
    if is_folder:
        return "a folder that holds bytes of its own: zip it anew" if entry.file_size else None
    suffix = Path(name).suffix.lower()
    return _REFUSED[suffix] if suffix in _REFUSED else allowed(name)


def _unsafe(name: str, most: int) -> str | None:
    """Why a member must not have such a name on some system, or None."""
    if not name:
        return "a member without a name: zip it anew"
    if len(name) > most:
        return f"a name of {len(name)} characters, at most {most} are allowed: shorten it"
    if not name.isascii() or not name.isprintable():
        return "a name with characters other than plain ASCII letters, digits and signs: rename it"
    if "\\" in name or re.match(r"/|[A-Za-z]:", name):
        return "an absolute path, or one of Windows: zip it with paths relative to the submission's folder, with /"
    parts = name.split("/")
    if any(part in ("", ".", "..") for part in parts):
        return "a path that leaves its folder or has empty parts: zip it with plain relative paths"
    if any(part != part.strip(" ") or part.endswith(".") for part in parts):
        return "a name with spaces at its ends or a dot at its end: rename it"
    if any(part.split(".")[0].strip().lower() in _RESERVED for part in parts):
        return "a name that Windows keeps for devices: rename it"
    return None


def _extras(extra: bytes) -> Iterator[int]:
    while len(extra) >= 4:
        mark, length = struct.unpack_from("<HH", extra)
        yield mark
        extra = extra[4 + length :]


def _same_names(entries: list[zipfile.ZipInfo]) -> list[Problem]:
    """Names that are one on some system: the last one would win."""
    seen: dict[str, str] = {}
    problems = []
    for entry in entries:
        name, key = entry.orig_filename, entry.orig_filename.rstrip("/").lower()
        if key in seen:
            alike = "stands twice" if seen[key] == name else f"is {printable(seen[key])} but for its case"
            problems.append(Problem(name, f"{alike}: keep one, or rename it"))
        seen.setdefault(key, name)
    return problems


def _places(file: BinaryIO, entries: list[zipfile.ZipInfo], directory: int) -> list[Problem]:
    """Members whose own header says otherwise than the directory, or that share bytes (a bomb of overlaps)."""
    problems, end, before = [], 0, ""
    for entry in sorted(entries, key=lambda entry: entry.header_offset):
        name = entry.orig_filename
        file.seek(max(0, entry.header_offset))
        head = file.read(_LOCAL.size)
        if len(head) < _LOCAL.size or not head.startswith(b"PK\3\4"):
            problems.append(Problem(name, "is not where the directory says: zip it anew"))
            continue
        _, _, flags, method, _, _, _, packed, size, name_bytes, extra_bytes = _LOCAL.unpack(head)
        sizes = {(entry.compress_size, entry.file_size)} | ({(0, 0)} if flags & _SIZES_FOLLOW else set())
        same = file.read(name_bytes) == name.encode("ascii")
        if not same or (packed, size) not in sizes or (method, flags) != (entry.compress_type, entry.flag_bits):
            problems.append(Problem(name, "its own header and the directory differ on its name or size: zip it anew"))
        if entry.header_offset < end:
            problems.append(Problem(name, f"shares bytes with {printable(before)}, as in a zip bomb: zip it anew"))
        end = max(end, entry.header_offset + _LOCAL.size + name_bytes + extra_bytes + entry.compress_size)
        before = name
    if end > directory:
        problems.append(Problem(before, "runs into the directory: zip it anew"))
    return problems


def _extract(archive: zipfile.ZipFile, member: zipfile.ZipInfo, folder: Path, left: int) -> int:
    """Write one member below `folder`, counting real bytes. Raises _Bad, the file perhaps half there."""
    name, written = member.orig_filename, 0
    target = folder.joinpath(*name.split("/"))
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    try:
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with archive.open(member) as source, os.fdopen(os.open(target, flags, 0o600), "wb") as file:
            while chunk := source.read(CHUNK):
                if not written and (text := _sniff(name, chunk)):
                    raise _Bad(name, text)
                written += len(chunk)
                if written > min(member.file_size, left):
                    raise _Bad(name, f"holds more than the {member.file_size} bytes that it declares: zip it anew")
                file.write(chunk)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        raise _Bad(name, f"does not unpack ({printable(str(error) or 'it ends early')}): zip it anew") from error
    except OSError as error:
        raise _Bad(name, f"cannot be unpacked here: {error.strerror or printable(str(error))}") from error
    if written != member.file_size:
        raise _Bad(name, f"declares {member.file_size} bytes and holds {written}: zip it anew")
    return written


def _sniff(name: str, head: bytes) -> str | None:
    """Why a member that begins so is refused, whatever its name says."""
    if name.endswith(".safetensors") and head[8:9] == b"{":  # it opens with a length, which may look like a pickle
        return None
    return next((f"by its content {text}" for mark, text in _SNIFFED.items() if head.startswith(mark)), None)


def _over(size: int, limit: int) -> str | None:
    return f"{size:,} bytes, more than the {limit:,} allowed" if size > limit else None


def _clear(folder: Path) -> None:
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()
