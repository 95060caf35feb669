"""The settings that a run folder holds."""

from pathlib import Path

from arena.config import RunConfig, validate
from arena.errors import InputError
from arena.files import read_json


def stored_config(root: Path) -> RunConfig | None:
    """The settings of the run in a folder, or None where the folder is new. Raises InputError on a folder of others."""
    try:
        exists = (root / "run.json").exists()
    except OSError as error:
        raise InputError(f"--out {root}: {error.strerror}. Choose another folder.") from error
    if exists:
        stored = read_json(root / "run.json")
        if not isinstance(stored, dict) or "settings" not in stored:
            raise InputError(f"{root / 'run.json'} is damaged: it has no settings. Start again with a new --out.")
        return validate(RunConfig, stored["settings"], str(root / "run.json"))
    if root.exists() and not root.is_dir():
        raise InputError(f"--out {root} is a file. Choose a folder that is new, or an earlier run.")
    if root.is_dir() and any(entry.name not in (".lock", ".DS_Store") for entry in root.iterdir()):
        raise InputError(f"--out {root} holds files and is no run (it has no run.json). Choose a new folder.")
    return None
