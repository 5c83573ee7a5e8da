"""What happens when a visitor does something or a program calls: from their values to `Answers`, and back."""

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
from .wording import describe, duration, gone, percent, title

HEATMAP, IMPORTANT, SMALLEST = "heatmap", "most important pixels", "smallest region"
SHOWN = 512  # pixels: a smaller picture is enlarged, so that its pixels can be seen
PLAIN = "input_x_gradient"  # what a classifier without an explainer is asked with at first
REFINE_STEPS, MOVE_STEPS, MOVE_LENGTH = 16, 8, 20  # at most


class Upload(NamedTuple):
    path: str
    name: str | None


class Events:
    """The handlers of the page and its endpoints; each takes the values of its components and returns theirs."""

    def __init__(self, answers: Answers):
        self.answers = answers

    # ---- the picture and its classes ----

    def open(self, upload: Upload):
        return self.answers.open(*upload)

    def seen(self, upload: Upload, model: str) -> views.Seen:
        return self.answers.predict(model, self.open(upload))

    def map(self, upload: Upload, model: str, target, method: str, refine_steps) -> views.Map:
        """The prediction and its name are one question, so that it is computed once."""
        picture = self.open(upload)
        target = target if target not in (None, "") else self.seen(upload, model).top[0].name
        steps = within("refinement steps", refine_steps, 0, REFINE_STEPS)
        return self.answers.attribute(model, picture, target, method or LEARNED, int(steps))

    def predict(self, upload: Upload | None, model: str):
        """The most probable classes, {name: probability}."""
        return {one.name: one.score for one in self.seen(upload, model).top} if upload else None

    def fill(self, upload: Upload | None, model: str, method: str):
        """What can be chosen for this model: class, methods, a second class, a class to move to; methods to compare."""
        if not upload:
            return [gr.skip()] * 5
        found = self.seen(upload, model)
        first, second = found.top[0].name, found.top[min(1, len(found.top) - 1)].name
        chosen = method if method in found.methods else LEARNED if LEARNED in found.methods else PLAIN
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
            shown = painting.paint(picture, one.attribution, colors, opacity, signed=one.signed)
            text += f": map by {describe(one)}."
        else:
            share = self.answers.region(question[1], one, reference) if show == SMALLEST else share / 100
            shown = painting.keep(picture, painting.top_share(one.attribution, share))
            text += f": the most important {percent(share)} of the pixels"
            if show == SMALLEST:
                text += f" keep the prediction while all others are {gone(reference)}, and every larger share does too"
            text += f". Map by {describe(one)}."
        legend = self.legend(one, colors) if show == HEATMAP else ""
        return (large(picture), large(shown)), f"<p>{text}</p>{legend}"

    def legend(self, one: views.Map, colors: str) -> str:
        name = painting.choose_colors(colors, one.signed)
        ends = ("against", "for") if name in painting.DIVERGING else ("matters least", "matters most")
        return figures.ramp(painting.COLOR_MAPS[name], *ends)

    # ---- what happens as pixels go ----

    def curves(self, *values):
        """The curves, what the model sees at the scrubber, and all numbers."""
        *question, reference, share = values
        if not question[0]:
            return "", None, None, None
        model, one = question[1], self.map(*question)
        walk = self.answers.walk(model, one, reference)
        random = self.answers.attribute(model, one.picture, one.prediction.name, "random")
        floor = self.answers.walk(model, random, reference)
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
            gr.Image(large(painting.paint(a.picture.image, a.attribution, opacity=opacity)), label=title(a.prediction))
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
        most = self.answers.limits.methods
        if not 1 <= len(methods) <= most:
            raise ExplainerError(f"{len(methods)} methods were chosen; choose 1 to {most}.")
        gallery: list = []
        rows: list = []
        for method in methods:
            try:
                one = self.map(upload, model, target, method, refine_steps)
                areas = self.answers.walk(model, one, reference).areas
            except ExplainerError as error:  # not defined for this classifier, say; the others still are
                rows.append([method, None, None, None, PATHS.sub("(a file)", str(error))])
            else:
                picture = painting.paint(one.picture.image, one.attribution, opacity=opacity, signed=one.signed)
                gallery.append((large(picture), f"{method}: deletion {areas['deletion']:.2f}, insertion "
                                f"{areas['insertion']:.2f}, {duration(one.seconds)}"))  # fmt: skip
                rows.append(
                    [
                        method,
                        round(areas["deletion"], 3),
                        round(areas["insertion"], 3),
                        round(1000 * one.seconds, 1),
                        "",
                    ]
                )
            yield gallery, rows

    # ---- what would have to change ----

    def counterfactual(self, upload, model: str, target, steps, length):
        """The picture on its way to another class, where it changed, and what came of it."""
        if not upload:
            return None, None, ""
        found = self.answers.move(
            model, self.open(upload), target, int(within("steps", steps, 1, MOVE_STEPS)),
            within("length", length, 0.1, MOVE_LENGTH),
        )  # fmt: skip
        captions = [
            f"step {i}: {percent(p)}" if i else f"start: {percent(p)}" for i, p in enumerate(found.probabilities)
        ]
        pictures = [(large(picture), text) for picture, text in zip(found.pictures, captions, strict=True)]
        changed = painting.paint(found.pictures[0], found.change, "blue-red", 0.9)
        name = escape(found.target.name)
        outcome = (
            "is now the prediction" if found.reached else "is not the prediction yet; give it more or longer steps"
        )
        return pictures, large(changed), f"<b>{name}</b> {outcome}. Blue became darker, red brighter."

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
        script = reproduction.code(
            self.answers.models, model, one, upload.name or upload.path, colors, opacity, self.answers.limits
        )
        contents = {"map.npy": numbers.getvalue(), "map.png": image.getvalue(), "explain.py": script.encode()}
        return [save_bytes_to_cache(data, name, get_upload_folder()) for name, data in contents.items()], script


def large(picture: PIL.Image.Image) -> PIL.Image.Image:
    return enlarge(picture, SHOWN) if max(picture.size) < SHOWN else picture
