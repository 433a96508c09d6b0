"""Speed and memory, measured; docs/speed.md has what was recorded."""
