"""What an audit has to say: one finding, its severity and its remedy."""

from typing import Any

EXAMPLES = 5  # named in a finding


def finding(what: str, severity: str, text: str, remedy: str, **more: Any) -> dict[str, Any]:
    return {"what": what, "severity": severity, "text": text, "remedy": remedy, "count": 0, "examples": [], **more}
