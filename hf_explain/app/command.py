"""`hf-explain app`: the page on which a person asks a classifier why."""

from __future__ import annotations

import argparse
from dataclasses import dataclass

from ..jobs.flags import add_flags, flag, given
from ..modeling.errors import ExplainerError
from .uploads import Limits


@dataclass
class Offered:
    """What is offered."""

    model: tuple[str, ...] = flag(
        (),
        "Hub ids or folders of explainers and classifiers, the first one at the start (default: the demo's "
        "explainer, trained on this machine at the first start)",
    )
    examples: tuple[str, ...] | None = flag(None, "files of pictures (default: drawn ones)")
    cache_dir: str | None = flag(None, "of the demo's explainer and the examples (default: hf-explain in HF_HOME)")
    closed: bool = flag(False, "visitors cannot name other models of the Hub")
    trust_remote_code: bool = flag(
        False, "run the code that models bring along, those that visitors name too: it can do whatever you can"
    )


@dataclass
class Most:
    """What is too much, all of them more than 0."""

    upload_mb: float = flag(Limits.upload_bytes / 1e6, "size of a picture's file")
    upload_megapixels: float = flag(Limits.upload_pixels / 1e6, "pixels of a picture, in millions")
    model_gb: float = flag(Limits.model_bytes / 1e9, "size of the weights of a model that a visitor names")
    concurrency: int = flag(2, "requests that are worked on at once")
    queue: int = flag(64, "requests that may wait")
    kept: int = flag(3, "models that stay in memory")


@dataclass
class Place:
    """Where it is served."""

    host: str = flag("127.0.0.1", "0.0.0.0: whoever reaches this machine")
    port: int | None = flag(None, "default: the first free one from 7860 on")
    open_browser: bool = flag(False, "show the page")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    for title, settings in (("what is offered", Offered), ("limits", Most), ("where", Place)):
        add_flags(parser.add_argument_group(title), settings)


def run(arguments: argparse.Namespace) -> int:
    try:
        import gradio  # noqa: F401
    except ImportError:
        raise ExplainerError('the app needs gradio, which is not installed; pip install "hf-explain[space]".') from None
    from .start import make, serve

    for name, value in given(Most, arguments).items():
        if value <= 0:
            raise ExplainerError(f"--{name} {value:g}; give more than 0.")
    limits = Limits(
        upload_bytes=int(arguments.upload_mb * 1e6),
        upload_pixels=int(arguments.upload_megapixels * 1e6),
        model_bytes=int(arguments.model_gb * 1e9),
    )
    page = make(
        arguments.model, cache=arguments.cache_dir, examples=arguments.examples, limits=limits,
        open=not arguments.closed, trust_remote_code=arguments.trust_remote_code, kept=arguments.kept,
        concurrency=arguments.concurrency, queue=arguments.queue,
    )  # fmt: skip
    try:
        _, address, _ = serve(
            page, limits, server_name=arguments.host, server_port=arguments.port, inbrowser=arguments.open_browser,
            prevent_thread_lock=True, quiet=True,
        )  # fmt: skip
    except OSError as error:
        if "Cannot find empty port" not in str(error):
            raise
        taken = "no port from 7860 on is free" if arguments.port is None else f"port {arguments.port} is in use"
        raise ExplainerError(f"{taken}; choose another with --port.") from error
    print(f"The app runs at {address} until Ctrl-C.", flush=True)
    page.block_thread()
    return 0
