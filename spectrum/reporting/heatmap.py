"""Layers x module types, one cell per parameter, coloured by rank within the module type."""

from collections import defaultdict

from rich.style import Style
from rich.table import Table
from rich.text import Text

from spectrum.errors import one_line
from spectrum.naming import common_prefix, natural_key
from spectrum.reporting.score_table import show_number
from spectrum.results.scan import ParameterScore, Scan
from spectrum.selection import rank

# From low to high: the 256-colour codes of a blue-to-yellow ramp that stays ordered in grey and for colour-blind eyes.
_RAMP = (17, 18, 24, 30, 36, 71, 107, 143, 179, 220)


def heatmap(scan: Scan) -> Table:
    """A table with a row per layer and a column per module type.

    The number is the SNR; the colour tells the rank within the column, because SNR of different module types do not
    compare. Parameters outside numbered layers are left out.
    """
    columns = _columns(scan)
    prefix = common_prefix(columns)
    table = Table(box=None, padding=(0, 1), pad_edge=False)
    table.add_column("layer", justify="right")
    for name in columns:
        table.add_column(Text(one_line(name.removeprefix(prefix))), justify="right", no_wrap=True)
    cells = {name: _cells(members) for name, members in columns.items()}
    for layer in sorted({layer for column in cells.values() for layer in column}):
        table.add_row(str(layer), *[cells[name].get(layer, Text("")) for name in columns])
    return table


def _columns(scan: Scan) -> dict[str, list[ParameterScore]]:
    columns: dict[str, list[ParameterScore]] = defaultdict(list)
    for item in scan.parameters:
        if item.layer is not None:
            columns[item.module_type].append(item)
    return dict(sorted(columns.items(), key=lambda column: natural_key(column[0])))


def _cells(members: list[ParameterScore]) -> dict[int, Text]:
    worst_first = rank(members)[::-1]
    return {
        item.layer: Text(f" {_short(item)} ", style=_style(position, len(members)))
        for position, item in enumerate(worst_first)
        if item.layer is not None
    }


def _short(item: ParameterScore) -> str:
    return "sat" if item.snr is None else show_number(item.snr)


def _style(position: int, count: int) -> Style:
    step = position * len(_RAMP) // count
    return Style(color="black" if step >= len(_RAMP) // 2 else "white", bgcolor=f"color({_RAMP[step]})")
