"""Hooks that last for a block and see the calls of one thread only: others may use the same model meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def hooked(*pairs: tuple[nn.Module, Callable]) -> Iterator[None]:
    """Forward hooks `hook(module, inputs, output)` on modules inside; gone after, whatever happens."""
    mine, handles = threading.get_ident(), []

    def of_this_thread(hook: Callable) -> Callable:
        return lambda *call: hook(*call) if threading.get_ident() == mine else None

    try:
        for module, hook in pairs:
            handles.append(module.register_forward_hook(of_this_thread(hook)))
        yield
    finally:
        for handle in handles:
            handle.remove()


def watched(modules: Iterable[tuple[str, nn.Module]], look: Callable) -> list[tuple[nn.Module, Callable]]:
    """Pairs for `hooked` that call `look(path, inputs, output)` and change nothing."""

    def pair(path: str, module: nn.Module):
        def hook(_, inputs, output) -> None:  # what a hook returns would replace the output
            look(path, inputs, output)

        return module, hook

    return [pair(path, module) for path, module in modules]
