"""what travels to the Hub beside the weights: explainers, their heads, what they are made of.

Flat files that import torch, transformers, numpy, PIL and each other, nothing else: `modeling_*` the classes,
`configuration_*` what they are saved with, `sinkhorn`, `topk`, `gates` and `decoder` the operators, `perturbation`,
`references` and `pixel_space` how a picture is altered, `loading`, `saving`, `frozen_models` and `model_card` the
files. Start with modeling_ranking.py, then ranking.py and perturbation.py.
"""
