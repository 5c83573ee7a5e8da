"""What it takes to train an explainer of a real checkpoint: passes, floating-point operations and seconds of a step."""

import statistics
import time
from functools import partial

import torch
import transformers as T
from costs.measuring import Operations

from hf_explain import RankingExplainerForImageClassification
from hf_explain.training.config import TrainingConfig
from hf_explain.training.dry_run import dry_run

# Checkpoints and their architecture, which is built with random weights: what a step costs does not depend on them.
ZOO = {
    "google/vit-base-patch16-224": T.ViTConfig,
    "microsoft/swin-tiny-patch4-window7-224": T.SwinConfig,
    "facebook/convnext-tiny-224": T.ConvNextConfig,
    "microsoft/resnet-50": T.ResNetConfig,
    "OpenGVLab/pvt_v2_b2": partial(
        T.PvtV2Config,
        hidden_sizes=[64, 128, 320, 512],
        depths=[3, 4, 6, 3],
        num_attention_heads=[1, 2, 5, 8],
        mlp_ratios=[8, 8, 4, 4],
    ),
}


def zoo(arguments):
    """A line per checkpoint: hybrid, float32, single pixels ranked; two steps and what is around them, timed."""
    for name in arguments.checkpoints or ZOO:
        config = ZOO[name](num_labels=1000)
        config.architectures = config.architectures or []
        torch.manual_seed(0)
        model = T.AutoModelForImageClassification.from_config(config, attn_implementation=arguments.attention)
        processor = T.ViTImageProcessorPil(size={"height": arguments.size, "width": arguments.size})
        make = RankingExplainerForImageClassification.from_classifier
        explainer = make(model, processor, preset=arguments.preset, hybrid=True).to(arguments.device)
        rows = [{"pixel_values": torch.randn(3, arguments.size, arguments.size)} for _ in range(arguments.batch_size)]
        settings = TrainingConfig(
            max_steps=2, per_device_train_batch_size=arguments.batch_size, eval_steps=1, num_workers=0
        )
        with torch.no_grad(), Operations() as forward:
            explainer.classifier(rows[0]["pixel_values"][None].to(arguments.device))
        with Operations() as step:
            dry_run(explainer, rows, settings)
        seconds = []
        for _ in range(arguments.runs):
            began = time.process_time()  # of this process alone, whatever else the machine does
            cost = dry_run(explainer, rows, settings)
            seconds.append((time.process_time() - began) / 2 / arguments.batch_size)
        judged = dry_run(explainer, rows, settings, rows[:1]) if arguments.evaluation else None
        yield {
            "checkpoint": name,
            "parameters": sum(p.numel() for p in model.parameters()),
            "head_parameters": cost.head_parameters,
            "preset": arguments.preset,
            "batch_size": arguments.batch_size,
            "passes_per_picture": cost.passes_per_step / arguments.batch_size,
            "gflop_forward": round(forward.count / 1e9, 5),
            "gflop_per_picture": round(step.count / 2e9 / arguments.batch_size, 5),
            "passes_per_judged_picture": judged and (judged.passes - 2 * judged.passes_per_step) / 2,
            "cpu_seconds_per_picture": round(statistics.median(seconds), 2),
            "runs": arguments.runs,
        }
