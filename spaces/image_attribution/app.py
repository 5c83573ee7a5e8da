"""The app of hf-explain as a Space. Offer models of your own with make(["owner/explainer", "owner/classifier"])."""

import contextlib
from pathlib import Path

with contextlib.suppress(ImportError):
    import spaces  # noqa: F401 (on ZeroGPU it has to come before torch)

from hf_explain.app.start import make, serve

demo = make(examples=sorted(map(str, Path(__file__).with_name("examples").glob("*.jpg"))))

if __name__ == "__main__":
    serve(demo)
