"""Who agreed to a face swap: a statement that goes into everything that the swap writes."""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

from pydantic import StringConstraints

from arena.config import Strict, read_yaml, validate
from arena.errors import InputError

FILE = "consent.yaml"
NOT_STATED = "not stated"
LONGEST = 2000  # characters

Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=1000)]


class Consent(Strict):
    """consent.yaml: whose face it is, where its pictures come from, and who permitted what."""

    who: Text
    source: Text
    permission: Text

    def __str__(self) -> str:
        return f"who: {self.who}; source: {self.source}; permission: {self.permission}"


def statement(text: str | None, folders: Iterable[Path]) -> str:
    """The text given, or what the consent.yaml files of the folders say (each file once), or NOT_STATED; in one line.

    Raises InputError for an empty text and for a file that says anything but who, source and permission.
    """
    if text is not None:
        if not text.strip():
            raise InputError("--consent is empty. Say who agreed, to what, and where the pictures come from.")
        if len(text) > LONGEST:
            raise InputError(f"--consent has {len(text):,} characters. Say it in at most {LONGEST:,}.")
        return " ".join(text.split())
    files = dict.fromkeys(folder.resolve() / FILE for folder in folders)
    found = [str(validate(Consent, read_yaml(file), str(file))) for file in files if file.is_file()]
    said = " | ".join(" ".join(one.split()) for one in dict.fromkeys(found))
    if len(said) > LONGEST:
        raise InputError(f"{FILE}: {len(said):,} characters in all. Say it in at most {LONGEST:,}, or by --consent.")
    return said or NOT_STATED
