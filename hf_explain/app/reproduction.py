"""What a visitor takes home: the map as numbers and as a picture, and the code that makes both again."""

from __future__ import annotations

import os
from pathlib import PurePath

from .models import LEARNED, Models
from .uploads import Limits
from .views import SEED, Map

OWN = "demo"  # the model of `demo_explainer`


def code(models: Models, name: str, one: Map, file: str, colors: str, opacity: float, limits: Limits) -> str:
    """A script that writes map.npy and map.png as the app does."""
    settings = "".join(f", {key}={value!r}" for key, value in options(one).items())
    return f'''"""The map of {one.prediction.name!r} as the app of hf-explain drew it."""

import numpy as np
import PIL.Image
from transformers import pipeline

{imports(models, name, one)}from hf_explain.app.painting import paint
from hf_explain.modeling.pictures import open_picture

{loading(models, name, one)}
picture = open_picture({PurePath(file).name!r})
picture.thumbnail(({limits.side}, {limits.side}), PIL.Image.Resampling.LANCZOS)
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


def imports(models: Models, name: str, one: Map) -> str:
    own = "from hf_explain.demo.kept import demo_explainer\n" if trained_here(models, name) else ""
    if inside(models, name, one):
        return f"from hf_explain import ExplainerForImageClassification\n{own}"
    return f"import hf_explain  # noqa: F401 (registers the task with transformers)\n{own}"


def loading(models: Models, name: str, one: Map) -> str:
    source = "demo_explainer()" if trained_here(models, name) else repr(name)
    return hint(models, name) + opening(models, name, one, source)


def trained_here(models: Models, name: str) -> bool:
    """Whether it is the app's own model; a folder may have its name."""
    return callable(models.own.get(name))


def hint(models: Models, name: str) -> str:
    """What a script needs that names a folder of the server: visitors learn its name, not where it lies."""
    source = models.own.get(name)
    if not isinstance(source, str) or not os.path.isdir(source):
        return ""
    return (
        f"# {name!r} is a folder of the machine that serves the page. Put it beside this script:\n"
        "# without it, a model of that name is looked for on the Hub, where there is none, or another one.\n"
    )


def opening(models: Models, name: str, one: Map, source: str) -> str:
    if inside(models, name, one):
        return (
            f"inside = ExplainerForImageClassification.from_pretrained({source}).classifier\n"
            'explain = pipeline("image-attribution", model=inside.model, image_processor=inside.image_processor)'
        )
    return f'explain = pipeline("image-attribution", model={source})'


def inside(models: Models, name: str, one: Map) -> bool:
    """Whether a training-free method is asked for the classifier inside an explainer."""
    return one.method != LEARNED and LEARNED in models.load(name).methods
