"""The type of an augmentation step's values."""

from collections.abc import Mapping
from typing import Any

__all__ = ["Step"]

Step = Mapping[str, Any] | None
"""The values of a step, or None to leave it out."""
