"""hf-explain: which pixels made my classifier say that? For any image classifier of the Hugging Face Hub.

Importing it registers the pipeline task "image-attribution" and the Auto classes with transformers.
"""

from .auto import AutoModelForImageAttribution, register
from .counterfactual import counterfactual
from .methods import METHODS
from .modeling.classifier import Classifier
from .modeling.configuration_explainer import ExplainerConfig, RankingExplainerConfig
from .modeling.modeling_explainer import ExplainerForImageClassification, ExplainerOutput
from .modeling.modeling_ranking import RankingExplainerForImageClassification
from .modeling.perturbation import ExplainerError, PixelSpace
from .pipeline import ImageAttributionPipeline
from .regions import smallest_region

__version__ = "0.1.0.dev0"

__all__ = [
    "METHODS",
    "AutoModelForImageAttribution",
    "Classifier",
    "ExplainerConfig",
    "ExplainerError",
    "ExplainerForImageClassification",
    "ExplainerOutput",
    "ImageAttributionPipeline",
    "PixelSpace",
    "RankingExplainerConfig",
    "RankingExplainerForImageClassification",
    "counterfactual",
    "smallest_region",
]

register()
