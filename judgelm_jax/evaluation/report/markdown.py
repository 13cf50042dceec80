"""A report as Markdown, for pull requests and issues."""

import re

from judgelm_jax.evaluation.report.content import Content, Table


def markdown(content: Content) -> str:
    """Sentences, tables, and the figures as files beside the page."""
    parts = [f"# {escaped(content.title)}", "\n\n".join(escaped(sentence) for sentence in content.sentences)]
    parts += [_table(table) for table in content.tables]
    parts += [f"![{escaped(figure.caption)}](figures/{figure.name}.png)" for figure in content.figures]
    return "\n\n".join(parts) + "\n"


def escaped(text: str) -> str:
    """A text as one line that Markdown and HTML show as it is. No name becomes a link, a mention, an image or a cell."""
    one_line = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_{}\[\]()#+!|~@^$])", r"\\\1", one_line)


def _table(table: Table) -> str:
    lines = [f"## {escaped(table.title)}", ""]
    for number, row in enumerate([table.header, *table.rows]):
        lines.append(f"| {' | '.join(map(escaped, row))} |")
        if number == 0:
            lines.append("|" + " --- |" * len(row))
    return "\n".join([*lines, *(["", escaped(table.note)] if table.note else [])])
