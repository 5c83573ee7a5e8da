"""Modules that stood elsewhere before 0.1: imported by their old names they warn, and hold what they held."""

from __future__ import annotations

import importlib
import warnings
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec

MOVED = {
    "aggregation": ("localization.aggregation", "localization.aggatt"),
    "comparison": ("data.scenes", "demo.comparison"),
    "correlations": ("faithfulness.correlations",),
    "findings": ("reports.findings",),
    "grids": ("localization.grids",),
    "imputation": ("faithfulness.imputation",),
    "information": ("faithfulness.information",),
    "inner_methods": ("methods.inner",),
    "intervals": ("faithfulness.intervals",),
    "layers": ("methods.layers",),
    "masking": ("faithfulness.masked_confidence",),
    "objectives": ("training.objectives",),
    "protocols": ("faithfulness.protocols",),
    "refinement": ("training.refinement",),
    "road": ("faithfulness.road",),
    "robustness": ("faithfulness.robustness",),
    "sanity": ("evaluating.sanity",),
    "scenes": ("data.scenes",),
    "segmentation": ("localization.segmentation",),
    "show": ("reports.sheet",),
    "similarity": ("faithfulness.similarity",),
    "small_classifiers": ("data.small_classifiers",),
    "smoothing": ("methods.smoothing",),
    "training_config": ("training.config",),
    "tuning": ("training.tuning",),
}


class OldNames(MetaPathFinder, Loader):
    """Asked last: for names under which there is no file any more."""

    def find_spec(self, fullname, path=None, target=None):
        package, _, name = fullname.partition(".")
        return ModuleSpec(fullname, self) if package == "hf_explain" and name in MOVED else None

    def create_module(self, spec):
        return None

    def exec_module(self, module) -> None:
        places = [f"hf_explain.{place}" for place in MOVED[module.__name__.partition(".")[2]]]
        warnings.warn(
            f"`{module.__name__}` is deprecated and goes in 0.2; use `{'` or `'.join(places)}`.",
            FutureWarning,
            stacklevel=2,
        )
        for place in places:
            found = vars(importlib.import_module(place))
            module.__dict__.update({name: value for name, value in found.items() if not name.startswith("__")})
