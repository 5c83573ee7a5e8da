"""The sheet of docs/localization.md: maps of a small classifier on grids of the embedded pictures, best to worst.

python scripts/aggatt.py                                  # trains a small ResNet first, about a minute on two cores
python scripts/aggatt.py --classifier DIR --kind difull   # of a classifier that hf-explain demo has trained
"""

import argparse
from functools import cache, partial
from pathlib import Path

import PIL.Image
import torch
import transformers

from hf_explain import Classifier
from hf_explain.data.scenes import draw_scenes, to_pixels
from hf_explain.data.small_classifiers import RECIPES, build_classifier, train_classifier
from hf_explain.localization.aggatt import aggatt_sheet
from hf_explain.localization.aggregation import aggregate
from hf_explain.localization.grids import confident_pictures, explain_grids, make_grids
from hf_explain.reports.lettering import save

SHOWN = (  # method, layer, side of the Gaussian
    ("input_x_gradient", "input", None),
    ("integrated_gradients", "input", None),
    ("integrated_gradients", "input", 37),  # 0.29 of the grid's side
    ("grad_cam", "final", None),
)


def trained(backbone: str, seed: int) -> Classifier:
    processor = transformers.ViTImageProcessorPil(size={"height": 64, "width": 64})
    classifier = Classifier(build_classifier(backbone, seed=seed), processor)
    images, labels, _ = draw_scenes(8000, seed=0)
    pixels, labels = to_pixels(classifier, images), torch.as_tensor(labels)
    train_classifier(classifier.model, pixels, labels, classifier.pixel_space, recipe=RECIPES[backbone], seed=seed)
    return classifier.freeze()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--classifier", help="folder; by default a small one is trained")
    parser.add_argument("--backbone", default="resnet", choices=RECIPES)
    parser.add_argument("--kind", default="gridpg", choices=("gridpg", "difull", "dipart"))
    parser.add_argument("--grids", type=int, default=100)
    parser.add_argument("--pictures", type=int, default=700, help="of which those that the classifier is sure of count")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", default=Path(__file__).parents[1] / "docs/pictures/aggatt.jpg")
    arguments = parser.parse_args()

    classifier = (
        Classifier.from_pretrained(arguments.classifier)
        if arguments.classifier
        else trained(arguments.backbone, arguments.seed)
    )
    images, labels, _ = draw_scenes(arguments.pictures, seed=10_000)
    pixels = to_pixels(classifier, images)
    sure = confident_pictures(classifier, pixels, labels, needed=4 * arguments.grids, batch_size=128)
    print(f"{len(sure.indices)} of {len(images)} pictures are right with a probability of {sure.threshold} or more")
    chosen = sure.indices
    grids = make_grids(pixels[chosen], sure.classes, arguments.grids, kind=arguments.kind, seed=arguments.seed)
    rgb = (255 * classifier.pixel_space.to_rgb(grids.pictures())).clamp(0, 255).round().byte().permute(0, 2, 3, 1)
    corner, rows = grids.scored[0], []
    explain = cache(partial(explain_grids, classifier, grids, cells=(corner,), batch_size=100))
    for method, layer, smooth in SHOWN:
        found = aggregate(explain(method, layer), corner, grids.n, grids.size, smooth=smooth)
        name = f"{method.replace('_', ' ')}, {layer}" + (f", smoothed {smooth}" if smooth else "")
        print(f"{name}: mean L {found.score:.3f}, {found.empty} of {found.count} maps without mass")
        rows.append((name, found))
    title = f"{arguments.kind}, {arguments.backbone}: maps of the top left cell's class, best to worst"
    pictures = [PIL.Image.fromarray(one.numpy()) for one in rgb]
    print(save(aggatt_sheet(rows, pictures, corner, grids.n, title), arguments.output))


if __name__ == "__main__":
    main()
