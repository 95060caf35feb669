"""The report: one self-contained HTML file from the ledger's files alone. Knows no models and no device."""

from pathlib import Path


def write_report(run: Path) -> Path:
    """Write RUN/report.html from the ledger (whole or not at all) and return its path; a run that still plays will do.

    Parts whose files are not there yet are absent; parts whose files cannot be read are left out and named at the end.
    The same ledger gives the same bytes. Raises InputError where there is no run, or summary.json is damaged.
    """
    from arena.files import atomic
    from arena.report.page import render

    html = render(Path(run)).encode("utf-8", "replace")  # a lone surrogate in a file name must not cost the report
    path = Path(run) / "report.html"
    with atomic(path) as file:
        file.write(html)
    return path
