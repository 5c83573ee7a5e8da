"""What answers an event of the page or the call of a program: from their values to `Answers`, back to values."""

from __future__ import annotations

import io
from collections.abc import Iterator
from html import escape
from typing import Any, NamedTuple

import gradio as gr
import numpy as np
import PIL.Image
from gradio.processing_utils import save_bytes_to_cache
from gradio.utils import get_upload_folder

from ..modeling.errors import ExplainerError
from ..reports.sheet import enlarge
from . import figures, painting, reproduction, views
from .answers import Answers
from .models import LEARNED
from .refusals import PATHS, within
from .wording import describe, duration, gone, percent

HEATMAP, IMPORTANT, SMALLEST = "heatmap", "most important pixels", "smallest region"
SHOWN = 512  # pixels: a smaller picture is enlarged, so that its pixels can be seen
REFINE_STEPS, MOVE_STEPS, MOVE_LENGTH = 16, 8, 20  # at most


class Upload(NamedTuple):
    path: str
    name: str | None


class Events:
    """The handlers of the page and its endpoints; each takes the values of its components and returns theirs."""

    def __init__(self, answers: Answers):
        self.answers = answers

    # ---- the picture and its classes ----

    def seen(self, upload: Upload, model: str) -> views.Seen:
        return self.answers.ask(views.predict, model, self.answers.open(*upload))

    def map(self, upload: Upload, model: str, target, method: str, refine_steps) -> views.Map:
        """The prediction and its name are one question, so that it is computed once."""
        picture = self.answers.open(*upload)
        target = target if target not in (None, "") else self.seen(upload, model).top[0].name
        steps = int(within("refinement steps", refine_steps, 0, REFINE_STEPS))
        return self.answers.ask(views.attribute, model, picture, target, method or LEARNED, steps)

    def predict(self, upload: Upload | None, model: str):
        """The most probable classes, {name: probability}."""
        return {one.name: one.score for one in self.seen(upload, model).top} if upload else None

    def fill(self, upload: Upload | None, model: str, method: str):
        """What can be chosen for this model: class, methods, a second class, a class to move to; methods to compare."""
        if not upload:
            return [gr.skip()] * 5
        found = self.seen(upload, model)
        first, second = found.top[0].name, found.top[min(1, len(found.top) - 1)].name
        chosen = method if method in found.methods else found.first
        names, methods = list(found.names), list(found.methods)
        compared = [m for m in (LEARNED, "integrated_gradients", "grad_cam", "random") if m in methods]
        return (
            gr.Dropdown(names, value=first), gr.Dropdown(methods, value=chosen), gr.Dropdown(names, value=second),
            gr.Dropdown(names, value=second), gr.CheckboxGroup(methods, value=compared),
        )  # fmt: skip

    # ---- the map ----

    def explain(self, *values):
        """The picture beside its map; and what it is in words, with the legend of its colors."""
        *question, colors, opacity, show, share, reference = values
        if not question[0]:
            return None, ""
        one, opacity, share = self.map(*question), within("opacity", opacity, 0, 1), within("share", share, 0, 100)
        picture = one.picture.image
        text = f"<b>{escape(one.prediction.name)}</b> {percent(one.prediction.score)}"
        if show == HEATMAP:
            name = painting.choose_colors(colors, one.signed)
            ends = ("against", "for") if name in painting.DIVERGING else ("matters least", "matters most")
            legend = figures.ramp(painting.COLOR_MAPS[name], *ends)
            return (large(picture), drawn(one, name, opacity)), f"<p>{text}: map by {describe(one)}.</p>{legend}"
        share = self.answers.ask(views.region, question[1], one, reference) if show == SMALLEST else share / 100
        text += f": the most important {percent(share)} of the pixels"
        if show == SMALLEST:
            text += f" keep the prediction while all others are {gone(reference)}, and every larger share does too"
        kept = painting.keep(picture, painting.top_share(one.attribution, share))
        return (large(picture), large(kept)), f"<p>{text}. Map by {describe(one)}.</p>"

    # ---- what happens as pixels go ----

    def curves(self, *values):
        """The curves, what the model sees at the scrubber, and all numbers."""
        *question, reference, share = values
        if not question[0]:
            return "", None, None, None
        model, one = question[1], self.map(*question)
        walk = self.answers.ask(views.walk, model, one, reference)
        random = self.answers.ask(views.attribute, model, one.picture, one.prediction.name, "random", 0)
        floor = self.answers.ask(views.walk, model, random, reference)
        share = within("share", share, 0, 100)
        steps = views.steps_of(walk, share / 100)
        numbers = {"shares": walk.shares, "curves": walk.curves, "areas": walk.areas, "protocol": walk.protocol}
        numbers["random order"] = floor.areas
        shown = [
            gr.Image(large(picture), label=f"{share:.0f} % {what}: {percent(probability)}")
            for what, (picture, probability) in zip(("removed", "brought back"), steps.values(), strict=True)
        ]
        return figures.draw_walk(walk, floor, share / 100), *shown, numbers

    # ---- side by side ----

    def compare_classes(self, *values):
        """The maps of two classes, and how much higher each pixel ranks for the first one."""
        *question, other, opacity = values
        if not question[0]:
            return None, None, None, ""
        one = self.map(*question)
        two = self.map(*question[:2], other, *question[3:])
        if one.prediction.index == two.prediction.index:
            raise ExplainerError(f"both classes are {one.prediction.name!r}; choose two different ones.")
        shown = [
            gr.Image(drawn(a, "ember", opacity), label=f"{a.prediction.name} {percent(a.prediction.score)}")
            for a in (one, two)
        ]
        apart = painting.paint(one.picture.image, views.difference(one, two), "blue-red", opacity)
        ends = f"ranks higher for {two.prediction.name}", f"ranks higher for {one.prediction.name}"
        return *shown, large(apart), figures.ramp(painting.COLOR_MAPS["blue-red"], *ends)

    def compare_methods(self, *values) -> Iterator[tuple[Any, Any]]:
        """Maps of several methods with their deletion, insertion and time, one after the other."""
        upload, model, target, methods, refine_steps, reference, opacity = values
        if not upload:
            yield None, None
            return
        most = self.answers.models.limits.methods
        if not 1 <= len(methods) <= most:
            raise ExplainerError(f"{len(methods)} methods were chosen; choose 1 to {most}.")
        gallery: list = []
        rows: list = []
        for method in methods:
            try:
                one = self.map(upload, model, target, method, refine_steps)
                areas = self.answers.ask(views.walk, model, one, reference).areas
            except ExplainerError as error:  # not defined for this classifier, say; the others still are
                rows.append([method, None, None, None, PATHS.sub("(a file)", str(error))])
            else:
                falls, rises = areas["deletion"], areas["insertion"]
                text = f"{method}: deletion {falls:.2f}, insertion {rises:.2f}, {duration(one.seconds)}"
                gallery.append((drawn(one, painting.AUTOMATIC, opacity), text))
                rows.append([method, round(falls, 3), round(rises, 3), round(1000 * one.seconds, 1), ""])
            yield gallery, rows

    # ---- what would have to change ----

    def counterfactual(self, upload, model: str, target, steps, length):
        """The picture on its way to another class, where it changed, and what came of it."""
        if not upload:
            return None, None, ""
        steps, length = int(within("steps", steps, 1, MOVE_STEPS)), within("length", length, 0.1, MOVE_LENGTH)
        found = self.answers.ask(views.move, model, self.answers.open(*upload), target, steps, length)
        pictures = [
            (large(picture), f"{f'step {i}' if i else 'start'}: {percent(probability)}")
            for i, (picture, probability) in enumerate(zip(found.pictures, found.probabilities, strict=True))
        ]
        changed = painting.paint(found.pictures[0], found.change, "blue-red", 0.9)
        outcome = "now the prediction" if found.reached else "not the prediction yet; give it more or longer steps"
        text = f"<b>{escape(found.target.name)}</b> is {outcome}. Blue became darker, red brighter."
        return pictures, large(changed), text

    # ---- to take home ----

    def files(self, *values):
        """map.npy, map.png and the script that makes both; the script also as text."""
        *question, colors, opacity = values
        if not question[0]:
            return None, ""
        one = self.map(*question)
        numbers, image = io.BytesIO(), io.BytesIO()
        np.save(numbers, one.attribution)
        painting.paint(one.picture.image, one.attribution, colors, opacity, signed=one.signed).save(image, "PNG")
        upload, model = question[0], question[1]
        script = reproduction.code(self.answers.models, model, one, upload.name or upload.path, colors, opacity)
        contents = {"map.npy": numbers.getvalue(), "map.png": image.getvalue(), "explain.py": script.encode()}
        return [save_bytes_to_cache(data, name, get_upload_folder()) for name, data in contents.items()], script


def drawn(one: views.Map, colors: str, opacity: float) -> PIL.Image.Image:
    return large(painting.paint(one.picture.image, one.attribution, colors, opacity, signed=one.signed))


def large(picture: PIL.Image.Image) -> PIL.Image.Image:
    return enlarge(picture, SHOWN) if max(picture.size) < SHOWN else picture
