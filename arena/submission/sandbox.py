"""Open strangers' files in a child process that can do little else: limited in memory, time, output and system calls.

Three walls, as far as the machine has them: rlimits (Linux, macOS); a seccomp filter (Linux on x86_64 and aarch64):
no network, no new process, no writing; bubblewrap, where it is installed and works: no file is there but the ones to
read and Python. What the child says is a stranger's word, too: it is bounded, checked and made printable.
"""

import json
import math
import os
import selectors
import shutil
import signal
import site
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

import arena
from arena.errors import InputError
from arena.submission.archive import printable

MOST_SAID = 64 << 20  # bytes of JSON
MOST_COMPLAINED = 1 << 14  # bytes of stderr that are kept
DTYPES = ("uint8", "float32", "float64")
LINE = 300  # characters of a child's sentence
ROOT = Path(arena.__file__).resolve().parent.parent
PACKAGES = ("arena", "configs", "detect", "gen")
# -I leaves out the current folder, PYTHONPATH and the user's own packages; what the parent runs on comes back by name
START = "import sys; sys.path[3:3] = [{!r}]; sys.path += {!r}; from arena.submission import worker; worker.main()"


@dataclass(frozen=True)
class Box:
    """What a job may cost, its libraries aside: private memory, processor and wall-clock time, the array, threads."""

    memory_bytes: int = 4 << 30
    cpu_seconds: int = 300
    wall_seconds: float = 300
    output_bytes: int = 4 << 30
    threads: int = 1


class Refused(Exception):
    """Why a job on a stranger's files failed: one printable line for the organiser and for the team."""


def call(
    job: str,
    arguments: dict[str, Any],
    *,
    reads: Sequence[Path],
    box: Box = Box(),
) -> tuple[dict[str, Any], np.ndarray | None]:
    """Run one job of worker.py in a limited child: its result, every string in it printable, and its array, if any.

    reads: the files and folders that the job opens, named in `arguments` by absolute paths (a Path becomes one).
    Raises Refused where it fails by anything that a stranger's file can do, InputError where this machine lacks a
    package that the job needs.
    """
    answer, array = _ask(job, arguments, reads, box, bubblewrap())
    return answer["result"], array


@cache
def protections() -> list[str]:
    """What holds strangers' files in on this machine, in plain words, tried out."""
    wrap = bubblewrap()
    holds = _ask("hello", {}, (), Box(), wrap)[0]["holds"]
    words = ["rlimits: memory, processor time, wall-clock time, size of output, open files"]
    if "seccomp" in holds:
        words.append("seccomp: no network, no new process, no file opened for writing")
    if wrap:
        words.append("bubblewrap: no network, and no file in sight but the submission's and Python's")
    elif "seccomp" in holds:
        words.append("no bubblewrap: a model that broke out of its runtime could read this account's files")
    else:
        words.append("rlimits only: files and network are in reach of a model that breaks out; run it in a container")
    return words


@cache
def bubblewrap() -> bool:
    """Whether bwrap is here and can start a job: in many containers it may not."""
    if not (sys.platform == "linux" and shutil.which("bwrap")):
        return False
    try:
        _ask("hello", {}, (), Box(wall_seconds=20), True)
    except (Refused, InputError):
        return False
    return True


def _ask(
    job: str, arguments: dict[str, Any], reads: Sequence[Path], box: Box, wrap: bool
) -> tuple[dict[str, Any], np.ndarray | None]:
    if os.name != "posix":
        raise InputError("strangers' submissions are opened on Linux or macOS alone. Use a container, or WSL.")
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as task:
        text = {"job": job, "arguments": arguments, "box": asdict(box), "out": out.fileno()}
        try:
            task.write(json.dumps(text, default=_path).encode())
        except (TypeError, ValueError, RecursionError) as error:  # a stranger's settings, from YAML
            raise Refused("asks for a setting that is no text, number or list.") from error
        task.seek(0)
        command = (_walls(reads, box) if wrap else []) + _python()
        process = subprocess.Popen(
            command, stdin=task, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=folder, env=_environment(box),
            pass_fds=[out.fileno()], start_new_session=True,
        )  # fmt: skip
        with _killed(process):
            said, complained, ended = _listen(process, box.wall_seconds)
        answer = _understand(process.returncode, said, complained, ended, box)
        return answer, _array(answer.get("array"), out, box)


def _path(value: Any) -> str:
    if isinstance(value, Path):
        return os.path.abspath(value)
    raise TypeError(f"{type(value).__name__} in a job")


def _python() -> list[str]:
    user = [site.getusersitepackages()] if site.ENABLE_USER_SITE else []
    return [sys.executable, "-I", "-B", "-c", START.format(str(ROOT), user)]


def _environment(box: Box) -> dict[str, str]:
    threads = dict.fromkeys(("OMP", "OPENBLAS", "MKL", "NUMEXPR", "VECLIB_MAXIMUM"), str(box.threads))
    return {
        "PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "HOME": "/nonexistent", "GOMP_SPINCOUNT": "3000",
        **{f"{library}_NUM_THREADS": count for library, count in threads.items()},
    }  # fmt: skip


def _walls(reads: Sequence[Path], box: Box) -> list[str]:
    """bwrap's words: Python, the lab's packages and `reads` to be read, nothing else, at the paths that they have.

    /tmp is an empty one in memory: torch does not start without a folder for temporary files.
    """
    system = ["/usr", "/lib", "/lib64", "/etc/ld.so.cache", "/etc/alternatives"]
    python = [sys.prefix, sys.base_prefix, os.path.dirname(os.path.realpath(sys.executable))]
    if site.ENABLE_USER_SITE:
        python.append(site.getusersitepackages())
    shown = [*system, *python, *(str(ROOT / package) for package in PACKAGES), *map(os.path.abspath, reads)]
    binds = [word for path in dict.fromkeys(shown) for word in ("--ro-bind-try", path, path)]
    variables = [word for name, value in _environment(box).items() for word in ("--setenv", name, value)]
    return [
        shutil.which("bwrap") or "bwrap", "--unshare-all", "--die-with-parent", "--cap-drop", "ALL", "--clearenv",
        *variables, "--tmpfs", "/tmp", *binds, "--proc", "/proc", "--dev", "/dev", "--dir", "/empty",
        "--chdir", "/empty", "--remount-ro", "/", "--",
    ]  # fmt: skip


@contextmanager
def _killed(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Nothing of the child's session is alive when the block ends."""
    try:
        yield
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        for pipe in (process.stdout, process.stderr):
            assert pipe is not None
            pipe.close()


def _listen(process: subprocess.Popen[bytes], seconds: float) -> tuple[bytes, bytes, str | None]:
    """Stdout and stderr, as much as may be said, and why the listening was broken off, if it was."""
    out, err = process.stdout, process.stderr
    assert out is not None
    assert err is not None
    heard = {out: bytearray(), err: bytearray()}
    end = time.monotonic() + seconds
    ended = None
    with selectors.DefaultSelector() as selector:
        for watched in heard:
            selector.register(watched, selectors.EVENT_READ)
        while selector.get_map() and ended is None:
            ready = selector.select(max(0.0, end - time.monotonic()))
            for key, _ in ready:
                pipe: Any = key.fileobj
                chunk = os.read(pipe.fileno(), 1 << 16)
                if not chunk:
                    selector.unregister(pipe)
                elif pipe is out or len(heard[pipe]) < MOST_COMPLAINED:  # the rest of it is let go by
                    heard[pipe] += chunk
            if len(heard[out]) > MOST_SAID:
                ended = f"said more than the {MOST_SAID >> 20} MB allowed"
            elif time.monotonic() >= end:
                ended = f"took longer than the {seconds:g} s allowed"
    if ended is None:
        try:
            process.wait(max(0.1, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            ended = f"took longer than the {seconds:g} s allowed"
    return bytes(heard[out]), bytes(heard[err]), ended


def _understand(code: int, said: bytes, complained: bytes, ended: str | None, box: Box) -> dict[str, Any]:
    """The child's answer, its strings printable. Raises Refused, or InputError for what this machine lacks."""
    if ended:
        raise Refused(f"{ended}. Make it cheaper.")
    number = -code if code < 0 else code - 128  # bwrap passes a signal on as 128 + its number
    if number == signal.SIGXCPU:
        raise Refused(f"took more than the {box.cpu_seconds} s of processor time allowed. Make it cheaper.")
    if code:
        names = {known.value: known.name for known in signal.Signals}
        last = (complained.decode(errors="replace").strip().splitlines() or ["nothing"])[-1]
        how = f"was killed by {names[number]}" if number in names else f"ended with exit code {code}"
        raise Refused(f"the process that opened it {how}; its last words: {printable(last, LINE)}.")
    try:
        answer = _clean(json.loads(said, parse_constant=_no_number))
        if not isinstance(answer, dict):
            raise ValueError("no object")
    except (ValueError, RecursionError) as error:
        raise Refused("the process that opened it gave no readable answer.") from error
    if isinstance(answer.get("lacks"), str):
        raise InputError(f"{answer['lacks']}.")
    if isinstance(answer.get("refused"), str):
        raise Refused(answer["refused"])
    if not (isinstance(answer.get("result"), dict) and isinstance(answer.get("holds"), list)):
        raise Refused("the process that opened it gave no readable answer.")
    return answer


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return printable(value, LINE)
    if isinstance(value, list):
        return [_clean(entry) for entry in value]
    if isinstance(value, dict):
        return {printable(key): _clean(entry) for key, entry in value.items()}
    return value


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is no number")


def _array(said: Any, out: BinaryIO, box: Box) -> np.ndarray | None:
    """The plain bytes that the child wrote, as the array that it says they are."""
    if said is None:
        return None
    size = os.fstat(out.fileno()).st_size
    try:
        dtype, shape = said
        if dtype not in DTYPES or not all(type(side) is int and side >= 0 for side in shape) or len(shape) > 5:
            raise ValueError("unknown kind of array")
        if math.prod(shape) * np.dtype(dtype).itemsize != size or size > box.output_bytes:
            raise ValueError("another size than it says")
    except (ValueError, TypeError) as error:
        raise Refused(f"the process that opened it wrote an array that cannot be ({printable(str(error))}).") from error
    out.seek(0)
    return np.fromfile(out, dtype).reshape(shape)
