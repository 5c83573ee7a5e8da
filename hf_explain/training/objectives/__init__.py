"""What explainers are trained for: one file per system, one form for the training loop (`objective.Objective`)."""

from .diffmask import DiffMaskObjective
from .ltx import LTX_OBJECTIVES, LtxObjective
from .objective import Objective
from .ranking import OBJECTIVES, RankingObjective, cells, find_objective, peak_penalty, ranking_loss, smooth, soft_masks

__all__ = [
    "LTX_OBJECTIVES",
    "OBJECTIVES",
    "DiffMaskObjective",
    "LtxObjective",
    "Objective",
    "RankingObjective",
    "cells",
    "find_objective",
    "peak_penalty",
    "ranking_loss",
    "smooth",
    "soft_masks",
]
