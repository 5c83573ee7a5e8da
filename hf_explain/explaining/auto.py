"""What makes `AutoConfig`, `AutoModel`, `AutoModelForImageAttribution` and `pipeline` know our classes and names."""

from collections import OrderedDict

from transformers import AutoConfig, AutoModel, AutoModelForImageClassification, pipelines
from transformers.models.auto.auto_factory import _BaseAutoModelClass, _LazyAutoMapping
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES
from transformers.pipelines import PIPELINE_REGISTRY
from transformers.utils import find_adapter_config_file

from ..modeling.pipeline_image_attribution import auto_classes
from ..modeling.schemes import SCHEMES, Scheme, find_scheme, scheme_of
from ..photos.classifiers import read_config, read_image_processor, read_model
from ..training.kinds import KINDS
from .pipeline import ImageAttributionPipeline

EXPLAINERS = tuple(kind.explainer for kind in KINDS.values())
NAMES: OrderedDict[str, str] = OrderedDict()
TASK = "image-attribution"


class AutoModelForImageAttribution(_BaseAutoModelClass):
    """The explainer class that fits a checkpoint's config.

    >>> from hf_explain.modeling.configuration_explainer import RankingExplainerConfig
    >>> AutoModelForImageAttribution._model_mapping[RankingExplainerConfig].__name__
    'RankingExplainerForImageClassification'
    """

    _model_mapping = _LazyAutoMapping(CONFIG_MAPPING_NAMES, NAMES)


# `pipeline` reads the config of the model it is given, and looks for an adapter of PEFT, before it asks the task's own
# classes. `register` puts the first and the last of these where it looks. They know names such as
# photos:efficientnet-lite0; whatever else is asked of them, transformers answers.


class NamedConfig(AutoConfig):
    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, **kwargs):
        ours = kwargs.get("_from_pipeline") == TASK and find_scheme(pretrained_model_name_or_path)
        if ours:
            return ours.config(pretrained_model_name_or_path)
        return AutoConfig.from_pretrained(pretrained_model_name_or_path, **kwargs)


class NamedClassifier(AutoModelForImageClassification):
    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, *args, **kwargs):
        if named := find_scheme(pretrained_model_name_or_path):
            kwargs.pop("_from_pipeline", None)
            return named.model(pretrained_model_name_or_path, **kwargs)
        return AutoModelForImageClassification.from_pretrained(pretrained_model_name_or_path, *args, **kwargs)


def find_adapter(model_id, **kwargs):
    return None if scheme_of(model_id) else find_adapter_config_file(model_id, **kwargs)


def register() -> None:
    """Idempotent."""
    for explainer in EXPLAINERS:
        AutoConfig.register(explainer.config_class.model_type, explainer.config_class, exist_ok=True)
        for auto in (AutoModelForImageAttribution, AutoModel):
            auto.register(explainer.config_class, explainer, exist_ok=True)
    SCHEMES["photos"] = Scheme(read_config, read_image_processor, read_model)
    pipelines.AutoConfig, pipelines.find_adapter_config_file = NamedConfig, find_adapter
    if TASK not in PIPELINE_REGISTRY.supported_tasks:
        PIPELINE_REGISTRY.register_pipeline(
            TASK,
            pipeline_class=ImageAttributionPipeline,
            pt_model=(NamedClassifier, *auto_classes()),
            type="image",
            default=PIPELINE_REGISTRY.supported_tasks["image-classification"]["default"],  # needs method=
        )
        # Pipeline.save_pretrained would read it and write this class, which cannot travel, into config.json.
        del ImageAttributionPipeline._registered_impl
