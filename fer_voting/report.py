"""One page of all runs: `python -m fer_voting.report`, or `make report`."""

import argparse
import sys
from pathlib import Path

from fer_voting.system.atomic import write_atomically
from fer_voting.system.conf_folders import add_config_dir
from fer_voting.system.packages import whole_package
from fer_voting.system.text import counted


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output-dir", type=Path, default=Path("outputs"), help="holds runs/ (default: outputs)")
    parser.add_argument("--out", type=Path, help="the page (default: report.html in the output folder)")
    add_config_dir(parser)
    options = parser.parse_args(arguments)
    # Imported here: `--help` and a wrong option need none of it, and it takes seconds.
    with whole_package():
        from fer_voting.results.load import load_runs
        from fer_voting.results.page import build_page

    try:
        runs = load_runs(options.output_dir)
    except FileNotFoundError as error:
        parser.error(f"--output-dir: {error}")
    count = len(runs.runs) + len(runs.unreadable)
    if not count:
        sys.exit(f"error: there are no runs in {options.output_dir / 'runs'} yet: `make demo` makes some in minutes")
    page = options.out or options.output_dir / "report.html"
    with write_atomically(page) as file:
        file.write(build_page(runs))
    print(f"{counted(count, 'run')}: {page}")


if __name__ == "__main__":
    main()
