"""Table 5 of the paper from finished runs: test accuracy on RAF-DB after refit, next to the published methods.

`make table5`. Nothing is trained: missing runs are listed with the command that makes them.
"""

from experiments.refit_accuracy import write_table


def main(arguments: list[str] | None = None) -> None:
    write_table("table5", "rafdb", __doc__, arguments)


if __name__ == "__main__":
    main()
