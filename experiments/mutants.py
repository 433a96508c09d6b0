"""What `mutmut run` found: a table of the core's modules, and the changes that no test notices, with their diffs.

`make mutants` runs both. A change is noticed where a test fails, does not end in time, or crashes.
"""

import argparse
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from datetime import date
from pathlib import Path

from fer_voting.results.markdown import Table, markdown
from fer_voting.system.atomic import write_atomically, write_json
from fer_voting.system.environment import git_commit

MUTMUT = Path(sys.executable).with_name("mutmut")
UNNOTICED = ("survived", "no tests")
NOT_RUN = "not checked"


def read_results(text: str) -> dict[str, str]:
    """Mutant -> status, of the lines `NAME: STATUS` that `mutmut results` prints."""
    return dict(line.strip().split(": ", 1) for line in text.splitlines() if "__mutmut_" in line)


def by_module(results: dict[str, str]) -> str:
    """The table, a row a module. Raises ValueError if mutants are left that were not run."""
    if left := sum(status == NOT_RUN for status in results.values()):
        raise ValueError(f"{left:,} of {len(results):,} mutants were not run: `make mutants` goes on with them")
    if not results:
        raise ValueError("mutmut has no results here: `make mutants` makes them")
    total, unnoticed = Counter[str](), Counter[str]()
    for name, status in results.items():
        module = name.rsplit(".", 1)[0]
        total[module] += 1
        unnoticed[module] += status in UNNOTICED
    table = Table(["module", "changes", "noticed", "noticed (%)"], [])
    for module, count in [*sorted(total.items()), ("all", total.total())]:
        noticed = count - (unnoticed[module] if module != "all" else unnoticed.total())
        table.rows.append([module, f"{count:,}", f"{noticed:,}", f"{100 * noticed / count:.1f}"])
    return markdown(table)


def mutmut(*words: str) -> str:
    return subprocess.run([MUTMUT, *words], check=True, capture_output=True, text=True).stdout


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for mutants.md and mutants.json")
    options = parser.parse_args(arguments)
    results = read_results(mutmut("results", "--all", "true"))
    try:
        table = by_module(results)
    except ValueError as error:
        sys.exit(f"error: {error}")
    text = f"{table}\nmutmut, commit {git_commit()}, {date.today().isoformat()}.\n"
    survivors = {
        name: [line for line in mutmut("show", name).splitlines()[3:] if line[:1] in ("-", "+")]
        for name, status in results.items()
        if status in UNNOTICED
    }
    write_json(options.out / "mutants.json", survivors)
    with write_atomically(options.out / "mutants.md") as file:
        file.write(text)
    print(text)


if __name__ == "__main__":
    main()
