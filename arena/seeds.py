"""Randomness computed from an address, so that nothing has to be carried along and a resumed run is the same run."""

import hashlib
import random

import numpy as np
import torch


def address(*parts: int | str) -> int:
    """A 63-bit seed from an address such as (run seed, round, player, step): the same in every process and version."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def rng(*parts: int | str) -> torch.Generator:
    """A CPU torch.Generator seeded by an address."""
    return torch.Generator().manual_seed(address(*parts))


def reseed(*parts: int | str) -> None:
    """Set the global states of torch (all devices), numpy and random from an address."""
    seed = address(*parts)
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 - libraries that a player calls may draw from the global state
    random.seed(seed)
