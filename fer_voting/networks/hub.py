"""Names on the Hugging Face Hub: download a network, upload one. Needs the extra `hub`."""

import importlib.util
import re
from collections.abc import Sequence
from pathlib import Path

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
_HUB_EXTRA = "the Hugging Face Hub needs one more package: pip install 'fer_voting[hub]'"


def is_hub_name(name: str) -> bool:
    """Whether `name` has the form `owner/model`."""
    return _HUB_NAME.fullmatch(name) is not None


def check_hub_name(name: str) -> None:
    """Raises ValueError if `name` is not of the form `owner/model`, or the Hub's package is not installed."""
    if not is_hub_name(name):
        raise ValueError(f"{name!r} must be a name on the Hub: owner/model")
    if importlib.util.find_spec("huggingface_hub") is None:
        raise ValueError(_HUB_EXTRA)


def download(name: str, files: Sequence[str]) -> Path:
    """The local folder with these files of `owner/model`.

    Raises FileNotFoundError with the Hub's reason if it does not give them, or if its package is not installed.
    """
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError
    except ImportError as error:
        raise FileNotFoundError(f"{name} is not here, and {_HUB_EXTRA}") from error
    try:
        return Path(snapshot_download(name, allow_patterns=list(files)))
    except RepositoryNotFoundError as error:
        raise FileNotFoundError(
            f"{name} is neither here nor on the Hub: is it spelt right? A private one needs a login (hf auth login)"
        ) from error
    except LocalEntryNotFoundError as error:
        raise FileNotFoundError(f"{name} is not here, and the Hub cannot be reached: {_short(error)}") from error
    except (HfHubHTTPError, OSError) as error:
        raise FileNotFoundError(f"{name} is not here, and the Hub does not give it: {_short(error)}") from error


def upload(folder: Path, name: str, private: bool = True) -> str:
    """Upload a folder to `owner/model`, which is created if it does not exist. Returns its address.

    Needs a login (`hf auth login`, or `HF_TOKEN`). Raises ValueError with the Hub's reason if it refuses.
    """
    check_hub_name(name)
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    api = HfApi()
    try:
        address = api.create_repo(name, private=private, exist_ok=True)
        api.upload_folder(repo_id=name, folder_path=folder, commit_message="Network exported by fer_voting")
    except (HfHubHTTPError, OSError) as error:
        raise ValueError(f"{name} was not uploaded: {_short(error)}") from error
    return str(address)


def _short(error: Exception) -> str:
    """The Hub's answers have many lines, with hints about requests."""
    return " ".join(str(error).split())[:200]
