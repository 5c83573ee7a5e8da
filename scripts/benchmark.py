"""Measured costs, each as ratios of medians of alternating runs in one process.

python scripts/benchmark.py inference            # classifier + explanation over the classifier alone, 224 px, CPU
python scripts/benchmark.py inference --device cuda --batch_size 32 --preset base
"""

import argparse
import json
import platform
import statistics
import time

import torch
import transformers
from transformers import (
    ConvNextConfig,
    ConvNextForImageClassification,
    SwinConfig,
    SwinForImageClassification,
    ViTConfig,
    ViTForImageClassification,
)

from hf_explain import RankingExplainerForImageClassification

# The defaults of these configs are ViT-B/16, Swin-T and ConvNeXt-T.
CLASSIFIERS = {
    "ViT-B/16": lambda: ViTForImageClassification(ViTConfig(num_labels=1000)),
    "Swin-T": lambda: SwinForImageClassification(SwinConfig(num_labels=1000)),
    "ConvNeXt-T": lambda: ConvNextForImageClassification(ConvNextConfig(num_labels=1000)),
}


def seconds(call, device):
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


@torch.no_grad()
def inference(arguments):
    """The time of `explainer(x)`, which runs the classifier too, over that of `classifier(x)`."""
    device = torch.device(arguments.device)
    for name, make in CLASSIFIERS.items():
        torch.manual_seed(0)
        explainer = RankingExplainerForImageClassification.from_classifier(make(), preset=arguments.preset).to(device)
        classifier = explainer.classifier.model
        pixel_values = torch.randn(arguments.batch_size, 3, 224, 224, device=device)
        calls = {"classifier": lambda: classifier(pixel_values), "both": lambda: explainer(pixel_values)}  # noqa: B023
        for call in calls.values():  # warm up
            call(), call()
        times = {key: [] for key in calls}
        for _ in range(arguments.runs):
            for key, call in calls.items():
                times[key].append(seconds(call, device))
        median = {key: statistics.median(values) for key, values in times.items()}
        ratios = sorted(b / a for a, b in zip(times["classifier"], times["both"], strict=True))
        yield {
            "classifier": name,
            "preset": arguments.preset,
            "head_parameters": sum(p.numel() for p in explainer.head.parameters()),
            "batch_size": arguments.batch_size,
            "classifier_ms": round(1000 * median["classifier"], 2),
            "both_ms": round(1000 * median["both"], 2),
            "ratio_of_medians": round(median["both"] / median["classifier"], 3),
            "paired_ratios": [round(ratios[i], 3) for i in (0, len(ratios) // 2, -1)],
            "runs": arguments.runs,
        }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["inference"])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch_size", type=int, default=1, help="pictures per forward")
    parser.add_argument("--preset", default="small", choices=list(RankingExplainerForImageClassification.presets))
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    name = (
        torch.cuda.get_device_name()
        if arguments.device.startswith("cuda")
        else platform.processor() or platform.machine()
    )
    versions = f"torch {torch.__version__}, transformers {transformers.__version__}"
    print(f"# {versions}, {name}, {arguments.threads} threads, fp32")
    for row in inference(arguments):
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
