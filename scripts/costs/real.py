"""A real classifier at its own size: a training step and an explanation over the bare classifier, lever by lever."""

import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from unittest import mock

import torch
import transformers as T
from costs.measuring import alternate, milliseconds, peak_bytes
from costs.training import Step

from hf_explain import Classifier, RankingExplainerForImageClassification
from hf_explain.modeling import packing, preparing
from hf_explain.training import packing as training_packing
from hf_explain.training.objectives import find_objective

# (preset of the head, its classifier); the defaults of these configs are ViT-B/16, Swin-T and ConvNeXt-T.
CLASSIFIERS = {
    "Lite0": ("tiny", lambda: Classifier.from_pretrained("photos:efficientnet-lite0").model),
    "ViT-B/16": ("small", lambda: T.ViTForImageClassification(T.ViTConfig(num_labels=1000))),
    "Swin-T": ("small", lambda: T.SwinForImageClassification(T.SwinConfig(num_labels=1000))),
    "ConvNeXt-T": ("small", lambda: T.ConvNextForImageClassification(T.ConvNextConfig(num_labels=1000))),
    "ResNet-50": ("small", lambda: T.ResNetForImageClassification(T.ResNetConfig(num_labels=1000))),
}
LEVERS = ("channels_last", "folding", "gates", "joining", "packing")
LADDER = {  # name -> (levers, the head's finest stride, None for what it is made with)
    "all_off": ((), 1),
    "channels_last": (LEVERS[:1], 1),
    "and_folding": (LEVERS[:2], 1),
    "and_gates": (LEVERS[:3], 1),
    "and_joining": (LEVERS[:4], 1),
    "and_packing": (LEVERS, 1),
    "and_head": (LEVERS, None),
}


class Pulled:
    """The library with some levers pulled and the others not, with memories of its own."""

    def __init__(self, levers):
        self.known, self.batches, self.off = type(preparing.KNOWN)(), {}, [one for one in LEVERS if one not in levers]

    @contextlib.contextmanager
    def __call__(self):
        alone = {
            "channels_last": [(preparing, "CONVOLUTIONS", sys.maxsize)],
            "folding": [(preparing, "fold", lambda *_: None)],
            "gates": [(preparing, "open_gates", lambda *_: None)],
            "joining": [(preparing, "join", lambda *_: None)],
            "packing": [(m, "fastest_batch", lambda *_, **__: None) for m in (packing, training_packing)],
        }
        changes = [(preparing, "KNOWN", self.known), (packing, "KNOWN", self.batches)]
        with contextlib.ExitStack() as stack:
            for change in changes + [one for lever in self.off for one in alone[lever]]:
                stack.enter_context(mock.patch.object(*change))
            yield

    def around(self, call):
        def pulled():
            with self():
                call()

        return pulled


def real(arguments):
    """A step of Lite0, then explanations of all."""
    device = torch.device(arguments.device)
    if "step" in arguments.parts:
        yield ladder(arguments, device)
    if "explanation" in arguments.parts:
        for name in arguments.classifiers:
            yield explanation(arguments, name, device)


def ladder(arguments, device):
    """Seconds of a training step with more and more levers, of the bare classifier, and of another checkout's step."""
    preset, make = CLASSIFIERS["Lite0"]
    size, objective = arguments.size, find_objective("default", coarse=0.0)
    model = make()
    steps, calls = {}, {}
    for name, (levers, finest) in LADDER.items():
        pulled, head = Pulled(levers), {} if finest is None else {"finest": finest}
        with pulled():
            steps[name] = Step(lambda: model, size, preset, objective, arguments.batch_size, device, None, **head)
        calls[name] = pulled.around(steps[name].train)
        if name == "and_head":
            calls |= {part: pulled.around(getattr(steps[name], part)) for part in ("bare", "read", "head", "masks")}
    with old_checkout(arguments, model) as old:
        if old:
            calls = {"old": old} | calls
        times = alternate(calls, arguments.runs, device, warm_up=1)
    ms = milliseconds(times)
    row = {
        "classifier": "Lite0", "size": size, "preset": preset, "batch_size": arguments.batch_size,
        "perturbed": len(steps["and_head"].perturbed), "bare_batch": steps["and_head"].pack, **ms,
        "over_bare": round(ms["and_head_ms"] / ms["bare_ms"], 3),
        "paired_over_bare": paired(times["and_head"], times["bare"]),
        "peak_mb": {n: round(peak_bytes(calls[n], device) / 1e6) for n in ("all_off", "and_head", "bare")},
        "runs": arguments.runs,
    }  # fmt: skip
    if "old" in times:
        row |= {
            "speedup": round(ms["old_ms"] / ms["and_head_ms"], 2),
            "paired_speedup": paired(times["old"], times["and_head"]),
        }
    return row


def paired(one, other):
    """Least, median and largest of the ratios of runs that followed each other."""
    ratios = sorted(a / b for a, b in zip(one, other, strict=True))
    return [round(ratios[i], 3) for i in (0, len(ratios) // 2, -1)]


@torch.no_grad()
def explanation(arguments, name, device):
    """`explainer(x)`, which runs the classifier too, over the prepared classifier alone; and both as they were."""
    preset, make = CLASSIFIERS[name]
    model = make().to(device)
    pixel_values = torch.randn(arguments.pictures, 3, arguments.size, arguments.size, device=device)
    now, before = Pulled(LEVERS), Pulled(())
    processor = T.ViTImageProcessorPil(size={"height": arguments.size, "width": arguments.size})
    new = RankingExplainerForImageClassification.from_classifier(model, processor, preset=preset)
    old = RankingExplainerForImageClassification.from_classifier(model, processor, preset=preset, finest=1)
    calls = {
        "classifier": now.around(partial(new.classifier, pixel_values)),
        "explanation": now.around(partial(new, pixel_values)),
        "classifier_before": before.around(partial(old.classifier, pixel_values)),
        "explanation_before": before.around(partial(old, pixel_values)),
    }
    times = alternate(calls, arguments.runs, device)
    median = {key: statistics.median(values) for key, values in times.items()}
    return {
        "classifier": name, "size": arguments.size, "preset": preset, "pictures": arguments.pictures,
        "finest": new.config.finest, **milliseconds(times),
        "over_bare": round(median["explanation"] / median["classifier"], 3),
        "paired_over_bare": paired(times["explanation"], times["classifier"]),
        "before_over_bare": round(median["explanation_before"] / median["classifier_before"], 3),
        "speedup": round(median["explanation_before"] / median["explanation"], 2), "runs": arguments.runs,
    }  # fmt: skip


# ---- another checkout ----

SERVER = """
import sys, itertools, torch
torch.set_num_threads(int(sys.argv[2]))
import transformers as T
from hf_explain import RankingExplainerForImageClassification
from hf_explain.training.draws import Draws
from hf_explain.training.objectives import find_objective, ranking_loss
torch.manual_seed(0)
size, count, objective = int(sys.argv[3]), int(sys.argv[4]), find_objective("default", coarse=0.0)
processor = T.ViTImageProcessorPil(size={"height": size, "width": size})
model = T.AutoModelForImageClassification.from_pretrained(sys.argv[1])
explainer = RankingExplainerForImageClassification.from_classifier(model, processor, preset="tiny").train()
optimizer, steps = torch.optim.AdamW(explainer.head.parameters()), itertools.count()
x = torch.randn(count, 3, size, size)
print("ready", flush=True)
for line in sys.stdin:
    loss, _ = ranking_loss(explainer, x, Draws(0, next(steps)), 0.5, objective)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    print("done", flush=True)
"""


@contextlib.contextmanager
def old_checkout(arguments, model):
    """A call that does one training step with the code of --old, in a process of its own; None without."""
    if not arguments.old:
        yield None
        return
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        values = [folder, torch.get_num_threads(), arguments.size, arguments.batch_size]
        process = subprocess.Popen(
            [sys.executable, "-c", SERVER, *map(str, values)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env=os.environ | {"PYTHONPATH": str(Path(arguments.old).resolve())}, cwd=folder,
        )  # fmt: skip

        def step():
            process.stdin.write("step\n")
            process.stdin.flush()
            if process.stdout.readline().strip() != "done":
                raise SystemExit(f"the step of {arguments.old} failed; see above.")

        try:
            if process.stdout.readline().strip() != "ready":
                raise SystemExit(f"{arguments.old} holds no hf-explain that makes a training step; give a checkout.")
            yield step
        finally:
            process.stdin.close()
            process.wait()
