"""One of the processes `torchrun` starts for test_ddp: the gradient of its share of the batch, averaged by DDP."""

import sys

import torch
import torch.distributed as dist
from families import build, pictures, processor

from hf_explain.explaining.auto import EXPLAINERS

if __name__ == "__main__":
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    rank, world = dist.get_rank(), dist.get_world_size()
    assert world == 2
    explainer = EXPLAINERS[0].from_classifier(build("swin"), processor(64), preset="tiny").train()
    model = torch.nn.parallel.DistributedDataParallel(explainer)
    model(pictures(4)[2 * rank : 2 * rank + 2], targets=0).attributions.square().mean().backward()
    if rank == 0:
        torch.save({n: p.grad for n, p in explainer.head.named_parameters()}, sys.argv[1])
    dist.barrier()
    dist.destroy_process_group()
