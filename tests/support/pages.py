"""Parts of the report's page alone, as its templates make them."""
from __future__ import annotations

from reports.render.page import ENVIRONMENT
from reports.tables.table import Table


def table_html(table: Table) -> str:
    """A table as it stands on the page: a `<figure>` with its notes, numbers linked to the entries of their runs."""
    return ENVIRONMENT.from_string('{% from "blocks.html.j2" import table %}{{ table(shown) }}').render(shown=table)
