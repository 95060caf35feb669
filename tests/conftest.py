import os
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # a process for each of two cores (setup.cfg)
os.environ.setdefault("GOMP_SPINCOUNT", "3000")  # as the command line does

ROOT = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def _same_threads():
    """The same number of threads everywhere: sums on more threads round differently."""
    import torch

    torch.set_num_threads(min(int(os.environ["OMP_NUM_THREADS"]), os.cpu_count() or 1))


@pytest.fixture(scope="session")
def real_data() -> Path:
    """A folder of real sets for tests that want them: $ARENA_TEST_DATA, or shared/data beside the clone."""
    folder = Path(os.environ.get("ARENA_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip("no real data here")
    return folder


@pytest.fixture
def player_file(tmp_path):
    """Write a YAML file for a player and return its path, as --generator and --detector take it."""

    def write(of: str, **keywords) -> str:
        path = tmp_path / f"{of.split(':')[1].lower()}.yaml"
        path.write_text("\n".join([f"of: {of}", *(f"{k}: {v}" for k, v in keywords.items())]))
        return str(path)

    return write
