"""Writes the tiny checkpoints of this version, which every later version must load: run once per release.

PYTHONPATH=.:tests python tests/checkpoints/make.py
"""

from pathlib import Path

import torch
from families import build, pictures, processor
from safetensors.torch import save_file

import hf_explain

# By folder: the classifier, and what its explainer is made with. A hybrid's maps hold gradients, which rounding on
# other machines moves less where no activation has a kink.
KINDS = {"ranking": ("resnet", {}), "hybrid": ("vit", {"hybrid": True})}


def make(folder: Path, family: str, options: dict) -> None:
    explainer = hf_explain.RankingExplainerForImageClassification.from_classifier(
        build(family), processor(64), preset="tiny", hidden_size=8, **options
    )
    explainer.save_pretrained(folder, include_classifier=True)
    for code in folder.glob("*.py"):  # the library under test is what must read it
        code.unlink()
    x = pictures(2)
    with torch.no_grad():
        output = explainer(x, targets=torch.tensor([[0, 3], [4, 1]]))
    expected = {"pixel_values": x, "attributions": output.attributions, "logits": output.logits}
    save_file({k: v.contiguous() for k, v in expected.items()}, folder / "expected.safetensors")
    print(folder)


if __name__ == "__main__":
    torch.set_num_threads(1)
    for name, (family, options) in KINDS.items():
        folder = Path(__file__).parent / hf_explain.__version__ / name
        if not folder.exists():  # what was released stays as it is
            make(folder, family, options)
