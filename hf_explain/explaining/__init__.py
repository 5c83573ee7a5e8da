"""`hf-explain explain` and the pipeline: maps of pictures, and of data sets.

It imports everything on the floors below. Start with pipeline.py; dataset.py explains a data set block by block, and
regions.py and counterfactual.py answer "how few pixels?" and "what would it have to be?".
"""

from .auto import AutoModelForImageAttribution
from .pipeline import ImageAttributionPipeline

__all__ = ["AutoModelForImageAttribution", "ImageAttributionPipeline"]
