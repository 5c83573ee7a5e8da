"""`hf-explain app`: the page on which a person asks a classifier why."""

from __future__ import annotations

import argparse

from ..modeling.errors import ExplainerError
from .uploads import Limits


def add_arguments(parser: argparse.ArgumentParser) -> None:
    limits = Limits()
    what = parser.add_argument_group("what is offered")
    what.add_argument(
        "--model",
        nargs="+",
        default=[],
        help="Hub ids or folders of explainers and classifiers, the first one at the start (default: the demo's "
        "explainer, trained on this machine at the first start)",
    )
    what.add_argument("--examples", nargs="+", help="files of pictures (default: drawn ones)")
    what.add_argument("--cache_dir", help="of the demo's explainer and the examples (default: hf-explain in HF_HOME)")
    what.add_argument("--closed", action="store_true", help="visitors cannot name other models of the Hub")
    what.add_argument(
        "--trust_remote_code",
        action="store_true",
        help="run the code that models bring along, those that visitors name too: it can do whatever you can",
    )
    most = parser.add_argument_group("limits")
    for name, unit, help_ in (
        ("upload_mb", limits.upload_bytes / 1e6, "size of a picture's file"),
        ("upload_megapixels", limits.upload_pixels / 1e6, "pixels of a picture, in millions"),
        ("model_gb", limits.model_bytes / 1e9, "size of the weights of a model that a visitor names"),
    ):
        most.add_argument(f"--{name}", type=float, default=unit, help=f"{help_} (default: {unit:g})")
    most.add_argument("--concurrency", type=int, default=2, help="requests that are worked on at once (default: 2)")
    most.add_argument("--queue", type=int, default=64, help="requests that may wait (default: 64)")
    most.add_argument("--kept", type=int, default=3, help="models that stay in memory (default: 3)")
    where = parser.add_argument_group("where")
    where.add_argument(
        "--host", default="127.0.0.1", help="0.0.0.0: whoever reaches this machine (default: %(default)s)"
    )
    where.add_argument("--port", type=int, help="default: the first free one from 7860 on")
    where.add_argument("--open_browser", action="store_true", help="show the page")


def run(arguments: argparse.Namespace) -> int:
    try:
        import gradio  # noqa: F401
    except ImportError:
        raise ExplainerError('the app needs gradio, which is not installed; pip install "hf-explain[space]".') from None
    from .start import make, serve

    for name in ("upload_mb", "upload_megapixels", "model_gb", "concurrency", "queue", "kept"):
        if getattr(arguments, name) <= 0:
            raise ExplainerError(f"--{name} {getattr(arguments, name):g}; give more than 0.")
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
