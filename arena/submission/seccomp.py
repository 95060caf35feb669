"""A seccomp filter for a process that has all its files open or only reads: no network, no new process, no writing.

An allow-list: whatever stands in no table here, and whatever Linux invents later, fails with EPERM. Linux on x86_64
and aarch64 alone. The numbers are those of Linux' arch/x86/entry/syscalls/syscall_64.tbl and include/uapi/asm-generic/
unistd.h; the program is classic BPF over struct seccomp_data (include/uapi/linux/seccomp.h).
"""

import ctypes
import errno
import os
import platform
import struct
import sys

AUDIT = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}  # AUDIT_ARCH_*, include/uapi/linux/audit.h
SECCOMP = {"x86_64": 317, "aarch64": 277}

# name: its number on x86_64 and on aarch64, None where there is no such call
ALLOWED: dict[str, tuple[int | None, int | None]] = {
    # open files; of those that are inherited, the result is the only one that is written to on purpose
    "read": (0, 63), "write": (1, 64), "readv": (19, 65), "writev": (20, 66), "pread64": (17, 67),
    "pwrite64": (18, 68), "close": (3, 57), "lseek": (8, 62), "fcntl": (72, 25), "dup": (32, 23), "dup3": (292, 24),
    "fadvise64": (221, 223), "poll": (7, None), "ppoll": (271, 73),
    # looking round
    "stat": (4, None), "lstat": (6, None), "fstat": (5, 80), "newfstatat": (262, 79), "statx": (332, 291),
    "access": (21, None), "faccessat": (269, 48), "faccessat2": (439, 439), "readlink": (89, None),
    "readlinkat": (267, 78), "getdents64": (217, 61), "getcwd": (79, 17),
    # memory
    "munmap": (11, 215), "mremap": (25, 216), "mprotect": (10, 226), "madvise": (28, 233), "brk": (12, 214),
    "mincore": (27, 232), "get_mempolicy": (239, 236),
    # threads and locks
    "futex": (202, 98), "set_robust_list": (273, 99), "rseq": (334, 293), "set_tid_address": (218, 96),
    "sched_yield": (24, 124), "sched_getaffinity": (204, 123), "sched_getparam": (143, 121),
    "sched_getscheduler": (145, 120), "membarrier": (324, 283), "getcpu": (309, 168), "arch_prctl": (158, None),
    # signals to itself, clocks, figures of itself
    "rt_sigaction": (13, 134), "rt_sigprocmask": (14, 135), "rt_sigreturn": (15, 139), "sigaltstack": (131, 132),
    "restart_syscall": (219, 128), "clock_gettime": (228, 113), "clock_getres": (229, 114),
    "clock_nanosleep": (230, 115), "nanosleep": (35, 101), "gettimeofday": (96, 169), "time": (201, None),
    "times": (100, 153), "getrusage": (98, 165), "getrlimit": (97, 163), "sysinfo": (99, 179), "uname": (63, 160),
    "getpid": (39, 172), "getppid": (110, 173), "gettid": (186, 178), "getuid": (102, 174), "geteuid": (107, 175),
    "getgid": (104, 176), "getegid": (108, 177), "getrandom": (318, 278), "exit": (60, 93), "exit_group": (231, 94),
}  # fmt: skip

WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND | getattr(os, "O_TMPFILE", 0)
WRITES &= ~getattr(os, "O_DIRECTORY", 0)  # which O_TMPFILE contains
SHARED_MEMORY = 0x01 | 0x20  # MAP_SHARED | MAP_ANONYMOUS: no limit on a process' memory counts it
THREAD = 0x10000  # CLONE_THREAD

KILL, REFUSE, ALLOW = 0x80000000, 0x00050000, 0x7FFF0000  # SECCOMP_RET_KILL_PROCESS, _ERRNO, _ALLOW
LOAD, AND, EQUAL, RETURN = 0x20, 0x54, 0x15, 0x06  # BPF_LD|W|ABS, BPF_ALU|AND|K, BPF_JMP|JEQ|K, BPF_RET|K
NUMBER, ARCH, ARGUMENTS = 0, 4, 16  # offsets into seccomp_data

Instruction = tuple[int, int, int, int]  # code, jump if true, jump if false, operand


def program(machine: str, pid: int, threads: bool) -> list[Instruction]:
    """The filter for a process `pid`, with new threads or without."""
    x86 = machine == "x86_64"
    refuse = (RETURN, 0, 0, REFUSE | errno.EPERM)
    lines: list[Instruction] = [
        (LOAD, 0, 0, ARCH), (EQUAL, 1, 0, AUDIT[machine]), (RETURN, 0, 0, KILL),  # calls of another architecture
        (LOAD, 0, 0, NUMBER),
    ]  # fmt: skip

    def only(number: int, argument: int, mask: int, value: int, equal: bool = True) -> None:
        """Allow a call where `argument & mask` is `value` (or is not)."""
        good, bad = (0, 1) if equal else (1, 0)
        lines.extend([
            (EQUAL, 0, 5, number), (LOAD, 0, 0, ARGUMENTS + 8 * argument), (AND, 0, 0, mask),
            (EQUAL, good, bad, value), (RETURN, 0, 0, ALLOW), refuse,
        ])  # fmt: skip

    for number in ((numbers[0] if x86 else numbers[1]) for numbers in ALLOWED.values()):
        if number is not None:
            lines += [(EQUAL, 0, 1, number), (RETURN, 0, 0, ALLOW)]
    only(257 if x86 else 56, 2, WRITES, 0)  # openat
    if x86:
        only(2, 1, WRITES, 0)  # open
    only(9 if x86 else 222, 3, SHARED_MEMORY, SHARED_MEMORY, equal=False)  # mmap
    only(234 if x86 else 131, 0, 0xFFFFFFFF, pid)  # tgkill, which abort() needs
    if threads:
        only(56 if x86 else 220, 0, THREAD, THREAD)  # clone
    lines += [(EQUAL, 0, 1, 435), (RETURN, 0, 0, REFUSE | errno.ENOSYS)]  # clone3 has its flags in memory: use clone
    return [*lines, refuse]


def lock(threads: bool) -> bool:
    """Put every thread of this process under the filter, for good. False where this machine has no such thing."""
    machine = platform.machine()
    if sys.platform != "linux" or machine not in AUDIT or sys.byteorder != "little" or sys.maxsize < 2**32:
        return False
    lines = program(machine, os.getpid(), threads)
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *line) for line in lines))

    class Program(ctypes.Structure):  # struct sock_fprog
        _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))

    filter = Program(len(lines), ctypes.addressof(code))
    libc = ctypes.CDLL(None, use_errno=True)
    long = ctypes.c_long
    if libc.prctl(38, long(1), long(0), long(0), long(0)):  # PR_SET_NO_NEW_PRIVS
        return False
    # SECCOMP_SET_MODE_FILTER with SECCOMP_FILTER_FLAG_TSYNC: threads that libraries started, too
    return libc.syscall(long(SECCOMP[machine]), long(1), long(1), ctypes.byref(filter)) == 0
