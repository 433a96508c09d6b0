"""The options of conf/ in few compositions: Hydra takes a tenth of a second for each."""

from collections.abc import Iterable

from fer_voting.config import CONF_DIR


def choices(groups: Iterable[str]) -> list[tuple[str, ...]]:
    """Words of command lines that together choose every option of every group, one option of each group at a time."""
    options = {group: sorted(path.stem for path in (CONF_DIR / group).glob("*.yaml")) for group in groups}
    return [
        tuple(f"{group}={names[i]}" for group, names in options.items() if i < len(names))
        for i in range(max(map(len, options.values())))
    ]
