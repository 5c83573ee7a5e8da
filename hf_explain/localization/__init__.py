"""does a map point at the evidence: masks, grids of pictures (GridPG, DiFull, DiPart), AggAtt.

It imports `modeling`, `methods` and `faithfulness`. Start with evidence.py (pictures whose evidence is known) and
grid_scores.py (grids of pictures, which grids.py makes).
"""

from .evidence import average_precision, class_discrimination, pointing_game
from .grid_scores import GridScores, cell_masks, localization_score

__all__ = [
    "GridScores",
    "average_precision",
    "cell_masks",
    "class_discrimination",
    "localization_score",
    "pointing_game",
]
