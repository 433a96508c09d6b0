"""`torch.compile` for training, where there is a compiler."""

import logging
import os
import shutil

from torch import nn

log = logging.getLogger(__name__)


def find_compiler() -> str | None:
    """The C++ compiler that torch would call, for the CPU's code and for what starts a GPU's."""
    candidates = [os.environ["CXX"]] if "CXX" in os.environ else ["g++", "clang++"]
    return next((path for name in candidates if (path := shutil.which(name))), None)


def compile_network(net: nn.Module) -> bool:
    """Compile `net` as a whole, in place, so that its keys stay; it happens at the first step, and takes a minute.

    Without a compiler `net` stays as it is, with a warning. Returns whether it was compiled.
    """
    if find_compiler() is None:
        log.warning("compile=true: there is no C++ compiler here (CXX, g++, clang++), so the network is not compiled")
        return False
    net.compile()
    return True
