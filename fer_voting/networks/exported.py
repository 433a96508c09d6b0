"""The files of a shared folder. It has the layout of the Hugging Face Hub:

    model.safetensors   the weights
    config.json         how to build the network and what its outputs mean: plain values, checked by type and range
    README.md           the model card
    model.onnx          where there is one, the same network as an ONNX file (`fer_voting.networks.onnx`)
    model-int8.onnx     where there is one, the same in int8

Needs no torch.
"""

import json
from pathlib import Path
from typing import Any

CONFIG_FORMAT = 2
WEIGHTS_FILE, CONFIG_FILE, CARD_FILE = "model.safetensors", "config.json", "README.md"
ONNX_FILE, INT8_FILE = "model.onnx", "model-int8.onnx"
MAX_CONFIG_BYTES = 1_000_000


def read_config(path: Path) -> dict[str, Any]:
    """The values of a config.json, without its format.

    Raises FileNotFoundError, or ValueError if the file is damaged, too large or of another format.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path.parent} is not a folder of a shared network: it lacks {path.name}")
    if path.stat().st_size > MAX_CONFIG_BYTES:
        raise ValueError(f"{path} is not the configuration of a network: it has more than {MAX_CONFIG_BYTES:,} bytes")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged: {type(error).__name__}: {error}") from error
    if not isinstance(values, dict) or type(format_number := values.pop("fer_voting", None)) is not int:
        raise ValueError(f"{path} is not the configuration of a network of fer_voting")
    if format_number != CONFIG_FORMAT:
        raise ValueError(f"{path} has format {format_number}; this version of fer_voting reads {CONFIG_FORMAT}")
    return values
