"""What a training step costs over the bare classifier, in which parts, and what the ranking operators cost."""

import itertools
import statistics
from contextlib import nullcontext
from functools import partial

import torch
from costs.measuring import alternate, milliseconds, peak_bytes
from transformers import (
    ResNetConfig,
    ResNetForImageClassification,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessorPil,
)

from hf_explain import RankingExplainerForImageClassification
from hf_explain.modeling.packing import fastest_batch
from hf_explain.modeling.ranking import draw_gumbel, gumbel_sinkhorn, soft_topk
from hf_explain.training.draws import Draws, draw_blank, draw_budgets, draw_grid, draw_reference
from hf_explain.training.objectives import find_objective, ranking_loss, soft_masks

TINY_VIT = {"patch_size": 8, "hidden_size": 96, "num_hidden_layers": 6, "num_attention_heads": 4}
TINY_RESNET = {"embedding_size": 24, "hidden_sizes": [24, 48, 72, 96], "depths": [2, 2, 2, 2], "layer_type": "basic"}
TINY = {  # of the size that learns the scenes
    "vit": lambda size: ViTForImageClassification(
        ViTConfig(image_size=size, intermediate_size=384, num_labels=8, **TINY_VIT)
    ),
    "resnet": lambda size: ResNetForImageClassification(ResNetConfig(num_labels=8, **TINY_RESNET)),
}


def training(arguments):
    """Steps of `ranking_loss`, then its two operators by themselves."""
    device, size = torch.device(arguments.device), arguments.size
    for preset in arguments.presets:
        name = f"{arguments.backbone}, {size} px"
        make = partial(TINY[arguments.backbone], size)
        yield step(arguments, device, name, make, size, preset, "topk", size, limit=0.3)
        yield step(arguments, device, name, make, size, preset, "topk", size, limit=0.3, sampled=2)
        for grid in (8, 14, 28):
            if grid <= min(size, arguments.largest_grid):
                limit = 0.3 if grid == 8 else None
                yield step(arguments, device, name, make, size, preset, "sinkhorn", grid, limit)
    if device.type == "cuda":
        for operator, grid in (("sinkhorn", 28), ("topk", 224)):
            limit = 0.1 if operator == "sinkhorn" else None
            make = partial(ViTForImageClassification, ViTConfig(num_labels=1000))  # its defaults are ViT-B/16
            yield step(arguments, device, "ViT-B/16", make, 224, "small", operator, grid, limit, torch.bfloat16)
    yield from operators(arguments, device)


class Step:
    """An optimizer step as `train` does it, and its parts, each by itself: methods without arguments, to be timed."""

    def __init__(self, make, size, preset, objective, count, device, autocast, **head):
        torch.manual_seed(0)
        processor = ViTImageProcessorPil(size={"height": size, "width": size})
        explainer = RankingExplainerForImageClassification.from_classifier(make(), processor, preset=preset, **head)
        self.explainer, self.objective, self.autocast = explainer.to(device).train(), objective, autocast
        self.grid, self.tau = (
            objective.grids[0] if objective.coarse else size,
            sum(objective.tau) / 2,
        )  # half way through a run
        self.optimizer = torch.optim.AdamW(explainer.head.parameters())
        self.pixel_values = torch.randn(count, 3, size, size, device=device)
        self.steps, self.blanks = (
            itertools.count(),
            itertools.count(),
        )  # the same references in both
        self.perturbed = last_input(explainer.classifier.model, self.train)
        fastest = fastest_batch(explainer.classifier.model, self.pixel_values, gradient=True)
        self.pack = fastest or len(self.perturbed)
        with torch.no_grad(), self.lower():
            self.maps = [m.float() for m in explainer.read(self.pixel_values)[1]]
        self.targets = torch.zeros(count, 1, dtype=torch.long, device=device)
        self.attributions = explainer.attribute(self.pixel_values, self.maps, self.targets)[:, 0].detach()
        cells = self.grid**2
        self.scores = torch.randn(count, cells, device=device)
        square = (count, cells, cells)
        self.gumbel = 0.1 * torch.randn(square, device=device) if objective.operator == "sinkhorn" else None
        self.shares = draw_budgets(self.attributions, Draws(0), objective.sampled, objective.budgets)[0]

    def lower(self):
        return torch.autocast(self.pixel_values.device.type, self.autocast) if self.autocast else nullcontext()

    def train(self):
        draws = Draws(0, next(self.steps))
        loss, _ = ranking_loss(self.explainer, self.pixel_values, draws, 0.5, self.objective, self.autocast)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()

    def bare(self):
        """Forward and backward of the classifier on the pictures that the step perturbs, in packs as fast as any."""
        classifier = self.explainer.classifier
        for pictures in self.perturbed.split(self.pack):
            pictures = pictures.clone().requires_grad_()
            with self.lower():
                probabilities = classifier.scores(classifier(pictures))
            torch.autograd.grad(probabilities[:, 0].sum(), pictures)

    @torch.no_grad()
    def read(self):
        with self.lower():
            self.explainer.read(self.pixel_values)

    @torch.no_grad()
    def blank(self):
        draws, classifier = Draws(0, next(self.blanks)), self.explainer.classifier
        shared = draws.shared()
        draw_grid(self.objective.grids, self.objective.coarse, self.pixel_values.shape[2:], shared)
        reference = draw_reference(self.objective.references, shared)
        with self.lower():
            classifier(draw_blank(classifier, self.pixel_values, reference, draws))

    def head(self):
        """Forward and backward."""
        self.explainer.attribute(self.pixel_values, self.maps, self.targets).sum().backward()

    def masks(self):
        """Noise, ranking and upsampling."""
        made = partial(soft_masks, objective=self.objective, draws=Draws(0))
        backward(lambda a: made(a, self.shares, self.grid, self.tau)[0], self.attributions)

    def operator(self):
        """The ranking alone, which is within `masks`."""
        backward(self.rank, self.scores)

    def rank(self, scores):
        budgets = self.shares * scores.shape[1]
        if self.gumbel is None:
            return soft_topk(scores, budgets, self.tau)
        return gumbel_sinkhorn(scores, self.tau, noise=self.gumbel).masks(budgets)


def step(arguments, device, name, make, size, preset, operator, grid, limit=None, autocast=None, sampled=0):
    """One optimizer step over the bare classifier, then its parts; `rest` is blending, the loss and the optimizer.

    With even budgets, or with `sampled` ones: then fewer pictures are perturbed, and the head is a larger part.
    """
    objective = find_objective("default", operator=operator, grids=(grid, grid), sampled=sampled)
    one = Step(make, size, preset, objective, arguments.batch_size, device, autocast)
    parts = {name: getattr(one, name) for name in ("read", "blank", "head", "masks", "operator")}
    if sampled:  # the ends of sampled curves need no forward
        parts.pop("blank")
    times = alternate({"step": one.train, "bare": one.bare} | parts, arguments.runs, device)
    median = {key: statistics.median(values) for key, values in times.items()}
    rest = median["step"] - sum(v for key, v in median.items() if key not in ("step", "operator"))
    overhead = median["step"] / median["bare"] - 1
    row = {
        "classifier": name,
        "preset": preset,
        "operator": operator,
        "grid": grid,
        "sampled": sampled,
        "batch_size": arguments.batch_size,
        "perturbed": len(one.perturbed),
        "autocast": str(autocast).removeprefix("torch.") if autocast else None,
        **milliseconds(times),
        "rest_ms": round(1000 * rest, 2),
        "overhead": round(overhead, 3),
        "head_share": round(median["head"] / median["step"], 3),
        "operator_share": round(median["operator"] / median["step"], 3),
        "step_peak_mb": round(peak_bytes(one.train, device) / 1e6, 1),
        "bare_peak_mb": round(peak_bytes(one.bare, device) / 1e6, 1),
        "runs": arguments.runs,
    }
    return row if limit is None else row | {"limit": limit, "holds": overhead <= limit}


def last_input(model, call):
    """The pictures of the last forward of `model` in `call`, detached."""
    seen = []

    def remember(module, args, kwargs):
        seen[:] = [(args[0] if args else kwargs["pixel_values"]).detach()]

    handle = model.register_forward_pre_hook(remember, with_kwargs=True)
    try:
        call()
    finally:
        handle.remove()
    return seen[0]


def backward(function, x):
    x = x.detach().requires_grad_()
    result = function(x)
    torch.autograd.grad(result, x, torch.ones_like(result))


# ---- the operators ----


def operators(arguments, device, tau=1.0, inner=6):
    """Forward and backward of the rankings of one picture; memory with the scores' gradient, in N x N floats."""
    budget = arguments.memory_limit * 1e9
    for count in (64, 196, 784, 3136, 50176):
        if count > arguments.largest_grid**2 and count != 50176:
            continue
        generator = torch.Generator(device).manual_seed(0)
        scores = torch.randn(1, count, generator=generator, device=device)
        budgets = torch.linspace(0, count, inner + 2, device=device)[1:-1]
        calls = {
            # Matrices that are alive at the peak, roughly: two per iteration, or a handful.
            "unrolled": (65, lambda s: unrolled_sinkhorn(s, tau, generator)),  # noqa: B023
            "gumbel_sinkhorn": (8, lambda s: gumbel_sinkhorn(s, tau, generator=generator).permutation),  # noqa: B023
            "soft_topk": (0, lambda s: soft_topk(s, budgets, tau)),  # noqa: B023
        }
        calls = {name: (need * 4 * count**2, partial(backward, call, scores)) for name, (need, call) in calls.items()}
        fits = {name: call for name, (need, call) in calls.items() if need <= budget}
        times = alternate(fits, arguments.runs, device, warm_up=1)
        for name, (need, call) in calls.items():
            row = {"operator": name, "N": count, "runs": arguments.runs}
            if name not in fits:
                reason = f"needs about {need / 1e9:.1f} GB; --memory_limit is {arguments.memory_limit:g}"
                yield row | {"skipped": reason}
                continue
            peak = peak_bytes(call, device)
            measured = {"ms": round(1000 * statistics.median(times[name]), 3), "peak_mb": round(peak / 1e6, 2)}
            yield row | measured | {"peak_in_matrices": round(peak / (4 * count**2), 3)}


def unrolled_sinkhorn(scores, tau, generator, iterations=30):
    """Gumbel-Sinkhorn as one would write it: autograd keeps every iteration."""
    count = scores.shape[1]
    anchors = torch.linspace(1, 0, count, device=scores.device)
    logits = -((scores[:, None, :] - anchors[None, :, None]) ** 2)
    logits = (logits + draw_gumbel((1, count, count), generator, scores)) / tau
    for _ in range(iterations):
        logits = logits - logits.logsumexp(1, keepdim=True)
        logits = logits - logits.logsumexp(2, keepdim=True)
    return logits.exp()
