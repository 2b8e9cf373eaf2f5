"""One command line of vitrail, by the code on the path, that counts the images its networks embed.

`explain_page_side.py explain RUN IMAGE …` prints the count as the last line of standard error.
"""

from __future__ import annotations

import sys
from typing import Any

from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook

from vitrail.cli.main import main
from vitrail.layers.patch_embedding import PatchEmbed


def count() -> None:
    images = 0

    def embedding(module: nn.Module, given: tuple[Any, ...]) -> None:
        nonlocal images
        if isinstance(module, PatchEmbed):
            images += len(given[0])

    register_module_forward_pre_hook(embedding)
    try:
        main()
    finally:
        print(images, file=sys.stderr)


if __name__ == "__main__":
    count()
