"""Faces out of images and videos, and back in: locate, align, crop (`arena extract`); paste (`arena swap`)."""

from importlib import import_module
from typing import Any

from arena.errors import InputError


def plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def need(module: str) -> Any:
    """Import a module of the extra `faces`. Raises InputError that says how to install it."""
    try:
        return import_module(module)
    except ImportError as error:
        raise InputError(
            f"faces and videos need the package {module.partition('.')[0]} ({error}). Get it: pip install -e '.[faces]'"
        ) from error
