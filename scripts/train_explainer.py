"""Trains an explainer of a classifier; the arguments are those of `hf-explain train`.

One process:

    python scripts/train_explainer.py --classifier google/vit-base-patch16-224 --dataset food101 --output_dir explainer

Four GPUs of one machine, by torch or by accelerate:

    torchrun --nproc-per-node 4 scripts/train_explainer.py --classifier ... --dataset ... --output_dir ...
    accelerate launch --multi_gpu --num_processes 4 --num_machines 1 scripts/train_explainer.py --classifier ...

Two processes of the CPU, to try it:

    ACCELERATE_USE_CPU=true torchrun --nproc-per-node 2 scripts/train_explainer.py --classifier ... --dataset scenes ...
"""

import sys

from hf_explain.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
