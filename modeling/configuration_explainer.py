"""The configs of the explainers: flat, grouped, checked. One class each, since the Auto mapping is keyed by it."""

from dataclasses import field

from transformers import PreTrainedConfig

from .errors import ExplainerError
from .feature_maps import FeatureMap
from .pixel_space import PixelSpace
from .slopes import BASELINES

FORMAT_VERSION = 1
FINEST = (1, 2, 4)


class ExplainerConfig(PreTrainedConfig):
    """What every explainer knows about the classifier it explains.

    >>> ExplainerConfig(image_size=[32, 32], num_labels=3).trained_steps
    0

    Args:
        format_version: of the checkpoint; a newer one than this library knows is refused.
        classifier_name_or_path: Hub id or folder of the classifier; None when it travels inside, or has no name.
        classifier_revision: its commit (40 hex digits) when it comes from the Hub.
        classifier_fingerprint: hash of its weights for each dtype they may be loaded in.
        classifier_dtype: in which it was when the explainer was made, and is loaded in by default.
        classifier_included: the classifier is in the folder `classifier/` of this checkpoint.
        backbone_name_or_path, backbone_revision, backbone_fingerprint: of a second frozen model whose hidden states are
            read instead of the classifier's; with classifier_included it is in `backbone/`.
        backbone_dtype, backbone_pixel_space: its dtype, and how its own processor writes colors.
        pixel_space: how the classifier's processor writes colors (`PixelSpace`), None if unknown.
        image_size: height and width the explainer was probed at.
        feature_maps: the hidden states that are read, one `FeatureMap` each.
        class_conditional: False for an explainer of the prediction only.
        trained_steps: optimizer steps the head has seen; at 0 its maps mean nothing, and the pipeline says so.
    """

    model_type = "hf_explainer"

    format_version: int = FORMAT_VERSION
    # the classifier
    classifier_name_or_path: str | None = None
    classifier_revision: str | None = None
    classifier_fingerprint: dict | None = None
    classifier_dtype: str = "float32"
    classifier_included: bool = False
    # a second model to read
    backbone_name_or_path: str | None = None
    backbone_revision: str | None = None
    backbone_fingerprint: dict | None = None
    backbone_dtype: str = "float32"
    backbone_pixel_space: dict | None = None
    # pictures and hidden states
    pixel_space: dict | None = None
    image_size: list | None = None
    feature_maps: list | None = None
    # what it explains
    class_conditional: bool = True
    trained_steps: int = 0

    def __post_init__(self, **kwargs):
        if self.format_version > FORMAT_VERSION:
            raise ExplainerError(
                f"this explainer has format {self.format_version}, this library reads up to {FORMAT_VERSION}; "
                "pip install --upgrade hf-explain."
            )
        for name in ("pixel_space", "backbone_pixel_space"):
            if getattr(self, name) is not None:
                PixelSpace(**getattr(self, name))  # checks
        super().__post_init__(**kwargs)

    def read_maps(self) -> list[FeatureMap]:
        """The stored description of the hidden states."""
        if not self.feature_maps:
            raise ExplainerError(
                f"{type(self).__name__} describes no feature_maps, so a head cannot be built; make explainers with "
                "from_classifier(...)."
            )
        return [FeatureMap(**{**entry, "stride": tuple(entry["stride"])}) for entry in self.feature_maps]


class RankingExplainerConfig(ExplainerConfig):
    """Config of `RankingExplainerForImageClassification`.

    >>> RankingExplainerConfig(hidden_size=24, hybrid=True).slope_references
    ['blur', 'black', 1.0]

    Args:
        hidden_size: channels of the decoder at stride 16 and coarser, and of a class embedding.
        pixel_size: channels at full resolution. Strides between have hidden_size / 2, / 4, ..., at least pixel_size.
        num_blocks: residual blocks at the coarsest resolution; every other one has one.
        finest: pixels of the picture a cell of the finest features: 1, 2 or 4; maps are brought from there to the
            picture's size. Explainers are made with what leaves about 64 cells a side.
        hybrid: the maps also see the slopes of the class's logit half-way to `slope_references`: one more forward of as
            many pictures, and a backward per class, for pixels that the hidden states are too coarse to tell apart.
        slope_references: names of references, or grays in [0, 1].
        neighborhood: side in pixels, odd, of the window whose mean is added to every pixel of a finished map (see
            `add_neighborhood`): an object before its single pixels. 1 leaves maps as they were trained.
    """

    model_type = "hf_explainer_ranking"

    hidden_size: int = 160
    pixel_size: int = 8
    num_blocks: int = 2
    finest: int = 1
    hybrid: bool = False
    slope_references: list = field(default_factory=lambda: list(BASELINES))
    neighborhood: int = 1

    def __post_init__(self, **kwargs):
        for name, multiple in (("hidden_size", 8), ("pixel_size", 4), ("num_blocks", 1)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1 or value % multiple:
                what = f"positive multiple of {multiple}" if multiple > 1 else "integer of at least 1"
                raise ExplainerError(f"{name}={value!r}; give a{'n' if multiple == 1 else ''} {what}.")
        if isinstance(self.finest, bool) or self.finest not in FINEST:
            raise ExplainerError(f"finest={self.finest!r}; give one of {', '.join(map(str, FINEST))}.")
        if not isinstance(self.hybrid, bool):
            raise ExplainerError(f"hybrid={self.hybrid!r}; give True or False.")
        size = self.neighborhood
        if isinstance(size, bool) or not isinstance(size, int) or size < 1 or size % 2 == 0:
            raise ExplainerError(f"neighborhood={size!r}; give an odd number of pixels, 1 for none.")
        super().__post_init__(**kwargs)


class LtxExplainerConfig(ExplainerConfig):
    """Config of `LtxExplainerForImageClassification`.

    >>> LtxExplainerConfig().class_conditional
    True

    Args:
        trunk_config: of the trainable copy of the classifier.
    """

    model_type = "hf_explainer_ltx"

    trunk_config: dict | None = None


class DiffMaskExplainerConfig(ExplainerConfig):
    """Config of `DiffMaskExplainerForImageClassification`.

    >>> DiffMaskExplainerConfig(multiplier=5.0).class_conditional  # it explains the prediction only
    False

    Args:
        stem: path of the convolution whose map is gated.
        stem_channels: its channels.
        gate_scale, gate_start: the locations of the gates are within start +- scale at first; they begin open.
        multiplier: of the constraint of each layer, before training.
    """

    model_type = "hf_explainer_diffmask"

    class_conditional: bool = False
    stem: str | None = None
    stem_channels: int = 3
    gate_scale: float = 15.0
    gate_start: float = 8.0
    multiplier: float = 20.0


LTX_PRESETS: dict[str, dict] = {"small": {}, "ltx-release": {"class_conditional": False}}
DIFFMASK_PRESETS: dict[str, dict] = {"small": {}}

# About .1, 2 and 16 million parameters for ViT-B/16 with 1000 classes.
RANKING_PRESETS = {
    "tiny": {"hidden_size": 24, "pixel_size": 4, "num_blocks": 1},
    "small": {"hidden_size": 160, "pixel_size": 8, "num_blocks": 2},
    "base": {"hidden_size": 480, "pixel_size": 16, "num_blocks": 3},
}

for config_class in (ExplainerConfig, RankingExplainerConfig, LtxExplainerConfig, DiffMaskExplainerConfig):
    config_class.register_for_auto_class()
