"""A Space of one explainer: the app of hf-explain, with the model's id filled in. A few lines each."""

from __future__ import annotations

import json

from ..modeling.model_card import in_markdown

GRADIO = "6.31.0"  # the version the app was tested with

README = """---
title: {title}
emoji: 🔍
colorFrom: purple
colorTo: yellow
sdk: gradio
sdk_version: {gradio}
python_version: "3.11"
app_file: app.py
pinned: false
license: apache-2.0
models:
- {repo_id}
tags:
- image-classification
- explainability
- attribution
- saliency
---

# {heading}

Drop a picture, click a class, and see which pixels the classifier relies on for it, by
[{repo_id}](https://huggingface.co/{repo_id}). Every map can be checked on the spot: the important pixels are removed,
or brought back, and the classifier is asked again.

A map ranks the pixels of one picture by how much one classifier relies on them for one class. It does not say whether
the classifier is right, and only the order within a map has a meaning.
"""

APP = '''"""The app of hf-explain with {repo_id}."""

import contextlib

with contextlib.suppress(ImportError):
    import spaces  # noqa: F401 (on ZeroGPU it has to come before torch)

from hf_explain.app.start import make, serve

demo = make(["{repo_id}"])

if __name__ == "__main__":
    serve(demo)
'''

REQUIREMENTS = """# gradio is not here: the Space brings the version that README.md names
hf-explain{extra}
"""


def space_files(repo_id: str, classifier: str, extra: str | None = None) -> dict[str, str]:
    """Name -> text.

    Args:
        repo_id: of the explainer.
        classifier: what a person calls the model that is explained.
        extra: of hf-explain, where that model comes with one.
    """
    title = f"Which pixels made {classifier} say that?"
    names = {"repo_id": repo_id, "title": json.dumps(title, ensure_ascii=False), "heading": in_markdown(title)}
    names["gradio"] = GRADIO
    return {
        "README.md": README.format(**names), "app.py": APP.format(**names),
        "requirements.txt": REQUIREMENTS.format(extra=f"[{extra}]" if extra else ""),
    }  # fmt: skip
