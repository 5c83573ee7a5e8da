"""`hf-explain app`: the page on which a person asks a classifier why."""

from __future__ import annotations

import argparse

from ..jobs.flags import flag
from ..modeling.errors import ExplainerError
from .uploads import Limits

FLAGS = {
    "what is offered": {
        "--model": flag(
            "Hub ids or folders of explainers and classifiers, or photos:<name>; the first one at the start (default: "
            "the demo's explainer, trained on this machine at the first start)",
            (),
        ),
        "--examples": flag("files of pictures, or photos:<name> (default: drawn ones, or photographs)", nargs="+"),
        "--cache_dir": flag("of the demo's explainer and the examples (default: hf-explain in HF_HOME)"),
        "--closed": flag("visitors cannot name other models of the Hub", False),
        "--trust_remote_code": flag(
            "run the code that models bring along, those that visitors name too: it can do whatever you can", False
        ),
    },
    "limits": {
        "--upload_mb": flag("size of a picture's file", Limits.upload_bytes / 1e6),
        "--upload_megapixels": flag("pixels of a picture, in millions", Limits.upload_pixels / 1e6),
        "--model_gb": flag("size of the weights of a model that a visitor names", Limits.model_bytes / 1e9),
        "--concurrency": flag("requests that are worked on at once", 2),
        "--queue": flag("requests that may wait", 64),
        "--kept": flag("models that stay in memory", 3),
    },
    "where": {
        "--host": flag("0.0.0.0: whoever reaches this machine", "127.0.0.1"),
        "--port": flag("default: the first free one from 7860 on", type=int),
        "--open_browser": flag("show the page", False),
    },
}


def run(arguments: argparse.Namespace) -> int:
    try:
        import gradio  # noqa: F401
    except ImportError:
        raise ExplainerError('the app needs gradio, which is not installed; pip install "hf-explain[space]".') from None
    from .start import make, serve

    for name in FLAGS["limits"]:
        if (value := getattr(arguments, name[2:])) <= 0:
            raise ExplainerError(f"{name} {value:g}; give more than 0.")
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
