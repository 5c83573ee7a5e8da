"""Explains a data set, as a new data set of maps; the arguments are those of `hf-explain explain`.

One process:

    python scripts/explain_dataset.py --explainer explainer/ --dataset my-pictures/ --output_dir maps

Four GPUs of one machine, or two processes of the CPU:

    torchrun --nproc-per-node 4 scripts/explain_dataset.py --explainer ... --dataset ... --output_dir ...
    ACCELERATE_USE_CPU=true torchrun --nproc-per-node 2 scripts/explain_dataset.py --explainer ... --dataset ...
"""

import sys

from hf_explain.cli import main

if __name__ == "__main__":
    sys.exit(main(["explain", *sys.argv[1:]]))
