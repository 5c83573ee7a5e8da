"""The script that a visitor takes home: it makes the files of a map again."""

from __future__ import annotations

import os
from pathlib import PurePath

from .models import LEARNED, Models
from .views import SEED, Map

OWN = "demo"  # the model of `demo_explainer`

REGISTERING = "import hf_explain  # noqa: F401 (registers the task with transformers)"
PLAIN = 'explain = pipeline("image-attribution", model={})'
INSIDE = """inside = ExplainerForImageClassification.from_pretrained({}).classifier
explain = pipeline("image-attribution", model=inside.model, image_processor=inside.image_processor)"""


def code(models: Models, name: str, one: Map, file: str, colors: str, opacity: float) -> str:
    """A script that writes map.npy and map.png as the app does."""
    own, side = models.own.get(name), models.limits.side
    ours = callable(own)  # not by the name: a folder may have that of the app's own model
    source = "demo_explainer()" if ours else repr(name)
    inside = one.method != LEARNED and LEARNED in models.load(name).methods  # of an explainer, its classifier is asked
    imports = "from hf_explain import ExplainerForImageClassification" if inside else REGISTERING
    imports += "\nfrom hf_explain.demo.kept import demo_explainer" if ours else ""
    settings = "".join(f", {key}={value!r}" for key, value in options(one).items())
    label = repr(one.prediction.name).replace('"', '\\"')  # which could end the docstring
    return f'''"""The map of {label} as the app of hf-explain drew it."""

import numpy as np
import PIL.Image
from transformers import pipeline

{imports}
from hf_explain.app.painting import paint
from hf_explain.modeling.pictures import open_picture

{hint(name, own)}{(INSIDE if inside else PLAIN).format(source)}
picture = open_picture({PurePath(file).name!r})
picture.thumbnail(({side}, {side}), PIL.Image.Resampling.LANCZOS)
answer = explain(picture, target={one.prediction.index}{settings})[0]
np.save("map.npy", answer["attribution"])
paint(picture, answer["attribution"], {colors!r}, {opacity:g}, signed={one.signed}).save("map.png")
'''


def options(one: Map) -> dict:
    found: dict = {}
    if one.method != LEARNED:
        found["method"] = one.method
    if one.refine_steps:
        found["refine_steps"] = one.refine_steps
    return found | ({"seed": SEED} if found else {})


def hint(name: str, source) -> str:
    """What a script needs that names a folder of the server: visitors learn its name, not where it lies."""
    if not isinstance(source, str) or not os.path.isdir(source):
        return ""
    return (
        f"# {name!r} is a folder of the machine that serves the page. Put it beside this script:\n"
        "# without it, a model of that name is looked for on the Hub, where there is none, or another one.\n"
    )
