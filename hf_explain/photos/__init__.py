"""real classifiers of ImageNet and photographs with no network, out of packages of the extra `photos`.

It imports `modeling` and the rooms of floor 2. Start with classifiers.py (what a name such as
photos:efficientnet-lite0 loads, and from where), then efficientnet_lite.py (published weights as a native model of
transformers) and pictures.py (photos:cat and others).
"""

from .classifiers import CLASSIFIERS
from .pictures import PICTURES, examples

__all__ = ["CLASSIFIERS", "PICTURES", "examples"]
