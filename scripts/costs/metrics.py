"""What the metrics cost beside the bare forwards and beside other libraries, on the same model, pictures and maps.

The others are installed in an environment of their own (tests/support/fixtures/make_peers.py has the commands); those
that are not there are left out, and the line `peers` says which were.
"""

import statistics
import warnings
from contextlib import nullcontext
from functools import partial
from importlib import import_module, metadata

import torch
from costs.measuring import alternate, milliseconds
from transformers import ViTConfig, ViTForImageClassification

from hf_explain import Classifier
from hf_explain.faithfulness import measure
from hf_explain.faithfulness.road import road
from hf_explain.faithfulness.robustness import infidelity
from hf_explain.modeling.pixel_space import PixelSpace

TINY = {"hidden_size": 192, "num_hidden_layers": 12, "num_attention_heads": 3, "intermediate_size": 768}  # ViT-Ti/16
PERCENTILES = (10, 20, 30, 40, 50, 60, 70, 80, 90)


class Case:
    """The model, the pictures, the maps and the classes of every measurement."""

    def __init__(self, arguments):
        torch.manual_seed(0)
        self.steps, self.batch_size = arguments.steps, arguments.batch_size
        self.device = torch.device(arguments.device)
        model = ViTForImageClassification(ViTConfig(num_labels=10, **TINY)).eval().to(self.device)
        self.x = torch.randn(arguments.pictures, 3, 224, 224, device=self.device)
        self.maps = torch.rand(arguments.pictures, 224, 224, device=self.device)
        self.classifier = Classifier(model).freeze()
        self.classifier.pixel_space = PixelSpace()
        self.model = Logits(model).eval()
        with torch.no_grad():
            self.y = self.model(self.x).argmax(-1)
        self.numpy = [t.cpu().numpy() for t in (self.x, self.y, self.maps)]


class Logits(torch.nn.Module):
    """What the other libraries take: a module that returns a tensor."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        return self.model(pixel_values=x).logits


def metrics(arguments):
    """Deletion and insertion, PixelFlipping, infidelity and ROAD: ours, the bare forwards, and every peer there is."""
    case = Case(arguments)
    peers = {name: version(name) for name in ("torchcam", "xplique", "quantus", "captum", "grad-cam")}
    yield {"peers": peers, "pictures": len(case.x), "steps": case.steps, "size": 224, "model": "ViT-Ti/16"}
    for name, make in (
        ("deletion and insertion", curves), ("deletion", deletions), ("pixel flipping", flipping),
        ("infidelity", infidelities), ("road", roads),
    ):  # fmt: skip
        yield compare(name, make(case), arguments, case.device)


def version(name):
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def compare(name, calls, arguments, device):
    """Values of every call, and medians of the ratio of ours to each, run by run."""
    values = {key: call() for key, call in calls.items()}
    times = alternate(calls, arguments.runs, device, warm_up=1)

    def ratio(other):
        pairs = zip(times["ours"], times[other], strict=True)
        return round(statistics.median(a / b for a, b in pairs), 3)

    return {
        "metric": name,
        "batch_size": arguments.batch_size,
        "values": {key: value for key, value in values.items() if value is not None},
        **milliseconds(times),
        "ours_over": {other: ratio(other) for other in times if other != "ours"},
        "runs": arguments.runs,
    }


@torch.no_grad()
def forwards(case, count):
    """The bare forwards of `count` pictures, with the probabilities."""
    batch = case.x.repeat(-(-case.batch_size // len(case.x)), 1, 1, 1)
    for first in range(0, count, case.batch_size):
        case.model(batch[: min(case.batch_size, count - first)]).softmax(-1)


def curves(case):
    changes = {"budgets": case.steps + 1, "batch_size": case.batch_size}

    def ours():
        report = measure(case.classifier, case.x, case.maps, case.y, "xplique", **changes).mean()
        return {key: round(value, 7) for key, value in report.items()}

    needed = len(case.x) * (1 + 2 * (case.steps - 1)) + 1
    calls = {"ours": ours, "bare forwards": partial(forwards, case, needed)}
    if version("torchcam"):
        for batch_size in sorted({case.batch_size, 32}):
            calls[f"torch-cam, batch {batch_size}"] = torch_cam(case, batch_size)
    if version("xplique"):
        calls["xplique"] = xplique(case, ("Deletion", "Insertion"))
    return calls


def deletions(case):
    def ours():
        changes = {"budgets": case.steps + 1, "batch_size": case.batch_size}
        report = measure(case.classifier, case.x, case.maps, case.y, DELETION, **changes)
        return {"deletion": round(report.mean()["deletion"], 7)}

    calls = {"ours": ours, "bare forwards": partial(forwards, case, len(case.x) * case.steps + 1)}
    calls["rise, retyped"] = partial(rise, case)
    if version("xplique"):
        calls["xplique"] = xplique(case, ("Deletion",))
    return calls


def only_deletion():
    from dataclasses import replace

    from hf_explain.faithfulness import PRESETS

    return replace(PRESETS["xplique"], curves=PRESETS["xplique"].curves[:1])


DELETION = only_deletion()


@torch.no_grad()
def rise(case):
    """RISE's loop as its protocol says: pixels are zeroed in place, step by step, and every forward is read back."""
    pixels = case.x[0, 0].numel()
    order = case.maps.flatten(1).argsort(1, descending=True)
    current, scores = case.x.clone(), []
    step = pixels // case.steps
    for i in range(case.steps + 1):
        out = [case.model(c).softmax(-1) for c in current.split(case.batch_size)]
        scores.append(torch.cat(out).gather(1, case.y[:, None])[:, 0].cpu())
        index = order[:, None, i * step : (i + 1) * step].expand(-1, 3, -1)
        current.flatten(2).scatter_(2, index, 0.0)
    curve = torch.stack(scores, 1)
    area = (curve.sum(1) - curve[:, 0] / 2 - curve[:, -1] / 2) / case.steps
    return {"deletion": round(float(area.mean()), 7)}


def torch_cam(case, batch_size):
    metric_class = import_module("torchcam.metrics").DeletionInsertionMetric

    class Fixed:
        """Any map, in the form of one of its extractors."""

        model = case.model

        def __call__(self, *_, **__):
            return [case.maps]

        def fuse_cams(self, cams):
            return cams[0]

        def _hooks_off(self):
            return nullcontext()

    def call():
        metric = metric_class(
            Fixed(), partial(torch.softmax, dim=-1), steps=case.steps, batch_size=batch_size
        )  # fmt: skip
        metric.update(case.x, case.y.tolist())
        return {key: round(float(value), 7) for key, value in metric.summary().items()}

    return call


def xplique(case, names):
    import numpy

    module, wrappers = import_module("xplique.metrics"), import_module("xplique.wrappers")
    x, y, maps = case.numpy
    wrapped = wrappers.TorchWrapper(case.model, str(case.device), is_channel_first=True, requires_grad=False)

    def call():
        found = {}
        for name in names:
            made = getattr(module, name)(
                wrapped, x.transpose(0, 2, 3, 1), numpy.eye(10, dtype="float32")[y], batch_size=case.batch_size,
                steps=case.steps, activation="softmax",
            )  # fmt: skip
            found[name.lower()] = round(float(made.evaluate(maps)), 7)
        return found

    return call


def flipping(case):
    # Quantus wants a divisor of the number of pixels, so a pixel's three entries may be torn apart where a step ends,
    # in whatever order: the values agree but for that (tests/faithfulness/test_peers.py has a case without it).
    step = case.x[0, 0].numel() // 4
    classes = case.y

    def ours():
        report = measure(
            case.classifier, case.x, case.maps, classes, "quantus", step=step, batch_size=case.batch_size,
            reference="zero",
        )  # fmt: skip
        return {"deletion": round(report.mean()["deletion"], 6)}

    calls = {"ours": ours, "bare forwards": partial(forwards, case, len(case.x) * 11 + 1)}
    if version("quantus"):
        quantus = import_module("quantus")
        x, y, maps = case.numpy

        def call():
            metric = quantus.PixelFlipping(
                features_in_step=step,
                perturb_baseline=0.0,
                normalise=False,
                disable_warnings=True,
                display_progressbar=False,
            )
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                scores = metric(
                    model=case.model, x_batch=x, y_batch=y, a_batch=maps[:, None], device=str(case.device),
                    batch_size=case.batch_size,
                )  # fmt: skip
            scores = torch.as_tensor(scores)
            return {"deletion": round(float(torch.trapezoid(scores, dim=1).mean()), 6)}

        calls["quantus"] = call
    return calls


def infidelities(case):
    draws, deviation = 10, 0.1

    def ours():
        found = infidelity(
            case.classifier, case.x, case.maps, case.y, draws=draws, deviation=deviation, batch_size=case.batch_size
        )
        return {"infidelity": round(float(found.mean()), 3)}

    calls = {"ours": ours, "bare forwards": partial(forwards, case, len(case.x) * (1 + draws))}
    if version("captum"):
        theirs = import_module("captum.metrics").infidelity
        noise = deviation * torch.randn(draws, *case.x.shape[1:], generator=torch.Generator().manual_seed(0))

        def perturb(pixels):  # captum hands over every picture `draws` times
            drawn = noise.to(pixels).repeat(len(pixels) // draws, 1, 1, 1)
            return drawn, pixels - drawn

        def call():
            with torch.no_grad():
                found = theirs(
                    case.model, perturb, case.x, case.maps[:, None].expand_as(case.x), target=case.y,
                    n_perturb_samples=draws,
                )  # fmt: skip
            return {"infidelity": round(float(found.mean()), 3)}

        calls["captum"] = call
    return calls


def roads(case):
    def ours():
        found = road(
            case.classifier, case.x, case.maps, case.y, percentiles=PERCENTILES, score="probability",
            batch_size=case.batch_size,
        )  # fmt: skip
        return {"combined": round(float(found.combined.mean()), 5)}

    calls = {"ours": ours, "bare forwards": partial(forwards, case, len(case.x) * (1 + 2 * len(PERCENTILES)))}
    if version("grad-cam"):
        metrics_of = import_module("pytorch_grad_cam.metrics.road")
        target = import_module("pytorch_grad_cam.utils.model_targets").ClassifierOutputSoftmaxTarget
        maps = case.numpy[2]

        def call():
            metric = metrics_of.ROADCombined(list(PERCENTILES))
            return {
                "combined": round(float(metric(case.x, maps, [target(int(c)) for c in case.y], case.model).mean()), 5)
            }

        calls["grad-cam"] = call
    return calls
