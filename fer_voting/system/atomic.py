"""Text and JSON files that are written atomically; JSON and YAML files that anyone may have written."""

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO


@contextlib.contextmanager
def draft_of(path: Path) -> Iterator[Path]:
    """A file to write: it replaces `path` at the end of the context, and is removed after an error.
    The folder is made if it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield draft
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


@contextlib.contextmanager
def write_atomically(path: Path) -> Iterator[TextIO]:
    """A text file that replaces `path` when it is complete and on disk."""
    with draft_of(path) as draft, draft.open("w", encoding="utf-8", newline="") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


def write_json(path: Path, content: Any) -> None:
    with write_atomically(path) as file:
        json.dump(content, file, indent=1, allow_nan=False)
        file.write("\n")


def read_json(path: Path) -> Any:
    """Raises FileNotFoundError, or ValueError that names the file, if it is not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged: {error}") from error


def read_yaml(path: Path) -> Any:
    """Plain containers; no tag makes another object.

    Raises FileNotFoundError, or ValueError that names the file, if it is not YAML or uses aliases, by which a few
    lines become more than the memory. What OmegaConf writes has none.
    """
    import yaml  # here: an installation for prediction lacks it

    loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # in C, where PyYAML was built with it
    try:
        text = path.read_text(encoding="utf-8")
        if "*" in text and any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, loader)):
            raise ValueError("it uses aliases")
        return yaml.load(text, loader)
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        raise ValueError(f"{path} is damaged: {' '.join(str(error).split())[:200]}") from error


def json_digest(values: Mapping[str, Any]) -> str:
    """Hex digest, 32 characters, of plain JSON values; the order of keys doesn't count."""
    return hashlib.blake2b(json.dumps(values, sort_keys=True).encode(), digest_size=16).hexdigest()
