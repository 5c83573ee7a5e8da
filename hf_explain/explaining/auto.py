"""What makes `AutoConfig`, `AutoModel`, `AutoModelForImageAttribution` and `pipeline` know our classes."""

from collections import OrderedDict

from transformers import AutoConfig, AutoModel
from transformers.models.auto.auto_factory import _BaseAutoModelClass, _LazyAutoMapping
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES
from transformers.pipelines import PIPELINE_REGISTRY

from ..modeling.pipeline_image_attribution import auto_classes
from ..training.kinds import KINDS
from .pipeline import ImageAttributionPipeline

EXPLAINERS = tuple(kind.explainer for kind in KINDS.values())
NAMES: OrderedDict[str, str] = OrderedDict()


class AutoModelForImageAttribution(_BaseAutoModelClass):
    """The explainer class that fits a checkpoint's config.

    >>> from hf_explain.modeling.configuration_explainer import RankingExplainerConfig
    >>> AutoModelForImageAttribution._model_mapping[RankingExplainerConfig].__name__
    'RankingExplainerForImageClassification'
    """

    _model_mapping = _LazyAutoMapping(CONFIG_MAPPING_NAMES, NAMES)


def register() -> None:
    """Idempotent."""
    for explainer in EXPLAINERS:
        AutoConfig.register(explainer.config_class.model_type, explainer.config_class, exist_ok=True)
        for auto in (AutoModelForImageAttribution, AutoModel):
            auto.register(explainer.config_class, explainer, exist_ok=True)
    if "image-attribution" not in PIPELINE_REGISTRY.supported_tasks:
        PIPELINE_REGISTRY.register_pipeline(
            "image-attribution",
            pipeline_class=ImageAttributionPipeline,
            pt_model=auto_classes(),
            type="image",
            default=PIPELINE_REGISTRY.supported_tasks["image-classification"]["default"],  # needs method=
        )
        # Pipeline.save_pretrained would read it and write this class, which cannot travel, into config.json.
        del ImageAttributionPipeline._registered_impl
