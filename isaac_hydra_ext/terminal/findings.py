"""What checks have found, as lines: `appo doctor`'s of a machine, `appo check`'s of an env.

Imports the standard library alone, as the doctor must.
"""

import textwrap
from dataclasses import dataclass
from typing import Literal

INDENT = 21  # where a finding's text begins
Status = Literal["ok", "warn", "fail"]


@dataclass(frozen=True)
class Finding:
    """What one check has found.

    Attributes:
        name: Of the check.
        status: ok; warn: something will not work or be slow; fail: runs cannot work.
        found: What there is, in one line.
        fix: What to do, for warn and fail.
    """

    name: str
    status: Status
    found: str
    fix: str = ""


def verdict(findings: list[Finding]) -> str:
    """Return the worst status of all."""
    found = {finding.status for finding in findings}
    return next((s for s in ("fail", "warn") if s in found), "ok")


def as_text(findings: list[Finding], width: int = 1000) -> str:
    """Return one line a finding, and one for its fix; wrapped to `width` columns."""
    lines = []
    for finding in findings:
        texts = [f"{finding.status:5} {finding.name:14} {finding.found}"]
        if finding.fix:
            texts.append(f"{'':{INDENT}}-> {finding.fix}")
        for text in texts:
            indent = " " * (INDENT if text is texts[0] else INDENT + 3)
            lines += textwrap.wrap(
                text, width, subsequent_indent=indent, break_long_words=False,
                break_on_hyphens=False,
            )  # fmt: skip
    counts = {s: sum(f.status == s for f in findings) for s in ("ok", "warn", "fail")}
    return "\n".join([*lines, ", ".join(f"{n} {status}" for status, n in counts.items())])
