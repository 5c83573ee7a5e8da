"""The page of gradio components that a visitor sees."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import gradio as gr
from gradio.data_classes import ImageData

from ..methods import METHODS
from ..modeling.references import REFERENCES
from . import painting
from .answers import Answers
from .events import HEATMAP, IMPORTANT, MOVE_LENGTH, MOVE_STEPS, REFINE_STEPS, SMALLEST, Events, Upload
from .models import LEARNED
from .refusals import answering
from .style import HEADER

VIEW: list[Any] = ["download", "fullscreen"]  # of a picture; gradio would also offer to post it elsewhere
FORGET = (600, 3600)  # seconds: how often files are looked through, and the age at which they go
OFFERED = [LEARNED, *METHODS]  # until a model says which it has
TYPED = "an image classifier or explainer: one of these, or any id of the Hub"
NOTES = {  # of the tabs
    "Check it": "What the classifier still says as the pixels the map calls important are removed first, or "
    "brought back first. A faithful map falls fast and rises fast; a random order is dashed.",
    "Two classes": "Why the one rather than the other? Only the order within a map has a meaning, so the difference "
    "is one of ranks.",
    "Methods": "Deletion: lower is better. Insertion: higher is better. Always read both. The time is that of one "
    "picture on this machine.",
    "What if?": "The picture is moved, in a few steps, along what the classifier sees as another class. It shows "
    "what would convince the classifier, which need not convince you.",
    "Take home": "The map as numbers (NumPy) and as a picture, and the script that makes both from the file you gave.",
}


def build(answers: Answers, examples: Sequence[str] = (), concurrency: int = 2, queue: int = 64) -> gr.Blocks:
    """The page of these answers.

    Args:
        examples: files of pictures.
        concurrency: events that are worked on at once.
        queue: events that may wait; others are refused.
    """
    with gr.Blocks(title="hf-explain", analytics_enabled=False, delete_cache=FORGET) as page:
        gr.HTML(HEADER, padding=False)
        Page(Events(answers), list(answers.models.own), examples, concurrency)
    return page.queue(default_concurrency_limit=concurrency, max_size=queue)


class Page:
    """Its components, and the events between them. Endpoints have the names of the `Events` that answer them."""

    def __init__(self, events: Events, models: list[str], examples: Sequence[str], concurrency: int):
        self.events, self.shared = events, {"concurrency_id": "answers", "concurrency_limit": concurrency}
        with gr.Row():
            with gr.Column(scale=4, min_width=300):
                self.draw_question(models, examples)
            with gr.Column(scale=7, min_width=300):
                self.draw_map()
        self.asked = [self.picture, self.model, self.target, self.method, self.refine]
        self.view = [self.colors, self.opacity]
        drawers = self.draw_curves, self.draw_classes, self.draw_methods, self.draw_counterfactual, self.draw_files
        with gr.Tabs():
            for (title, note), draw in zip(NOTES.items(), drawers, strict=True):
                with gr.Tab(title) as self.last:
                    gr.HTML(f'<p class="hx-note">{note}</p>', padding=False)
                    draw()
        self.join()

    # ---- what is where ----

    def draw_question(self, models: list[str], examples: Sequence[str]) -> None:
        self.picture = gr.Image(
            label="Picture", height=300, type="filepath", sources=["upload", "clipboard"], buttons=[]
        )
        self.picture.preprocess = unopened  # type: ignore[method-assign,assignment]
        if examples:
            gr.Examples(
                [[path] for path in examples], [self.picture], label="Or one of these", api_visibility="private"
            )
        self.model = gr.Dropdown(models, value=models[0], allow_custom_value=True, label="Model", info=TYPED)
        self.predictions = gr.Label(label="It says (click a class to explain it)", num_top_classes=5)

    def draw_map(self) -> None:
        self.slider = gr.ImageSlider(
            label="Picture and map: move the handle", type="pil", interactive=False, height=520, format="png",
            slider_position=50, elem_id="map", buttons=VIEW,
        )  # fmt: skip
        self.said = gr.HTML(elem_classes="hx-said", padding=False)
        with gr.Row():
            self.target = gr.Dropdown([], label="Explained class", allow_custom_value=True, min_width=180)
            self.method = gr.Dropdown(OFFERED, value=LEARNED, label="Method", allow_custom_value=True, min_width=180)
            self.refine = gr.Slider(0, REFINE_STEPS, value=0, step=1, label="Refinement steps", min_width=180)
        self.show = gr.Radio([HEATMAP, IMPORTANT, SMALLEST], value=HEATMAP, label="Show")
        with gr.Row():
            self.share = gr.Slider(1, 100, value=20, step=1, label="Keep, %", min_width=180)
            names = [painting.AUTOMATIC, *painting.COLOR_MAPS]
            self.colors = gr.Dropdown(names, value=painting.AUTOMATIC, label="Colors", min_width=180)
            self.opacity = gr.Slider(0, 1, value=0.6, step=0.05, label="Opacity", min_width=180)

    def draw_curves(self) -> None:
        with gr.Row():
            with gr.Column(scale=6, min_width=300):
                self.drawing = gr.HTML(padding=False)
                self.scrubber = gr.Slider(0, 100, value=20, step=5, label="Pixels removed or brought back, %")
                self.reference = gr.Dropdown(sorted(REFERENCES), value="black", label="Removed pixels become")
            self.removed, self.restored = draw_picture("removed", scale=3), draw_picture("brought back", scale=3)
        with gr.Accordion("All numbers, and how they were measured", open=False):
            self.numbers = gr.JSON(show_label=False)

    def draw_classes(self) -> None:
        with gr.Row(equal_height=True):
            self.other = gr.Dropdown([], label="The other class", allow_custom_value=True, scale=3)
            self.compare = gr.Button("Compare", variant="primary", min_width=120)
        with gr.Row():
            self.first, self.second, self.apart = map(
                draw_picture, ("explained class", "other class", "difference of ranks")
            )
        self.apart_legend = gr.HTML(padding=False)

    def draw_methods(self) -> None:
        self.methods = gr.CheckboxGroup(OFFERED, value=[LEARNED], label="Methods")
        self.race = gr.Button("Compare", variant="primary")
        self.gallery = draw_gallery("maps", columns=4)
        heads = ["method", "deletion", "insertion", "ms", "note"]
        types: Any = ["str", "number", "number", "number", "str"]
        self.table = gr.Dataframe(headers=heads, datatype=types, interactive=False, label="faithfulness and time")

    def draw_counterfactual(self) -> None:
        with gr.Row(equal_height=True):
            self.towards = gr.Dropdown([], label="Move towards", allow_custom_value=True, scale=3)
            self.steps = gr.Slider(1, MOVE_STEPS, value=5, step=1, label="Steps", scale=2)
            self.length = gr.Slider(1, MOVE_LENGTH, value=3, step=1, label="Length of a step", scale=2)
            self.go = gr.Button("Move it", variant="primary", min_width=120)
        self.outcome = gr.HTML(elem_classes="hx-said", padding=False)
        with gr.Row():
            self.way = draw_gallery("on the way", columns=6, scale=5)
            self.changed = draw_picture("what changed", scale=2)

    def draw_files(self) -> None:
        self.saved = gr.File(label="Files", file_count="multiple", interactive=False)
        self.script = gr.Code(language="python", label="explain.py", interactive=False)

    # ---- which event fills it ----

    def join(self) -> None:
        events, asks = self.events, [self.picture, self.model]
        explain = [*self.asked, *self.view, self.show, self.share, self.reference]
        map_ = [self.slider, self.said]
        curves = [*self.asked, self.reference, self.scrubber], [self.drawing, self.removed, self.restored, self.numbers]
        classes = [self.first, self.second, self.apart, self.apart_legend]
        stale = [*classes, self.gallery, self.table, self.way, self.changed, self.outcome, self.saved, self.script]

        classes_of = [self.target, self.other, self.towards]  # of the model that was asked last
        asked_of = [self.predictions, *classes_of, *map_, *curves[1], *stale]
        begun = empty(any_of(self.picture.change, self.model.change), asked_of)
        predicted = self.on(begun.then, events.predict, asks, self.predictions, "predict")
        options = [self.target, self.method, self.other, self.towards, self.methods]
        filled = self.on(predicted.success, events.fill, [*asks, self.method], options)
        clicked = self.predictions.select(take, None, self.target, api_visibility="private", show_progress="hidden")
        chosen = any_of(self.target.input, self.method.input, self.refine.change)
        for trigger, named in ((filled.success, True), (clicked.success, False), (chosen, False)):
            mapped = self.on(trigger, events.explain, explain, map_, "explain" if named else None)
            measured = self.on(mapped.success, events.curves, *curves, "curves" if named else None)
            empty(measured.then, stale)
        looks = any_of(self.colors.change, self.opacity.change, self.show.change, self.share.change)
        self.on(looks, events.explain, explain, map_, quiet=True)
        self.on(any_of(self.scrubber.change, self.reference.change), events.curves, *curves, quiet=True)
        self.on(self.compare.click, events.compare_classes, [*self.asked, self.other, self.opacity],
                classes, "compare_classes")  # fmt: skip
        self.on(self.race.click, events.compare_methods,
                [*self.asked[:3], self.methods, self.refine, self.reference, self.opacity], [self.gallery, self.table],
                "compare_methods")  # fmt: skip
        self.on(self.go.click, events.counterfactual, [*asks, self.towards, self.steps, self.length],
                [self.way, self.changed, self.outcome], "counterfactual")  # fmt: skip
        self.on(self.last.select, events.files, [*self.asked, *self.view], [self.saved, self.script], "files")

    def on(self, trigger, function: Callable, inputs, outputs, name: str | None = None, quiet: bool = False):
        """The event; without a name it is the page's alone. A quiet one follows a control that is being moved."""
        seen = {"api_name": name} if name else {"api_visibility": "private"}
        moved = {"show_progress": "hidden", "trigger_mode": "always_last"} if quiet else {}
        return trigger(answering(function), inputs, outputs, **seen, **moved, **self.shared)


def any_of(*triggers) -> Callable:
    return partial(gr.on, triggers)


def empty(trigger, outputs: list):
    """Takes away what belongs to another question."""
    quiet: dict[str, Any] = {"show_progress": "hidden", "queue": False, "api_visibility": "private"}
    return trigger(lambda: [None] * len(outputs), None, outputs, **quiet)


def draw_picture(label: str, scale: int = 1) -> gr.Image:
    return gr.Image(label=label, interactive=False, scale=scale, min_width=180, height=300, buttons=VIEW)


def draw_gallery(label: str, columns: int, scale: int = 1) -> gr.Gallery:
    how: dict[str, Any] = {"height": "auto", "object_fit": "contain", "interactive": False, "buttons": VIEW}
    return gr.Gallery(elem_classes="hx-gallery", label=label, columns=columns, scale=scale, **how)


def unopened(payload: ImageData | None) -> Upload | None:
    """What was uploaded, not opened: gradio would decode whatever came."""
    return Upload(payload.path, payload.orig_name) if payload and payload.path else None


def take(event: gr.SelectData) -> str:
    """The name of the class that was clicked."""
    return event.value
