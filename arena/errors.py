"""The ends that a run can come to without being at fault."""


class InputError(Exception):
    """A user's mistake in one line: what was expected, what came, where, and what to do. Exit code 2."""


class DivergedError(Exception):
    """A loss became infinite or not a number. Exit code 1: the run was well formed, and the answer is no."""


class LeakError(Exception):
    """The container of a run's data tells the label. Exit code 1: the run was well formed, and the answer is no."""


class StoppedError(Exception):
    """Somebody asked the run to stop (Ctrl-C, SIGTERM), and it has saved where it stands."""
