"""Measured costs, each from medians of alternating runs in one process; one line of JSON per measurement.

python scripts/benchmark.py inference            # classifier + explanation over the classifier alone, 224 px, CPU
python scripts/benchmark.py inference --device cuda --batch_size 32 --preset base
python scripts/benchmark.py training             # a training step over the bare classifier, and the ranking operators
python scripts/benchmark.py training --device cuda --batch_size 16    # also ViT-B/16 at 224 px in bfloat16
python scripts/benchmark.py metrics              # curves and ROAD over the bare forwards and other libraries
python scripts/benchmark.py zoo                  # a training step of full-size checkpoints, for docs/model_zoo.md
python scripts/benchmark.py real             # EfficientNet-Lite0 at 224 px: a step and an explanation, lever by lever
python scripts/benchmark.py real --old DIR   # beside the step of another checkout
python scripts/benchmark.py gpu              # all of it that is to be known of a GPU, for docs/results/gpu.md
python scripts/benchmark.py app                  # the app: start to first map, interactions, 200 requests of 8 clients
"""

import torchvision_stub  # noqa: F401, I001 (before transformers)

import argparse
import json
import platform
import statistics
from functools import partial

import torch
import transformers
from costs.gpu import MODES, TINY as ON_GPU, gpu
from costs.measuring import alternate, milliseconds
from costs.metrics import metrics
from costs.real import CLASSIFIERS as REAL
from costs.real import real
from costs.training import TINY, training
from transformers import (
    ConvNextConfig,
    ConvNextForImageClassification,
    SwinConfig,
    SwinForImageClassification,
    ViTConfig,
    ViTForImageClassification,
)
from costs.zoo import ZOO, zoo

from hf_explain import RankingExplainerForImageClassification

# The defaults of these configs are ViT-B/16, Swin-T and ConvNeXt-T.
CLASSIFIERS = {
    "ViT-B/16": lambda: ViTForImageClassification(ViTConfig(num_labels=1000)),
    "Swin-T": lambda: SwinForImageClassification(SwinConfig(num_labels=1000)),
    "ConvNeXt-T": lambda: ConvNextForImageClassification(ConvNextConfig(num_labels=1000)),
}


@torch.no_grad()
def inference(arguments):
    """The time of `explainer(x)`, which runs the classifier too, over that of `classifier(x)`."""
    device = torch.device(arguments.device)
    for name, make in CLASSIFIERS.items():
        torch.manual_seed(0)
        explainer = RankingExplainerForImageClassification.from_classifier(make(), preset=arguments.preset).to(device)
        pixel_values = torch.randn(arguments.batch_size, 3, 224, 224, device=device)
        calls = {
            "classifier": partial(explainer.classifier.model, pixel_values),
            "both": partial(explainer, pixel_values),
        }
        times = alternate(calls, arguments.runs, device)
        ratios = sorted(b / a for a, b in zip(times["classifier"], times["both"], strict=True))
        yield {
            "classifier": name,
            "preset": arguments.preset,
            "head_parameters": sum(p.numel() for p in explainer.head.parameters()),
            "batch_size": arguments.batch_size,
            **milliseconds(times),
            "ratio_of_medians": round(statistics.median(times["both"]) / statistics.median(times["classifier"]), 3),
            "paired_ratios": [round(ratios[i], 3) for i in (0, len(ratios) // 2, -1)],
            "runs": arguments.runs,
        }


def app(arguments):
    from costs.app_load import app as load  # needs the extra "space", which the others do without

    return load(arguments)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--device", default="cpu")
    shared.add_argument("--threads", type=int, default=torch.get_num_threads())
    presets = list(RankingExplainerForImageClassification.presets)
    what = parser.add_subparsers(dest="what", required=True)
    one = what.add_parser("inference", parents=[shared], help="an explanation")
    one.add_argument("--batch_size", type=int, default=1, help="pictures per forward")
    one.add_argument("--preset", default="small", choices=presets)
    one.add_argument("--runs", type=int, default=15)
    one.set_defaults(measure=inference)
    two = what.add_parser("training", parents=[shared], help="a training step, and the ranking operators")
    two.add_argument("--batch_size", type=int, default=16, help="pictures per step, before they are perturbed")
    two.add_argument("--presets", nargs="+", default=["small", "tiny"], choices=presets)
    two.add_argument("--size", type=int, default=64, help="pixels per side")
    two.add_argument("--backbone", default="vit", choices=list(TINY))
    two.add_argument("--runs", type=int, default=7)
    two.add_argument("--memory_limit", type=float, default=4.0, help="GB; operators that need more are skipped")
    two.add_argument("--largest_grid", type=int, default=56, help="cells per side; soft top-k goes on to 224")
    two.set_defaults(measure=training)
    three = what.add_parser("metrics", parents=[shared], help="faithfulness metrics, beside other libraries")
    three.add_argument("--pictures", type=int, default=8)
    three.add_argument("--steps", type=int, default=16)
    three.add_argument("--batch_size", type=int, default=8, help="pictures per forward")
    three.add_argument("--runs", type=int, default=7)
    three.set_defaults(measure=metrics)
    four = what.add_parser("zoo", parents=[shared], help="a training step of full-size checkpoints")
    four.add_argument("--checkpoints", nargs="+", choices=ZOO)
    four.add_argument("--batch_size", type=int, default=1, help="pictures per step, before they are perturbed")
    four.add_argument("--size", type=int, default=224, help="pixels per side")
    four.add_argument("--preset", default="small", choices=presets)
    four.add_argument("--attention", default="eager", help="the operations of eager are all counted")
    four.add_argument("--runs", type=int, default=3)
    four.add_argument("--no-evaluation", dest="evaluation", action="store_false", help="leave the passes of it out")
    four.set_defaults(measure=zoo)
    five = what.add_parser("app", parents=[shared], help="the app: its start, interactions, many visitors")
    five.add_argument("--model", help="folder of an explainer (default: the demo's, trained first if it is not there)")
    five.add_argument("--requests", type=int, default=200)
    five.add_argument("--clients", type=int, default=8)
    five.add_argument("--runs", type=int, default=5, help="of each interaction, at most 5")
    five.set_defaults(measure=app)
    six = what.add_parser("real", parents=[shared], help="a real classifier, what makes it fast")
    six.add_argument("--parts", nargs="+", default=["step", "explanation"], choices=["step", "explanation"])
    six.add_argument("--classifiers", nargs="+", default=list(REAL), choices=REAL)
    six.add_argument("--old", help="another checkout, whose training step is timed in between")
    six.add_argument("--batch_size", type=int, default=16, help="pictures per step, before they are perturbed")
    six.add_argument("--pictures", type=int, default=8, help="pictures per explanation")
    six.add_argument("--size", type=int, default=224, help="pixels per side")
    six.add_argument("--runs", type=int, default=5)
    six.set_defaults(measure=real)
    seven = what.add_parser("gpu", parents=[shared], help="a GPU, all in under 8 minutes; writes docs/results/gpu.*")
    seven.add_argument("--dry_run", action="store_true", help="tiny models on the CPU, whether or not there is a GPU")
    seven.add_argument("--output_dir", help="where gpu.jsonl and gpu.md are written (default: docs/results)")
    seven.add_argument("--classifiers", nargs="+", default=list(ON_GPU), choices=ON_GPU)
    seven.add_argument("--modes", nargs="+", default=list(MODES), choices=MODES)
    seven.add_argument("--minutes", type=float, default=7.0, help="what is not begun by then is left out")
    seven.add_argument("--runs", type=int, default=7)
    seven.set_defaults(measure=gpu)
    arguments = parser.parse_args(argv)
    torch.set_num_threads(arguments.threads)
    cuda = arguments.device.startswith("cuda")
    name = torch.cuda.get_device_name() if cuda else platform.processor() or platform.machine()
    versions = f"torch {torch.__version__}, transformers {transformers.__version__}"
    print(f"# {versions}, {name}, {arguments.threads} threads, fp32 where no autocast is named")
    for row in arguments.measure(arguments):
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
