"""A report as one HTML file that opens from disk, loads nothing, and runs no script but its own.

Text of records is never markup: what is written here is escaped, and the browser of records sets it as text. The policy in the
file's head lets only the one script and the one style sheet whose hashes it names work, and images that lie in the file.
"""

import base64
import dataclasses
import gzip
import hashlib
import html
import importlib.resources
import json
import unicodedata

from judgelm_jax.evaluation.report.content import Content, Table
from judgelm_jax.evaluation.report.figures import Figure
from judgelm_jax.evaluation.report.rows import FILTERS


def page(content: Content) -> str:
    """The whole file. Records lie in it compressed."""
    style, script = (_asset(name) for name in ("page.css", "page.js"))
    policy = (
        f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{text(content.title)}</title>
<style>{style}</style>
</head>
<body>
<header>
<h1>{text(content.title)}</h1>
</header>
<nav>{"".join(f'<a href="#{name.lower()}">{name}</a>' for name in ("Summary", "Figures", "Tables", "Records"))}</nav>
<main>
<section id="summary">
{"".join(f"<p>{text(sentence)}</p>" for sentence in content.sentences)}
</section>
<section id="figures"><h2>Figures</h2><div class="figures">
{"".join(_figure(figure) for figure in content.figures)}
</div></section>
<section id="tables"><h2>Tables</h2>
{"".join(_table(table) for table in content.tables)}
</section>
{_browser(content)}
</main>
<script>{script}</script>
</body>
</html>
"""


def text(value: str) -> str:
    """A text inside an element or an attribute: escaped, and isolated from the direction of what surrounds it."""
    visible = "".join(char if char in "\n\t" or unicodedata.category(char) != "Cc" else "\ufffd" for char in value)
    return html.escape(visible.encode("utf-8", "replace").decode("utf-8"), quote=True)


def packed(content: Content) -> str:
    """The rows of the browser: JSON, compressed with gzip, in base64."""
    rows = [dataclasses.asdict(row) for row in content.rows]
    raw = json.dumps({"filters": FILTERS, "rows": rows}, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    return base64.b64encode(gzip.compress(raw.encode("ascii"), 6, mtime=0)).decode("ascii")


def _browser(content: Content) -> str:
    if not content.rows:
        return ""
    return f"""<section id="records"><h2>Records</h2>
<noscript><p>The browser of records needs JavaScript; everything above does not.</p></noscript>
<div id="browser" hidden>
<div class="tools">
<input id="search" type="search" placeholder="Search questions, answers, ids ( / )" aria-label="Search">
<select id="sort" aria-label="Order">
<option value="input">in file order</option><option value="close">closest calls first</option>
<option value="long">longest first</option>
</select>
<select id="field" aria-label="Field to filter by"></select>
<select id="value" aria-label="Value of the field" hidden></select>
</div>
<div class="tools" id="filters"></div>
<p id="count" aria-live="polite"></p>
<div class="panes">
<ol id="list" tabindex="0" aria-label="Records; j and k move, Enter opens"></ol>
<article id="detail" hidden></article>
</div>
<button id="more" hidden>show more</button>
<p class="note">
Keys: <kbd>/</kbd> search, <kbd>j</kbd> <kbd>k</kbd> next and previous, <kbd>Enter</kbd> open, <kbd>Esc</kbd> close.
</p>
</div>
<script type="application/octet-stream" id="data">{packed(content)}</script>
</section>"""


def _figure(figure: Figure) -> str:
    light, dark = (base64.b64encode(svg).decode("ascii") for svg in (figure.light, figure.dark))
    prefix = "data:image/svg+xml;base64,"
    return (
        f'<figure><h3>{text(figure.title)}</h3><picture><source srcset="{prefix}{dark}" media="(prefers-color-scheme: dark)">'
        f'<img src="{prefix}{light}" alt="{text(figure.caption)}"></picture>'
        f"<figcaption>{text(figure.caption)}</figcaption></figure>"
    )


def _table(table: Table) -> str:
    head = "".join(f'<th scope="col"><bdi>{text(cell)}</bdi></th>' for cell in table.header)
    body = "".join(
        f'<tr><th scope="row"><bdi>{text(row[0])}</bdi></th>' + "".join(f"<td><bdi>{text(cell)}</bdi></td>" for cell in row[1:])
        + "</tr>"
        for row in table.rows
    )  # fmt: skip
    note = f'<p class="note">{text(table.note)}</p>' if table.note else ""
    return (
        f'<h3><bdi>{text(table.title)}</bdi></h3><div class="scroll"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>{note}"
    )


def _asset(name: str) -> str:
    return (importlib.resources.files(__package__) / name).read_text(encoding="utf-8")


def _hash(source: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(source.encode('utf-8')).digest()).decode('ascii')}"
