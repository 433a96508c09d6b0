"""Figure 6 of the paper from finished runs: the confusion matrix on the test set of RAF-DB.

`make figure6`. Of the crops after module 1 by the soft vote, after refit (without, where no refit was run; the
caption says which). Nothing is trained: missing runs are listed with the command that makes them.
"""

from experiments.confusion import write_figure


def main(arguments: list[str] | None = None) -> None:
    write_figure("figure6", "rafdb", __doc__, arguments)


if __name__ == "__main__":
    main()
