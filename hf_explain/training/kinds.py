"""The kinds of explainers, a row each: its class, what it is trained for and how, its second stage, its paper."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from ..modeling.modeling_diffmask import DiffMaskExplainerForImageClassification
from ..modeling.modeling_explainer import ExplainerForImageClassification
from ..modeling.modeling_ltx import LtxExplainerForImageClassification
from ..modeling.modeling_ranking import RankingExplainerForImageClassification
from .objectives import LTX_OBJECTIVES, OBJECTIVES, DiffMaskObjective, Objective
from .objectives.ranking import read_settings
from .tuning import Tuned, tune


@dataclass(frozen=True)
class Kind:
    """One kind of explainer.

    Args:
        explainer: its class.
        objectives: presets of what it is trained for; their fields that `TrainingConfig` has as well are its settings.
        paper: authors, title and year; number on arXiv. NOTICE has more of them.
        usual: where its published schedule is another than that of `TrainingConfig`.
        read: single values as a person gives them -> as the objective takes them.
        second_stage: improves maps of single pictures in the system's own way, instead of `refine`.
    """

    explainer: type[ExplainerForImageClassification]
    objectives: Mapping[str, Objective]
    paper: tuple[str, str]
    usual: dict[str, Any] = field(default_factory=dict)
    read: Callable[[dict[str, Any]], dict[str, Any]] = dict
    second_stage: Callable[..., Tuned] | None = None

    @property
    def settings(self) -> set[str]:
        return {one.name for one in fields(self.objectives["default"])}  # type: ignore[arg-type]


KINDS = {
    "ranking": Kind(
        RankingExplainerForImageClassification,
        OBJECTIVES,
        (
            "David Schinagl, Christian Fruhwirth-Reisinger, Alexander Prutsch, Samuel Schulter, Horst Possegger. "
            "Learn to Rank: Visual Attribution by Learning Importance Ranking. 2026",
            "2604.05819",
        ),
        read=read_settings,
    ),
    "ltx": Kind(
        LtxExplainerForImageClassification,
        LTX_OBJECTIVES,
        (
            "Oren Barkan, Yuval Asher, Amit Eshel, Yehonatan Elisha, Noam Koenigstein. "
            "Learning to Explain: A Model-Agnostic Framework for Explaining Black Box Models. ICDM 2023",
            "2310.16584",
        ),
        usual={"learning_rate": 2e-4, "warmup_ratio": 1.0},  # it never leaves its warmup
        second_stage=tune,
    ),
    "diffmask": Kind(
        DiffMaskExplainerForImageClassification,
        {"default": DiffMaskObjective()},
        (
            "Angelos Nalmpantis, Apostolos Panagiotopoulos, John Gkountouras, Konstantinos Papakostas, Wilker Aziz. "
            "Vision DiffMask: Faithful Interpretation of Vision Transformers with Differentiable Patch Masking. "
            "CVPR Workshops 2023",
            "2304.06391",
        ),
        usual={"learning_rate": 2e-5},
    ),
}


def kind_of(model) -> str:
    """The name in `KINDS` of an explainer; of a classifier, one that is not there."""
    return model.config.model_type.removeprefix("hf_explainer_")
