"""Random numbers that depend on what they are for, not on what was drawn before."""

from __future__ import annotations

import numpy as np
import torch


def keyed(*key: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator of its own for every key."""
    entropy = (len(key), *key)  # SeedSequence would not tell (1,) from (1, 0)
    state = int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0])
    return torch.Generator(device).manual_seed(state >> 1)
