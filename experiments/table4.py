"""Table 4 of the paper from finished runs: test accuracy on AffectNet after refit, next to the published methods.

`make table4`. Nothing is trained: missing runs are listed with the command that makes them.
"""

from experiments.refit_accuracy import write_table


def main(arguments: list[str] | None = None) -> None:
    write_table("table4", "affectnet", __doc__, arguments)


if __name__ == "__main__":
    main()
