"""Initial weights from a checkpoint, the rows of the last layer matched by class name."""

import logging
from collections.abc import Sequence
from pathlib import Path

from torch import nn

from fer_voting.data.labels import canonical
from fer_voting.models.checkpoint import NetworkInfo, load_weights
from fer_voting.models.voting import find_last_layer

log = logging.getLogger(__name__)


def initialise(
    net: nn.Module, class_names: Sequence[str], path: Path, missing_classes: str = "error"
) -> dict[str, str]:
    """Load the weights of `path` into `net`, the rows of the last layer by class name.

    Args:
        net: the network.
        class_names: names of its outputs, in order.
        path: checkpoint; its split may differ, the sizes of its layers may not.
        missing_classes: `error`, or `random`: classes that the checkpoint lacks keep `net`'s initial weights.

    Returns `{class of net: class of the checkpoint}` for the rows that were found.

    Raises ValueError that names the keys, shapes or classes that do not fit.
    """
    if missing_classes not in ("error", "random"):
        raise ValueError(f"`init_missing_classes` (={missing_classes!r}) must be error or random")
    state, info = load_weights(path)
    own = net.state_dict()
    last_layer = find_last_layer(net, len(class_names))
    head = [key for key in own if key.rpartition(".")[0] == last_layer]
    missing = sorted(own.keys() - state.keys())
    extra = sorted(state.keys() - own.keys())
    if missing or extra:
        raise ValueError(f"{path} does not fit the network: missing keys {_few(missing)}; unknown keys {_few(extra)}")
    misshapen = [
        f"{key} {tuple(state[key].shape)} for {tuple(own[key].shape)}"
        for key in own
        if key not in head and own[key].shape != state[key].shape
    ]
    if misshapen:
        raise ValueError(f"{path} does not fit the network: {_few(misshapen)}; it is {_described(info)}")
    rows = {_key(name): row for row, name in enumerate(info.class_names)}
    unknown = [name for name in class_names if _key(name) not in rows]
    if unknown and missing_classes == "error":
        raise ValueError(
            f"{path} knows the classes {', '.join(info.class_names)}, not {', '.join(unknown)}; "
            "init_missing_classes=random starts these from scratch"
        )
    matched = {name: info.class_names[rows[_key(name)]] for name in class_names if name not in unknown}
    for key in head:
        merged = own[key].clone()
        for own_row, name in enumerate(class_names):
            if name in matched:
                merged[own_row] = state[key][rows[_key(name)]]
        state[key] = merged
    net.load_state_dict(state)
    log.info(
        "weights of %s (%s, split %s): classes matched by name: %s%s",
        path,
        info.dataset,
        info.split,
        ", ".join(matched) or "none",
        f"; from scratch: {', '.join(unknown)}" if unknown else "",
    )
    return matched


def _key(name: str) -> str:
    """What two names of a class have in common; classes of a user's own have no synonyms."""
    try:
        return canonical(name)
    except ValueError:
        return name


def _described(info: NetworkInfo) -> str:
    """The words of the command line that make such a network."""
    options = [f"model.{key}={value}" for key, value in info.options.items() if value is not None]
    return " ".join([f"model={info.architecture}", *options])


def _few(names: Sequence[str]) -> str:
    shown = ", ".join(names[:4]) or "none"
    return f"{shown}, … ({len(names)} in all)" if len(names) > 4 else shown
