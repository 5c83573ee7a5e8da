"""pictures in: data sets by name, with and without labels, drawn scenes, and small classifiers of them.

It imports `modeling` and the rooms of floor 2. Start with opening.py (what a name can mean), then unlabeled.py (what is
trained on), picture_table.py (what is explained), judged.py (what is measured on) and scenes.py (pictures whose
evidence is known).
"""

from .scenes import draw_scenes, load_scenes, to_pixels
from .small_classifiers import build_classifier, random_classifier

__all__ = ["build_classifier", "draw_scenes", "load_scenes", "random_classifier", "to_pixels"]
