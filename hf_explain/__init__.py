"""hf-explain: which pixels made my classifier say that? For any image classifier of the Hugging Face Hub.

Importing it registers the pipeline task "image-attribution" and the Auto classes with transformers.
"""

import gc
import sys

# What is imported stays: to look through it for garbage again and again would take an eighth of the time.
_collects = gc.isenabled()
gc.disable()
try:
    from .explaining.auto import AutoModelForImageAttribution, register
    from .explaining.counterfactual import counterfactual
    from .explaining.pipeline import ImageAttributionPipeline
    from .explaining.regions import smallest_region
    from .methods import METHODS
    from .modeling.classifier import Classifier
    from .modeling.configuration_explainer import (
        DiffMaskExplainerConfig,
        ExplainerConfig,
        LtxExplainerConfig,
        RankingExplainerConfig,
    )
    from .modeling.errors import ExplainerError
    from .modeling.modeling_diffmask import DiffMaskExplainerForImageClassification
    from .modeling.modeling_explainer import ExplainerForImageClassification, ExplainerOutput
    from .modeling.modeling_ltx import LtxExplainerForImageClassification
    from .modeling.modeling_ranking import RankingExplainerForImageClassification
    from .modeling.pixel_space import PixelSpace
    from .moved import OldNames
    from .version import __version__ as __version__
finally:
    if _collects:
        gc.enable()

__all__ = [
    "METHODS",
    "AutoModelForImageAttribution",
    "Classifier",
    "DiffMaskExplainerConfig",
    "DiffMaskExplainerForImageClassification",
    "ExplainerConfig",
    "ExplainerError",
    "ExplainerForImageClassification",
    "ExplainerOutput",
    "ImageAttributionPipeline",
    "LtxExplainerConfig",
    "LtxExplainerForImageClassification",
    "PixelSpace",
    "RankingExplainerConfig",
    "RankingExplainerForImageClassification",
    "counterfactual",
    "smallest_region",
]

register()
sys.meta_path.append(OldNames())
