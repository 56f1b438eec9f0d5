"""What a run has found: tables for people, printed line by line as they come, and figures for the goals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass
class Table:
    """A table of the page with its heading, its columns and remarks below it."""

    heading: str
    columns: Sequence[str]
    rows: list[Sequence[str]] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    def row(self, *cells: str) -> None:
        """Add a line, and print it."""
        assert len(cells) == len(self.columns), (self.columns, cells)
        self.rows.append(cells)
        print(line(cells), flush=True)

    def remark(self, text: str) -> None:
        """Add a sentence below the table, and print it."""
        self.remarks.append(text)
        print(text, flush=True)

    def markdown(self) -> str:
        """The table as the page has it: the first column to the left, the others to the right."""
        lines = [f"## {self.heading}", ""]
        if self.rows:
            rule = line(["---", *["---:"] * (len(self.columns) - 1)])
            lines += [line(self.columns), rule, *map(line, self.rows), ""]
        return "\n".join([*lines, *(f"{remark}\n" for remark in self.remarks)])


@dataclass
class Report:
    """Everything one run has found."""

    tables: list[Table] = field(default_factory=list)
    figures: dict[str, float] = field(default_factory=dict)

    def table(self, heading: str, *columns: str) -> Table:
        """Begin a table, and print its head."""
        table = Table(heading, columns)
        self.tables.append(table)
        print(f"\n## {heading}", *([line(columns)] if columns else ()), sep="\n", flush=True)
        return table


def line(cells: Sequence[str]) -> str:
    """A line of a table."""
    return f"| {' | '.join(cells)} |"
