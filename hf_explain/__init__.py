"""hf-explain: which pixels made my classifier say that? For any image classifier of the Hugging Face Hub.

Importing it registers the pipeline task "image-attribution" and the Auto classes with transformers.
"""

from .auto import AutoModelForImageAttribution, register
from .counterfactual import counterfactual
from .methods import METHODS
from .modeling.classifier import Classifier
from .modeling.configuration_explainer import (
    DiffMaskExplainerConfig,
    ExplainerConfig,
    LtxExplainerConfig,
    RankingExplainerConfig,
)
from .modeling.modeling_diffmask import DiffMaskExplainerForImageClassification
from .modeling.modeling_explainer import ExplainerForImageClassification, ExplainerOutput
from .modeling.modeling_ltx import LtxExplainerForImageClassification
from .modeling.modeling_ranking import RankingExplainerForImageClassification
from .modeling.perturbation import ExplainerError, PixelSpace
from .pipeline import ImageAttributionPipeline
from .regions import smallest_region

__version__ = "0.1.0.dev0"

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
