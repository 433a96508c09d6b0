"""Average the weights of trained networks: `python -m experiments.average NETWORK NETWORK ... --out FILE.ckpt`.

Of networks that went on from the same weights, e.g. two epochs of a training, the average is often better than each
(Wortsman et al. 2022, arXiv:2203.05482). NETWORK is a finished run, a checkpoint or an exported folder, as evaluation
takes it; `--shares 0.7 0.3` weights them. BatchNorm's statistics are averaged, too. `init_from=FILE.ckpt` trains on.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from experiments.common import make_parser
from fer_voting.networks import load_network
from fer_voting.networks.network import Network
from fer_voting.system.atomic import draft_of


def average(networks: Sequence[Network], shares: Sequence[float]) -> dict[str, torch.Tensor]:
    """The state_dict of the weighted average, of the first network's dtypes; what is not floating point is the first's.

    Args:
        shares: one for each network; they sum to 1.

    Raises ValueError for networks of different shapes, outputs or faces.
    """
    first = networks[0].info
    for network in networks[1:]:
        for name in ("architecture", "options", "split", "class_names", "number_names", "image_size", "faces"):
            if (other := getattr(network.info, name)) != (own := getattr(first, name)):
                raise ValueError(
                    f"{network.path} has {name} {other}, and {networks[0].path} {own}: they can't be averaged"
                )
    states = [network.net.state_dict() for network in networks]
    return {
        key: sum(share * state[key] for share, state in zip(shares, states, strict=True)).to(value.dtype)
        if value.is_floating_point()
        else value
        for key, value in states[0].items()
    }


def shares_of(parser: argparse.ArgumentParser, given: Sequence[float] | None, count: int) -> list[float]:
    """The shares of `count` networks, by default equal ones."""
    if given is None:
        return [1 / count] * count
    if len(given) != count or min(given) < 0 or abs(sum(given) - 1) > 1e-6:
        parser.error(
            f"--shares {' '.join(map(str, given))}: {count} numbers from 0 that sum to 1, one for each network"
        )
    return list(given)


def main(arguments: list[str] | None = None) -> None:
    parser = make_parser(__doc__)
    parser.add_argument("networks", nargs="+", metavar="NETWORK", help="a run's name, a .ckpt file or a folder")
    parser.add_argument("--shares", type=float, nargs="+", metavar="SHARE", help="(default: equal)")
    parser.add_argument("--output-dir", type=Path, default=Path("outputs"), help="holds runs/ (default: outputs)")
    parser.add_argument("--out", type=Path, required=True, help="the checkpoint to write; none is replaced")
    options = parser.parse_args(arguments)
    if len(options.networks) < 2:
        parser.error("an average needs two networks or more")
    shares = shares_of(parser, options.shares, len(options.networks))
    if options.out.suffix != ".ckpt" or options.out.exists():
        parser.error(f"--out {options.out}: a new file that ends in .ckpt")
    try:
        networks = [load_network(source, options.output_dir) for source in options.networks]
        state = average(networks, shares)
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
    checkpoint = {"state_dict": {f"net.{key}": value for key, value in state.items()}}
    networks[0].info.write(checkpoint)
    with draft_of(options.out) as draft:
        torch.save(checkpoint, draft)
    print(f"Written to {options.out}")


if __name__ == "__main__":
    main()
