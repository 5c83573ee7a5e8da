"""Measures explainers and methods side by side; the arguments are those of `hf-explain evaluate`.

One process:

    python scripts/evaluate_explainer.py --explainer explainer/ --dataset scenes --output_dir results

Four GPUs of one machine, or two processes of the CPU:

    torchrun --nproc-per-node 4 scripts/evaluate_explainer.py --explainer ... --dataset ... --output_dir ...
    ACCELERATE_USE_CPU=true torchrun --nproc-per-node 2 scripts/evaluate_explainer.py --explainer ... --dataset ...
"""

import sys

from hf_explain.cli import main

if __name__ == "__main__":
    sys.exit(main(["evaluate", *sys.argv[1:]]))
