"""The child that opens strangers' files, started by sandbox.py and by nobody else.

It reads one job as JSON from stdin, imports what the job needs, gives up what it does not need (`confine`), and only
then opens a file. Its result goes as JSON to stdout, its array as plain bytes into a file that is handed down open.
"""

import json
import os
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any, BinaryIO

from arena.submission import seccomp

JOBS = {"hello": "worker", "decode": "decode_job", "inspect": "onnx_job", "score": "onnx_job", "net": "net_job"}
LACKS = {"av": "faces", "onnx": "export", "onnxruntime": "export"}  # the extra that brings it
FILES = 64  # open at once
OUT_OF_MEMORY = ("bad_alloc", "allocate memory", "Failed to allocate")  # as torch and onnxruntime put it
GRACE = 5  # seconds from the signal that can be ignored to the one that cannot


class Refused(Exception):
    """Why a stranger's file is not taken: one line with the remedy."""


Array = tuple[str, tuple[int, ...]]  # dtype and shape of what a job wrote into its file
Answer = tuple[dict[str, Any], Array | None]


def hello(out: BinaryIO) -> Answer:
    """Say that a child starts here at all; the array is the sum of one number."""
    import numpy as np

    out.write(np.ones(1, np.uint8).tobytes())
    return {"hello": True}, ("uint8", (1,))


def confine(memory_bytes: int, cpu_seconds: int, output_bytes: int, threads: int) -> list[str]:
    """Limit this process for good, beyond what its libraries have already taken; says what holds.

    Memory is RLIMIT_DATA: it counts what the process may write to. RLIMIT_AS would count what torch's CUDA build only
    maps, several gigabytes, and the images that are read in place.
    """
    import resource

    def limit(name: str, soft: int, hard: int | None = None) -> None:
        which = getattr(resource, name)
        top = resource.getrlimit(which)[1]
        hard = soft if hard is None else hard
        if top != resource.RLIM_INFINITY:
            soft, hard = min(soft, top), min(hard, top)
        resource.setrlimit(which, (soft, hard))

    used = resource.getrusage(resource.RUSAGE_SELF)
    seconds = int(used.ru_utime + used.ru_stime) + 1 + cpu_seconds
    limit("RLIMIT_CORE", 0)
    limit("RLIMIT_NOFILE", FILES)
    limit("RLIMIT_FSIZE", output_bytes)
    limit("RLIMIT_CPU", seconds, seconds + GRACE)
    limit("RLIMIT_DATA", _private_bytes() + memory_bytes)
    if threads == 1:
        limit("RLIMIT_NPROC", 0)  # which root may pass over
    holds = ["rlimits"]
    if seccomp.lock(threads > 1):
        holds.append("seccomp")
    return holds


def _private_bytes() -> int:
    """What RLIMIT_DATA counts of this process as yet."""
    try:
        with open("/proc/self/status", encoding="ascii", errors="replace") as file:
            return next(int(line.split()[1]) << 10 for line in file if line.startswith("VmData"))
    except (OSError, StopIteration):
        return 0


def run(task: dict[str, Any], out: BinaryIO) -> dict[str, Any]:
    """Do one job, in this order: imports, limits, strangers' files. Returns what goes to the parent."""
    job, arguments, box = task["job"], task["arguments"], task["box"]
    try:
        module = sys.modules[__name__] if job == "hello" else import_module(f"arena.submission.{JOBS[job]}")
        function: Callable[..., Answer] = getattr(module, job)
        if hasattr(module, "prepare"):
            module.prepare(arguments, box["threads"])
    except ModuleNotFoundError as error:
        name = (error.name or "?").partition(".")[0]
        extra = f": pip install 'deepfake-arena[{LACKS[name]}]'" if name in LACKS else ""
        return {"lacks": f"{job} needs the package {name}{extra}"}
    holds = confine(box["memory_bytes"], box["cpu_seconds"], box["output_bytes"], box["threads"])
    try:
        result, array = function(**arguments, out=out)
        out.flush()
    except Refused as error:
        return {"refused": str(error)}
    except Exception as error:  # a stranger's file: whatever a library trips over is its fault, not a crash
        if isinstance(error, MemoryError) or any(words in str(error) for words in OUT_OF_MEMORY):
            return {"refused": f"needs more than the {box['memory_bytes'] / 1e9:.2g} GB of memory allowed"}
        return {"refused": f"said: {type(error).__name__}: {' '.join(str(error).split())[:500]}"}
    return {"result": result, "array": array, "holds": holds}


def main() -> None:
    talk = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print is no result
    task = json.load(sys.stdin)
    with os.fdopen(task["out"], "wb") as out:
        answer = run(task, out)
    try:
        text = json.dumps(answer, allow_nan=False)
    except ValueError:
        text = json.dumps({"refused": "said something that is no number"})
    with talk:
        talk.write(text)
