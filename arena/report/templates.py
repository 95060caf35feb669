"""The pages' templates, and the one way to fill them."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any


def fill(template: str, filters: Mapping[str, Callable[..., Any]] | None = None, **values: Any) -> str:
    """A whole page: one of this folder's templates with its values, all escaped; a missing one is an error."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= filters or {}
    return environment.get_template(template).render(**values)
