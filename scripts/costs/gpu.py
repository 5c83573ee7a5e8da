"""Everything that is to be known of a GPU, in one run of minutes: explanations, training steps, operators, metrics."""

import json
import time
from functools import partial
from pathlib import Path

import torch
import transformers as T
from costs.measuring import alternate, milliseconds, peak_bytes
from costs.real import CLASSIFIERS, LEVERS, Pulled, paired
from costs.training import Step, backward

from hf_explain import Classifier, RankingExplainerForImageClassification
from hf_explain.faithfulness import measure
from hf_explain.modeling.preparing import prepared
from hf_explain.modeling.ranking import gumbel_sinkhorn, soft_topk
from hf_explain.training.objectives import find_objective

MODES = ("fp32", "bf16", "bf16, compiled")
GOAL = 1.10  # of explanation and training step over the bare classifier
TINY = {
    "Lite0": lambda: T.EfficientNetForImageClassification(
        T.EfficientNetConfig(image_size=64, width_coefficient=0.25, depth_coefficient=0.1, hidden_dim=320, num_labels=8)
    ),
    "ViT-B/16": lambda: T.ViTForImageClassification(
        T.ViTConfig(image_size=64, hidden_size=24, num_hidden_layers=2, num_attention_heads=2, num_labels=8)
    ),
    "ConvNeXt-T": lambda: T.ConvNextForImageClassification(
        T.ConvNextConfig(hidden_sizes=[8, 8, 8, 8], depths=[1, 1, 1, 1], num_labels=8)
    ),
    "ResNet-50": lambda: T.ResNetForImageClassification(
        T.ResNetConfig(embedding_size=8, hidden_sizes=[8, 8, 8, 8], depths=[1, 1, 1, 1], num_labels=8)
    ),
}


def gpu(arguments):
    """Rows as they are measured, also written to `--output_dir`; what no time is left for says so."""
    if not (arguments.dry_run or torch.cuda.is_available()):
        raise SystemExit("there is no GPU here, so nothing was measured; --dry_run tries the script on the CPU.")
    if arguments.dry_run and not arguments.output_dir:
        raise SystemExit("a dry run measures nothing that is to be kept; give it an --output_dir of its own.")
    began, rows = time.monotonic(), []
    for label, work in jobs(arguments, torch.device("cpu" if arguments.dry_run else "cuda")):
        if time.monotonic() - began > arguments.minutes * 60:
            rows.append(label | {"skipped": f"after {arguments.minutes:g} minutes"})
        else:
            try:
                rows.append(label | work())
            except Exception as error:  # of one mode on one network; the others are still worth knowing
                rows.append(label | {"failed": f"{type(error).__name__}: {str(error).splitlines()[0][:200]}"})
        yield rows[-1]
    write(arguments, rows)


def jobs(arguments, device):
    tiny, size = arguments.dry_run, 64 if arguments.dry_run else 224
    for name in arguments.classifiers:
        preset, make = ("tiny", TINY[name]) if tiny else CLASSIFIERS[name]
        for mode in arguments.modes:
            label = {"classifier": name, "preset": preset, "size": size, "mode": mode}
            of = partial(explanation, make, preset, size, mode, device, 2 if tiny else 64, arguments.runs)
            yield label | {"what": "explanation"}, of
            of = partial(step, make, preset, size, mode, device, 2 if tiny else 32, arguments.runs)
            yield label | {"what": "step"}, of
    for count in (64, 196) if tiny else (196, 784, 3136):
        yield {"what": "gumbel_sinkhorn", "N": count}, partial(operator, "sinkhorn", count, device, arguments.runs)
    yield {"what": "soft_topk", "N": size**2}, partial(operator, "topk", size**2, device, arguments.runs)
    for preset in ("aha", "rise"):
        make = TINY["ResNet-50"] if tiny else CLASSIFIERS["ResNet-50"][1]
        yield {"what": "measure", "metric": preset}, partial(metrics, make, preset, size, device, arguments.runs)


def lower(mode, device):
    return torch.autocast(device.type, torch.bfloat16, enabled=mode != "fp32")


def compile_(model, pixel_values):
    """What is called in its place; a dry run goes through the motions only."""
    prepared(model, pixel_values)[0].compile(backend="inductor" if pixel_values.is_cuda else "eager")


def make_explainer(make, preset, size, mode, device, **head):
    torch.manual_seed(0)
    processor = T.ViTImageProcessorPil(size={"height": size, "width": size})
    of = RankingExplainerForImageClassification.from_classifier
    explainer = of(make().to(device), processor, preset=preset, **head)
    if "compiled" in mode:
        compile_(explainer.classifier.model, torch.zeros(1, 3, size, size, device=device))
    return explainer


@torch.no_grad()
def explanation(make, preset, size, mode, device, count, runs):
    """Over the prepared classifier; `before`: nothing is prepared, and the head is dense to the pixels."""
    x, before = torch.randn(count, 3, size, size, device=device), Pulled(())
    explainer = make_explainer(make, preset, size, mode, device)
    with before():
        dense = make_explainer(make, preset, size, "fp32", device, finest=1)

    def lowered(call):
        def run():
            with lower(mode, device):
                call()

        return run

    calls = {
        "classifier": lowered(partial(explainer.classifier, x)),
        "explanation": lowered(partial(explainer, x)),
        "before": before.around(lowered(partial(dense, x))),
    }
    times = alternate(calls, runs, device)
    ratios = paired(times["explanation"], times["classifier"])
    return {"pictures": count, **milliseconds(times), "over_bare": ratios, "holds": ratios[1] <= GOAL, "runs": runs}


def step(make, preset, size, mode, device, count, runs):
    """Over forward and backward of the prepared classifier on the same perturbed pictures."""
    objective = find_objective("default", coarse=0.0)
    dtype = None if mode == "fp32" else torch.bfloat16
    with Pulled(LEVERS)():
        one = Step(make, size, preset, objective, count, device, dtype)
        if "compiled" in mode:
            compile_(one.explainer.classifier.model, one.pixel_values)
        times = alternate({"step": one.train, "bare": one.bare}, runs, device)
        peaks = {
            "peak_mb": round(peak_bytes(one.train, device) / 1e6),
            "bare_mb": round(peak_bytes(one.bare, device) / 1e6),
        }
    ratios = paired(times["step"], times["bare"])
    row = {"pictures": count, "pack": one.pack, **milliseconds(times), "over_bare": ratios, "holds": ratios[1] <= GOAL}
    return row | peaks | {"runs": runs}


def operator(kind, count, device, runs, batch=16, tau=0.5):
    """Forward and backward of a batch of rankings."""
    random = torch.Generator(device).manual_seed(0)
    scores = torch.randn(batch, count, generator=random, device=device)
    budgets = torch.linspace(0, count, 8, device=device)[1:-1]
    ranked = {
        "sinkhorn": lambda s: gumbel_sinkhorn(s, tau, generator=random).permutation,
        "topk": lambda s: soft_topk(s, budgets, tau),
    }[kind]
    call = partial(backward, ranked, scores)
    times = alternate({kind: call}, runs, device)
    return {"batch": batch, "ms": milliseconds(times)[f"{kind}_ms"], "peak_mb": round(peak_bytes(call, device) / 1e6)}


def metrics(make, preset, size, device, runs, count=8):
    """Curves over the bare forwards that they take."""
    processor = T.ViTImageProcessorPil(size={"height": size, "width": size})
    classifier = Classifier(make().to(device), processor).freeze()
    x, maps = (torch.randn(shape, device=device) for shape in ((count, 3, size, size), (count, size, size)))
    seen = []
    handle = classifier.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0].detach().clone()))
    of = partial(measure, classifier, x, maps, preset=preset)
    of()
    handle.remove()

    @torch.no_grad()
    def bare():
        for pictures in seen:
            classifier(pictures)

    times = alternate({"measure": of, "bare": bare}, runs, device)
    forwards = sum(map(len, seen))
    return {"pictures": count, "forwards": forwards, **milliseconds(times), "over_bare": paired(*times.values())}


def write(arguments, rows):
    folder = Path(arguments.output_dir or "docs/results")
    folder.mkdir(parents=True, exist_ok=True)
    name = "a dry run on a CPU, with tiny models" if arguments.dry_run else torch.cuda.get_device_name()
    versions = f"torch {torch.__version__}, transformers {T.__version__}"
    (folder / "gpu.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    lines = [
        "# On a GPU\n",
        f"`python scripts/benchmark.py gpu`: {name}, {versions}. Medians of alternating runs; *over bare*: "
        "least, median and largest of paired ratios, to the prepared classifier's forward, or its forward and backward "
        f"on the pictures that a step perturbs. The goal is {GOAL}. Every line is in [gpu.jsonl](gpu.jsonl).\n",
        "| what | classifier | mode | pictures | ms | bare ms | over bare | |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        kind = row["what"]
        who = row.get("classifier") or row.get("metric") or f"N = {row['N']}"
        if note := row.get("skipped") or row.get("failed"):
            lines.append(f"| {kind} | {who} | {row.get('mode', '')} | | | | | {note} |")
            continue
        ms = row.get("ms") or row[f"{kind}_ms"]
        bare, ratio = row.get("classifier_ms") or row.get("bare_ms", ""), row.get("over_bare")
        told = f"{ratio[1]} ({ratio[0]} to {ratio[2]})" if ratio else ""
        holds = {True: "holds", False: "misses", None: ""}[row.get("holds")]
        count = row.get("pictures") or row.get("batch")
        lines.append(f"| {kind} | {who} | {row.get('mode', 'fp32')} | {count} | {ms} | {bare} | {told} | {holds} |")
    (folder / "gpu.md").write_text("\n".join(lines) + "\n", "utf-8")
