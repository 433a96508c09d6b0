"""The folders of the configuration's groups: the package's own, and a user's. Needs no other package."""

import argparse
import os
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent
CONF_DIR = next(p for p in (PACKAGE / "conf", PACKAGE.parent / "conf") if p.is_dir())
"""Folder of the configuration groups: inside the package in an installed wheel, next to it in a checkout."""

USER_CONF_VARIABLE = "FER_VOTING_CONFIG_DIR"
"""Environment variable with a user's own folder of configuration groups; `--config-dir DIR` sets it."""


def conf_dirs() -> list[Path]:
    """The package's folder of groups, and the user's own where there is one."""
    own = os.environ.get(USER_CONF_VARIABLE)
    return [CONF_DIR, *([Path(own)] if own else [])]


def options_of_group(group: str) -> dict[str, Path]:
    """The options of a group, in the package's and the user's folder: name -> file."""
    files = [path for folder in conf_dirs() for path in sorted((folder / group).glob("*.yaml"))]
    return {path.stem: path for path in files}


def add_config_dir(parser: argparse.ArgumentParser) -> None:
    """Add Hydra's option `--config-dir` to the parser of a command that Hydra does not compose."""
    parser.add_argument(
        *("--config-dir", "-cd"),
        type=_user_conf_dir,
        metavar="DIR",
        help=f"your own folder of configuration groups, as {USER_CONF_VARIABLE} in the environment names it too",
    )


def _user_conf_dir(text: str) -> Path:
    folder = Path(text).absolute()
    if not folder.is_dir():
        raise argparse.ArgumentTypeError(f"{text} is not a folder")
    os.environ[USER_CONF_VARIABLE] = str(folder)
    return folder
