"""`hf-explain train`: what explainers are trained for, the loop, refinement of single maps.

It imports everything on the floors below. Start with loop.py, then objectives/ (one file per system: the losses) and
draws.py (what a step draws); kinds.py is the table of systems; refinement.py and tuning.py improve a picture's map.
"""

from .config import TrainingConfig
from .refinement import Refinement, refine
from .tuning import tune

__all__ = ["Refinement", "TrainingConfig", "refine", "train", "tune"]


def __getattr__(name: str):
    if name != "train":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .loop import train  # only where it is wanted: it needs accelerate, which `import hf_explain` does not

    return train
