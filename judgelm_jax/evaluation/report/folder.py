"""A report in its folder: the page, Markdown, JSON and figures. It appears whole, or not at all."""

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from judgelm_jax.errors import InputError

if TYPE_CHECKING:
    from judgelm_jax.evaluation.report.content import Content

PAGE = "index.html"
_DATA = "report.json"
_FILES = {PAGE, "report.md", _DATA, "figures"}


def check_folder(folder: Path, overwrite: bool) -> None:
    """Before the work: whether a report can be written there.

    Raises:
      InputError: it exists, or holds something that is no part of a report.
    """
    if not folder.exists():
        if not folder.absolute().parent.is_dir():
            raise InputError(f"{folder}: the folder above it is missing; make it first")
        return
    if not folder.is_dir():
        raise InputError(f"{folder}: is a file; a report is a folder, choose another name")
    found = {path.name for path in folder.iterdir()}
    if found - _FILES:
        raise InputError(f"{folder}: holds {sorted(found - _FILES)[0]!r}, which is no part of a report; choose another folder")
    if found and not overwrite:
        raise InputError(f"{folder}: exists already; choose another name, or pass --overwrite to replace the report")


def write_report(content: "Content", folder: Path) -> Path:
    """Writes the report and returns the path of its page. An earlier report in the folder is replaced at the end.

    Raises:
      OSError: names the folder.
    """
    from judgelm_jax.evaluation.report.markdown import markdown
    from judgelm_jax.evaluation.report.page import page

    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        (partial / "figures").mkdir(parents=True)
        (partial / PAGE).write_text(page(content), encoding="utf-8")
        (partial / "report.md").write_text(markdown(content), encoding="utf-8", errors="replace")
        (partial / _DATA).write_text(json.dumps(content.data, indent=2, allow_nan=False) + "\n", encoding="utf-8")
        for figure in content.figures:
            (partial / "figures" / f"{figure.name}.svg").write_bytes(figure.light)
            (partial / "figures" / f"{figure.name}.png").write_bytes(figure.png)
        if folder.exists():
            shutil.rmtree(folder)
        partial.rename(folder)
    except OSError as error:
        error.filename = folder  # which a write that fails does not name
        raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder / PAGE
