"""Writes the tiny checkpoints of this version, which every later version must load: run once per release.

PYTHONPATH=.:tests python tests/checkpoints/make.py
"""

from pathlib import Path

import torch
from families import build, pictures, processor
from safetensors.torch import save_file

import hf_explain

Ranking, Ltx, DiffMask = (
    getattr(hf_explain, f"{kind}ExplainerForImageClassification") for kind in ("Ranking", "Ltx", "DiffMask")
)
# By folder: the class, the classifier, and what the explainer is made with. A hybrid's maps hold gradients, which
# rounding on other machines moves less where no activation has a kink.
KINDS = {
    "ranking": (Ranking, "resnet", {"preset": "tiny", "hidden_size": 8}),
    "hybrid": (Ranking, "vit", {"preset": "tiny", "hidden_size": 8, "hybrid": True}),
    "ltx": (Ltx, "vit", {}),
    "diffmask": (DiffMask, "vit", {"gate_start": 1.0}),
}
TARGETS = torch.tensor([[0, 3], [4, 1]])


def targets_of(explainer) -> torch.Tensor | None:
    """Two classes of each picture, or its prediction where nothing else is explained."""
    return TARGETS if explainer.config.class_conditional else None


def make(folder: Path, kind, family: str, options: dict) -> None:
    explainer = kind.from_classifier(build(family), processor(64), **options)
    if kind is Ltx:  # before training masks are one half everywhere, and classes alike
        for weight in (explainer.head.score.weight, explainer.head.classes.weight):
            torch.nn.init.normal_(weight, generator=torch.Generator().manual_seed(0))
    explainer.save_pretrained(folder, include_classifier=True)
    for code in folder.glob("*.py"):  # the library under test is what must read it
        code.unlink()
    x = pictures(2)
    with torch.no_grad():
        output = explainer(x, targets=targets_of(explainer))
    expected = {"pixel_values": x, "attributions": output.attributions, "logits": output.logits}
    save_file({k: v.contiguous() for k, v in expected.items()}, folder / "expected.safetensors")
    print(folder)


if __name__ == "__main__":
    torch.set_num_threads(1)
    for name, (kind, family, options) in KINDS.items():
        folder = Path(__file__).parent / hf_explain.__version__ / name
        if not folder.exists():  # what was released stays as it is
            make(folder, kind, family, options)
