"""A trained network under other classes or numbers: the rows of its last layer are matched by the outputs' names."""

import logging
from collections.abc import Sequence
from dataclasses import replace

from torch import nn

from fer_voting.data.labels import canonical
from fer_voting.models.checkpoint import NetworkInfo
from fer_voting.models.last_layer import find_last_layer
from fer_voting.networks.network import Network, build

log = logging.getLogger(__name__)


def copy_weights(
    network: Network, net: nn.Module, outputs: Sequence[str], missing_classes: str = "error"
) -> dict[str, str]:
    """Copy the weights of a trained network into `net`; the rows of the last layer are matched by name.

    Args:
        network: its split may differ from that of `net`, the sizes of its layers may not.
        outputs: names of `net`'s classes and numbers, in order.
        missing_classes: `error`, or `random`: outputs that `network` lacks keep `net`'s initial weights.

    Returns `{output of net: output of network}` for the matched rows.

    Raises ValueError that names the keys, shapes or classes that do not fit.
    """
    if missing_classes not in ("error", "random"):
        raise ValueError(f"`init_missing_classes` (={missing_classes!r}) must be error or random")
    state, own = network.net.state_dict(), net.state_dict()
    last_layer = find_last_layer(net, len(outputs))
    head = [key for key in own if key.rpartition(".")[0] == last_layer]
    missing, unknown = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    if missing or unknown:
        raise ValueError(
            f"{network.path} does not fit the network: missing keys {_few(missing)}; unknown keys {_few(unknown)}"
        )
    misshapen = [
        f"{key} {tuple(state[key].shape)} for {tuple(own[key].shape)}"
        for key in own
        if key not in head and own[key].shape != state[key].shape
    ]
    if misshapen:
        described = _overrides(network.info)
        raise ValueError(f"{network.path} does not fit the network: {_few(misshapen)}; it is {described}")
    rows = {_key(name): row for row, name in enumerate(network.info.outputs)}
    new = [name for name in outputs if _key(name) not in rows]
    if new and missing_classes == "error":
        raise ValueError(
            f"{network.path} knows {_described(network.info)}, not {', '.join(new)}; "
            "init_missing_classes=random starts these from scratch"
        )
    matched = {name: network.info.outputs[rows[_key(name)]] for name in outputs if name not in new}
    for key in head:
        merged = own[key].clone()
        for own_row, name in enumerate(outputs):
            if name in matched:
                merged[own_row] = state[key][rows[_key(name)]]
        state[key] = merged
    net.load_state_dict(state)
    log.info(
        "weights of %s (%s, split %s): classes matched by name: %s%s",
        network.path,
        network.info.dataset,
        network.info.split,
        ", ".join(matched) or "none",
        f"; from scratch: {', '.join(new)}" if new else "",
    )
    return matched


def match_classes(
    network: Network, class_names: Sequence[str], dataset: str, split: str | None = None
) -> tuple[Network, list[str]]:
    """The network with outputs for exactly these classes, and the names of its other classes; its numbers stay.

    Classes are matched by name. The network has no output for its other classes, so it cannot decide for them. One
    without classes stays as it is.

    Args:
        class_names: of the data set `dataset`, in order.
        split: to use the network under; None: its own.

    Raises ValueError if the network lacks one of the classes.
    """
    names = tuple(class_names) if network.info.class_names else ()
    info = replace(network.info, split=split or network.info.split, class_names=names, dataset=dataset)
    net = build(info)
    try:
        matched = copy_weights(network, net, info.outputs)
    except ValueError as error:
        reason = str(error).partition("; init_missing_classes")[0]
        raise ValueError(f"{reason}: it cannot be evaluated on {dataset}") from error
    left_out = [name for name in network.info.class_names if name not in matched.values()]
    return replace(network, net=net.eval(), info=info), left_out


def _described(info: NetworkInfo) -> str:
    """`the classes neutral, happy and the numbers valence, arousal`."""
    kinds = (("the classes", info.class_names), ("the numbers", info.number_names))
    return " and ".join(f"{kind} {', '.join(names)}" for kind, names in kinds if names)


def _key(name: str) -> str:
    """The canonical name of a class; a user's own classes have no synonyms."""
    try:
        return canonical(name)
    except ValueError:
        return name


def _overrides(info: NetworkInfo) -> str:
    """The overrides of the command line that make such a network."""
    options = [f"model.{key}={value}" for key, value in info.options.items() if value is not None]
    return " ".join([f"model={info.architecture}", *options])


def _few(names: Sequence[str]) -> str:
    shown = ", ".join(names[:4]) or "none"
    return f"{shown}, … ({len(names)} in all)" if len(names) > 4 else shown
