"""The limited child: every wall is run against from inside, and the parent against a child that was taken over."""

import errno
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from arena.errors import InputError
from arena.submission import sandbox, seccomp
from arena.submission.sandbox import Box, Refused

LOCKED = sys.platform == "linux" and os.uname().machine in seccomp.AUDIT
locked = pytest.mark.skipif(not LOCKED, reason="no seccomp filter for this system")


# The walls, run against from inside

PROBE = """
import ctypes, json, mmap, os, resource, signal, socket, subprocess, sys, threading
import numpy as np
from arena.submission import worker
folder, threads = sys.argv[1], int(sys.argv[2])
inherited = open(folder + "/out", "wb")
holds = worker.confine(256 << 20, 60, 1 << 20, threads)
libc = ctypes.CDLL(None, use_errno=True)

def raw(name, *arguments):
    if getattr(libc, name)(*arguments) < 0:
        raise OSError(ctypes.get_errno(), name)

def thread():
    one = threading.Thread(target=int)
    one.start()
    one.join()

tries = {
    "read": lambda: open(folder + "/read").read(),
    "import": lambda: __import__("wave"),
    "own file": lambda: (inherited.write(b"1"), inherited.flush()),
    "write": lambda: open(folder + "/new", "w"), "append": lambda: open(folder + "/read", "a"),
    "both": lambda: os.open(folder + "/read", os.O_RDWR), "truncate": lambda: os.truncate(folder + "/read", 0),
    "temporary": lambda: os.open(folder, os.O_TMPFILE | os.O_WRONLY), "creat": lambda: raw("creat", b"new", 0o600),
    "mkdir": lambda: os.mkdir(folder + "/dir"), "unlink": lambda: os.unlink(folder + "/read"),
    "rename": lambda: os.rename(folder + "/read", folder + "/r"), "chmod": lambda: os.chmod(folder + "/read", 0o777),
    "link": lambda: os.link(folder + "/read", folder + "/r"), "symlink": lambda: os.symlink("/etc", folder + "/r"),
    "times": lambda: os.utime(folder + "/read"), "fifo": lambda: os.mkfifo(folder + "/f"),
    "socket": lambda: socket.socket(), "unix socket": lambda: socket.socketpair(),
    "fork": lambda: os.fork() or os._exit(0), "vfork": lambda: subprocess.run(["/bin/true"], close_fds=False),
    "execute": lambda: os.execv("/bin/true", ["true"]), "kill": lambda: os.kill(os.getppid(), 0),
    "signal": lambda: raw("tgkill", os.getppid(), os.getppid(), 0), "session": lambda: os.setsid(),
    "trace": lambda: raw("ptrace", 16, os.getppid(), 0, 0), "mount": lambda: raw("mount", b"a", b"/", b"tmpfs", 0, 0),
    "limits": lambda: resource.prlimit(os.getppid(), resource.RLIMIT_CPU),
    "shared memory": lambda: mmap.mmap(-1, 4096), "memory file": lambda: os.memfd_create("x"),
    "io_uring": lambda: raw("syscall", 425, 8, 0), "namespace": lambda: raw("unshare", 0x10000000),
    "keys": lambda: raw("syscall", 250 if os.uname().machine == "x86_64" else 219, 0, 0, 0, 0, 0),
    "memory": lambda: np.ones(300 << 20, np.uint8), "some memory": lambda: np.ones(100 << 20, np.uint8),
    "raise": lambda: resource.setrlimit(resource.RLIMIT_DATA, (1 << 40, 1 << 40)),
    "files": lambda: [open(folder + "/read") for _ in range(100)],
    "size": lambda: (inherited.write(bytes(2 << 20)), inherited.flush()),
    "thread": thread,
}
said = {}
for name, attempt in tries.items():
    try:
        attempt()
        said[name] = "done"
    except OSError as error:
        said[name] = error.errno
    except Exception as error:
        said[name] = type(error).__name__
print(json.dumps({"holds": holds, "said": said}))
sys.stdout.flush()
os.abort() if threads > 1 else os._exit(0)
"""


def probed(tmp_path, threads, walls=()):
    (tmp_path / "read").write_text("read")
    command = [*walls, sys.executable, "-I", "-c", PROBE, str(tmp_path), str(threads)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env={"OMP_NUM_THREADS": "1"})


@locked
def test_a_confined_process_can_read_and_compute_and_nothing_else(tmp_path):
    done = probed(tmp_path, 1)
    answer = json.loads(done.stdout)
    said = answer["said"]
    assert answer["holds"] == ["rlimits", "seccomp"]
    assert {name for name, result in said.items() if result == "done"} == {"read", "import", "own file", "some memory"}
    assert said["memory"] == "MemoryError"
    assert said["raise"] == "ValueError"  # not even root may
    assert (said["files"], said["size"], said["thread"]) == (errno.EMFILE, errno.EFBIG, "RuntimeError")
    others = set(said) - {"read", "import", "own file", "some memory", "memory", "raise", "files", "size", "thread"}
    assert {name: said[name] for name in others} == dict.fromkeys(others, errno.EPERM)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()}["read"] == "read"
    assert {path.name for path in tmp_path.iterdir()} == {"read", "out"}


@locked
def test_threads_are_to_be_had_but_no_process(tmp_path):
    done = probed(tmp_path, 2)
    said = json.loads(done.stdout)["said"]
    assert (said["thread"], said["fork"], said["vfork"], said["execute"]) == ("done", *[errno.EPERM] * 3)
    assert done.returncode == -6  # abort() reaches the process itself


def decided(lines, arch, number, *arguments):
    """What a filter returns for a call: classic BPF, as little of it as is used."""
    data = np.array([number, arch, 0, 0, *(word for a in (*arguments, *[0] * 6)[:6] for word in (a, 0))], np.uint32)
    at = value = 0
    while True:
        code, yes, no, operand = lines[at]
        at += 1
        if code == seccomp.RETURN:
            return operand
        if code == seccomp.LOAD:
            value = int(data[operand // 4])
        elif code == seccomp.AND:
            value &= operand
        else:
            assert code == seccomp.EQUAL
            at += yes if value == operand else no


NUMBERS = {  # read, openat, socket, execve, mmap, tgkill, clone
    "x86_64": (0, 257, 41, 59, 9, 234, 56),
    "aarch64": (63, 56, 198, 221, 222, 131, 220),
}


@pytest.mark.parametrize("machine", NUMBERS)
def test_the_filter_decides_the_same_on_both_machines(machine):
    arch, other = (seccomp.AUDIT[name] for name in (machine, *set(NUMBERS) - {machine}))
    read, openat, socket, execve, mmap, tgkill, clone = NUMBERS[machine]
    refuse, allow, absent = 0x50000 | errno.EPERM, 0x7FFF0000, 0x50000 | errno.ENOSYS
    for threads in (False, True):
        lines = seccomp.program(machine, 77, threads)
        assert len(lines) < 4096  # BPF_MAXINSNS
        assert all(at + 1 + max(yes, no) < len(lines) for at, (_, yes, no, _) in enumerate(lines[:-1]))
        wanted = [
            ((arch, read), allow), ((other, read), 0x80000000), ((arch, read | 0x40000000), refuse),
            ((arch, socket), refuse), ((arch, execve), refuse), ((arch, 425), refuse), ((arch, 435), absent),
            ((arch, 9999), refuse), ((arch, openat, 0, 0, os.O_RDONLY | os.O_CLOEXEC), allow),
            *(((arch, openat, 0, 0, flag), refuse) for flag in (os.O_WRONLY, os.O_RDWR, os.O_CREAT, os.O_TRUNC)),
            ((arch, mmap, 0, 9, 3, 0x22), allow), ((arch, mmap, 0, 9, 3, 0x21), refuse),
            ((arch, mmap, 0, 9, 1, 1), allow),
            ((arch, tgkill, 77), allow), ((arch, tgkill, 78), refuse),
            ((arch, clone, 0x3D0F00), allow if threads else refuse), ((arch, clone, 0x1200011), refuse),
        ]  # fmt: skip
        assert [decided(lines, *call) for call, _ in wanted] == [result for _, result in wanted]


@pytest.mark.parametrize(
    ("header", "column"),
    [("/usr/include/x86_64-linux-gnu/asm/unistd_64.h", 0), ("/usr/include/asm-generic/unistd.h", 1)],
)
def test_the_table_has_the_systems_own_numbers(header, column):
    if not Path(header).exists():
        pytest.skip("no system headers here")
    known = dict(re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", Path(header).read_text()))
    known |= {"newfstatat": known.get("newfstatat", known.get("fstatat"))}
    for name, numbers in seccomp.ALLOWED.items():
        if numbers[column] is not None:
            assert int(known[name]) == numbers[column], name


@locked
def test_bubblewrap_shows_nothing_but_what_is_to_be_read(tmp_path):
    if not sandbox.bubblewrap():
        pytest.skip("no bubblewrap that works here")
    for folder in ("shown", "secret"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "file").write_text(folder)
    code = "import os, sys; print([os.path.exists(p) for p in sys.argv[1:]], len(os.listdir('/proc')), os.environ)"
    paths = [
        str(tmp_path / "shown" / "file"),
        str(tmp_path / "secret"),
        str(Path.home() / ".bashrc"),
        __file__,
        "/root",
    ]
    command = [*sandbox._walls([tmp_path / "shown"], Box()), sys.executable, "-I", "-c", code, *paths]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env={"SECRET": "1"})
    assert done.stdout.startswith("[True, False, False, False"), done.stderr
    assert "SECRET" not in done.stdout


def test_what_holds_is_tried_and_said(monkeypatch, tmp_path):
    said = sandbox.protections()
    assert said[0].startswith("rlimits")
    assert any(line.startswith("seccomp: no network") for line in said) == LOCKED
    (tmp_path / "bwrap").write_text("#!/bin/sh\nexit 1\n")  # there, and not permitted to work, as in many containers
    (tmp_path / "bwrap").chmod(0o755)
    monkeypatch.setattr(sandbox.shutil, "which", lambda name: str(tmp_path / name))
    assert sandbox.bubblewrap.__wrapped__() is False
    (tmp_path / "bwrap").write_text('#!/bin/sh\nwhile [ "$1" != -- ]; do shift; done\nshift\nexec "$@"\n')
    assert sandbox.bubblewrap.__wrapped__() is sys.platform.startswith("linux")
    monkeypatch.setattr(sandbox, "bubblewrap", lambda: False)
    words = "no bubblewrap" if LOCKED else "rlimits only"
    assert sandbox.protections.__wrapped__()[-1].startswith(words)


# A child that has been taken over

HOSTILE = {
    "print('x' * 2**20, flush=True)\nwhile True: print('x' * 2**20)": "said more than",
    "import time; time.sleep(600)": "took longer than",
    "import os, time; os.close(1); os.close(2); time.sleep(600)": "took longer than",
    "import os, time\nif os.fork() == 0: time.sleep(600)": "took longer than",
    "import os; os.kill(os.getpid(), 11)": "killed by SIGSEGV",
    "import os; os.kill(os.getpid(), 24)": "processor time",
    "import sys; sys.stderr.write('a' * 2**22 + chr(27) + '[2J'); sys.exit(3)": "exit code 3",
    "print('[' * 100_000)": "no readable answer",
    "print('{}')": "no readable answer",
    "print('not json')": "no readable answer",
    'print(\'{"result": {}, "holds": [], "x": NaN}\')': "no readable answer",
    'print(\'{"refused": "a\\\\u001b[2J\\\\u202eb"}\')': "a\\x1b[2J\\u202eb",
    **{
        f"print('{json.dumps({'result': {}, 'holds': [], 'array': array})}')": "an array that cannot be"
        for array in (["uint8", [5]], ["object", [0]], ["uint8", [-1]], ["float32", [10**30]], 7, ["uint8", "x"])
    },
}


@pytest.mark.parametrize("code", HOSTILE, ids=lambda code: ascii(code[-40:]))
def test_a_child_that_was_taken_over_is_refused(monkeypatch, code):
    monkeypatch.setattr(sandbox, "bubblewrap", lambda: False)
    monkeypatch.setattr(sandbox, "MOST_SAID", 1 << 22)
    monkeypatch.setattr(sandbox, "_python", lambda: [sys.executable, "-I", "-S", "-c", code])
    wall = 0.7 if "sleep" in code else 60
    with pytest.raises(Refused) as refused:
        sandbox.call("decode", {}, reads=[], box=Box(wall_seconds=wall))
    assert HOSTILE[code] in str(refused.value)
    assert str(refused.value).isprintable()
    assert len(str(refused.value)) < 500


def test_nothing_of_a_job_that_was_broken_off_lives_on(monkeypatch, tmp_path):
    code = (
        f"import os, time\nparent = os.fork()\nopen('{tmp_path}/' + str(os.getpid()), 'w')\n"
        f"while parent and len(os.listdir('{tmp_path}')) < 2: pass\n"
        "while parent: print('x' * 2**20)\ntime.sleep(600)"
    )
    monkeypatch.setattr(sandbox, "bubblewrap", lambda: False)
    monkeypatch.setattr(sandbox, "MOST_SAID", 1 << 20)
    monkeypatch.setattr(sandbox, "_python", lambda: [sys.executable, "-I", "-S", "-c", code])
    with pytest.raises(Refused, match="said more"):
        sandbox.call("decode", {}, reads=[])
    assert len(list(tmp_path.iterdir())) == 2
    for file in tmp_path.iterdir():
        for _ in range(100):  # whoever inherits an orphan may take a moment to bury it
            state = Path("/proc", file.name, "stat")
            if not state.exists() or state.read_text().split()[2] == "Z":
                break
            time.sleep(0.05)
        else:
            pytest.fail("a process of the job lives on")


def test_a_child_sees_neither_the_environment_nor_the_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("SECRET", "1")
    monkeypatch.chdir(tmp_path)
    code = (
        "import json, os; print(json.dumps({'result': {'env': sorted(os.environ), 'cwd': os.listdir(), "
        "'bad\\x1b': ['\\u202e' + 'x' * 999]}, 'holds': []}))"
    )
    monkeypatch.setattr(sandbox, "bubblewrap", lambda: False)
    monkeypatch.setattr(sandbox, "_python", lambda: [sys.executable, "-I", "-c", code])
    result, array = sandbox.call("decode", {}, reads=[])
    assert "SECRET" not in result["env"]
    assert (result["cwd"], array) == ([], None)
    assert result["bad\\x1b"][0].startswith("\\u202exxx")
    assert len(result["bad\\x1b"][0]) == 300


def test_a_library_that_is_missing_is_the_organisers_to_get(monkeypatch):
    code = 'print(\'{"lacks": "score needs the package onnx"}\')'
    monkeypatch.setattr(sandbox, "_python", lambda: [sys.executable, "-I", "-c", code])
    with pytest.raises(InputError, match="needs the package onnx"):
        sandbox.call("score", {}, reads=[])
    with pytest.raises(Refused, match="no text, number or list"):
        sandbox.call("net", {"keywords": {"width": {1, 2}}}, reads=[])
