"""Methods of captum that switch regions of a picture off: feature ablation, LIME and KernelSHAP.

By default the regions are 8 x 8 cells. What is drawn is drawn per picture from the seed, so that neither the batch nor
what ran before changes a map.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ..modeling.classifier import Classifier
from ..modeling.errors import ExplainerError
from ..modeling.references import reference_image
from .batching import batches
from .forwards import forwards, scores_of
from .superpixels import read_regions


@torch.no_grad()
def feature_ablation(
    classifier: Classifier, pixel_values, targets=None, *, regions: int | str | torch.Tensor = "superpixels",
    reference: str | float | torch.Tensor = "black", batch_size: int = 32,
) -> torch.Tensor:  # fmt: skip
    """How far the class's probability falls when a region is removed.

    >>> from hf_explain.data.small_classifiers import random_classifier
    >>> feature_ablation(random_classifier(), torch.rand(2, 3, 32, 32), regions=4).shape
    torch.Size([2, 32, 32])

    Args:
        regions: "superpixels", cells per side, or the number of each pixel's region.
        reference: what the removed pixels become.
    """
    from captum.attr import FeatureAblation  # not when hf_explain is imported

    labels, maps = label_pictures(classifier, pixel_values, regions), []
    with forwards("feature_ablation", sum(int(one.max()) + 2 for one in labels)) as done:
        method = FeatureAblation(scores_of(classifier, done))
        for x, t, label, blank in one_by_one(classifier, pixel_values, targets, labels, reference, batch_size):
            found = method.attribute(
                x, baselines=blank, target=t, feature_mask=label[None].expand(1, 3, -1, -1),
                perturbations_per_eval=batch_size,
            )  # fmt: skip
            maps.append(found.float().mean(1))
    return torch.cat(maps)


def lime(
    classifier: Classifier, pixel_values, targets=None, *, samples: int = 256,
    regions: int | str | torch.Tensor = 8, reference: str | float | torch.Tensor = "black", seed: int = 0,
    batch_size: int = 32,
) -> torch.Tensor:  # fmt: skip
    """LIME (arXiv 1602.04938): a ridge regression of the class's probability on which regions are there.

    >>> from hf_explain.data.small_classifiers import random_classifier
    >>> lime(random_classifier(), torch.rand(2, 3, 32, 32), regions=2, samples=8).shape
    torch.Size([2, 32, 32])

    Args:
        samples: forwards per picture, with a random half of the regions removed; near ones weigh more.
    """
    from captum.attr import Lime

    return surrogate(
        "lime", lambda score: Lime(score, interpretable_model=Ridge(penalty=1.0)), classifier, pixel_values, targets,
        samples, regions, reference, seed, batch_size,
    )  # fmt: skip


def kernel_shap(
    classifier: Classifier, pixel_values, targets=None, *, samples: int = 256,
    regions: int | str | torch.Tensor = 8, reference: str | float | torch.Tensor = "black", seed: int = 0,
    batch_size: int = 32,
) -> torch.Tensor:  # fmt: skip
    """KernelSHAP (arXiv 1705.07874): Shapley values of the regions, by a weighed regression on random coalitions.

    >>> from hf_explain.data.small_classifiers import random_classifier
    >>> kernel_shap(random_classifier(), torch.rand(2, 3, 32, 32), regions=2, samples=8).shape
    torch.Size([2, 32, 32])

    Args:
        samples: forwards per picture.
    """
    from captum.attr import KernelShap

    def make(score):
        method = KernelShap(score)
        method.interpretable_model = Ridge(penalty=1e-6)  # captum's own needs scikit-learn
        return method

    return surrogate(
        "kernel_shap", make, classifier, pixel_values, targets, samples, regions, reference, seed, batch_size
    )


@torch.no_grad()
def surrogate(
    name: str, make, classifier, pixel_values, targets, samples: int, regions, reference, seed: int, batch_size: int
):
    if samples < 2:
        raise ExplainerError(f"samples={samples}; give at least 2 forwards per picture.")
    labels, maps = label_pictures(classifier, pixel_values, regions), []
    with forwards(name, samples * len(pixel_values)) as done:
        method = make(scores_of(classifier, done))
        for x, t, label, blank in one_by_one(classifier, pixel_values, targets, labels, reference, batch_size):
            with seeded(seed, x.device):
                found = method.attribute(
                    x, baselines=blank, target=t, feature_mask=label[None].expand(1, 3, -1, -1), n_samples=samples,
                    perturbations_per_eval=batch_size, return_input_shape=True,
                )  # fmt: skip
            maps.append(found.float().mean(1))
    return torch.cat(maps)


def label_pictures(classifier, pixel_values, regions) -> list[torch.Tensor]:
    """The region of each pixel (H, W), numbered without gaps, of each picture."""
    labels = read_regions(regions, pixel_values, classifier.pixel_space).to(classifier.device)
    return [torch.unique(one, return_inverse=True)[1] for one in labels]


def one_by_one(classifier, pixel_values, targets, labels, reference, batch_size: int) -> Iterator[tuple]:
    """(picture (1, 3, H, W), class, its regions (H, W), its reference)."""
    left = iter(labels)
    for x, t in batches(classifier, pixel_values, targets, batch_size):
        blank = reference_image(x, classifier.pixel_space, reference).expand_as(x)
        for i in range(len(x)):
            yield x[i : i + 1], int(t[i]), next(left), blank[i : i + 1]


@contextmanager
def seeded(seed: int, device: torch.device):
    """captum draws from the global generators: they begin at the seed inside, and go on as if nothing was after."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield


class Ridge:
    """Weighed linear regression with an intercept, in closed form; what captum asks of an interpretable model."""

    def __init__(self, penalty: float):
        self.penalty, self.coefficients = penalty, torch.zeros(0)

    def fit(self, train_data, **kwargs) -> dict:
        x, y, w = (torch.cat(parts).double() for parts in zip(*train_data, strict=True))
        w = w.flatten() / w.sum()
        x, y = x.flatten(1), y.flatten()
        x = x - (w @ x)
        y = y - (w @ y)
        normal = x.T @ (w[:, None] * x)
        # a penalty of 1 as of scikit-learn's Ridge, whose weights are not divided by their sum
        eye = torch.eye(len(normal), dtype=normal.dtype, device=normal.device)
        self.coefficients = torch.linalg.solve(normal + self.penalty / len(y) * eye, x.T @ (w * y))
        return {}

    def representation(self) -> torch.Tensor:
        return self.coefficients.float()[None]

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return x.double().flatten(1) @ self.coefficients
