"""From an operator's settings to a page that is served."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import gradio as gr
from gradio import processing_utils

from ..demo.kept import demo_explainer, example_pictures
from ..modeling.errors import ExplainerError
from ..photos.pictures import picture_file, picture_files
from .answers import Answers
from .layout import build
from .models import Models
from .refusals import fetch_nothing
from .reproduction import OWN
from .style import STYLE, theme
from .uploads import Limits

SESSIONS = 200  # whose chosen options are remembered
IMAGENET = 1000  # classes, by which its classifiers are known


def make(
    own: Sequence[str] = (), *, cache: str | os.PathLike | None = None, examples: Sequence[str] | None = None,
    limits: Limits | None = None, open: bool = True, trust_remote_code: bool = False, kept: int = 3,
    concurrency: int = 2, queue: int = 64,
) -> gr.Blocks:  # fmt: skip
    """The page, with its first model loaded; `serve` serves it.

    >>> import os, tempfile
    >>> from hf_explain.data.small_classifiers import random_classifier
    >>> folder, classifier = tempfile.mkdtemp(), random_classifier()
    >>> classifier.model.save_pretrained(folder)
    >>> _ = classifier.image_processor.save_pretrained(folder)
    >>> make([folder], examples=[]).title
    'hf-explain'

    Args:
        own: Hub ids, folders or names (photos:...) of classifiers and explainers that are offered, the first one at the
            start; default the demo's explainer, which is trained first where it is not in the cache.
        cache: folder of the demo's explainer and of the examples; default hf-explain in HF_HOME.
        examples: files of pictures, or names such as photos:cat; default scenes that are drawn into the cache, for a
            classifier of ImageNet photographs where they are installed.
        limits: of what visitors give.
        open: whether visitors may name other models of the Hub.
        trust_remote_code: whether code of a model's repository may run. It can do whatever you can.
        kept: models in memory.
        concurrency: events worked on at once; queue: that may wait.
    """
    sources: dict[str, str | Callable[[], str]] = {}
    for source in own:
        if sources.setdefault(name_of(source), source) != source:
            raise ExplainerError(f"two folders are called {name_of(source)!r}; rename one, as that is what is shown.")
    if not sources:
        sources[OWN] = lambda: demo_explainer(cache)
    models = Models(sources, limits, open=open, trust_remote_code=trust_remote_code, kept=kept)
    first = models.load(next(iter(sources)))  # what cannot be loaded is said before anybody waits for it
    if examples is not None:
        files = [picture_file(name) for name in examples]
    else:
        files = (picture_files() if first.classifier.num_labels == IMAGENET else []) or example_pictures(cache)
    return build(Answers(models), files, concurrency, queue)


def name_of(source: str) -> str:
    """What visitors see: an id, or the last part of a folder's path."""
    return os.path.basename(os.path.abspath(source)) if os.path.isdir(source) else source


def serve(page: gr.Blocks, limits: Limits | None = None, **launching):
    """Serves the page as it has to be: no traces in messages, no history, no analytics, nothing from elsewhere.

    >>> with gr.Blocks(analytics_enabled=False) as page:
    ...     _ = gr.Markdown("A page.")
    >>> _, address, _ = serve(page, prevent_thread_lock=True, quiet=True)
    >>> address.startswith("http://127.0.0.1:")
    True
    >>> page.close(verbose=False)
    """
    processing_utils.async_ssrf_protected_download = fetch_nothing  # gradio has no setting for it
    fixed: dict[str, Any] = {
        "theme": theme(), "css": STYLE, "show_error": False, "ssr_mode": False, "run_history": False,
        "enable_monitoring": False, "footer_links": ["api"], "state_session_capacity": SESSIONS,
        "max_file_size": (limits or Limits()).upload_bytes,
    }  # fmt: skip
    return page.launch(**fixed, **launching)
