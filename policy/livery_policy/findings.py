"""What is wrong, or worth a look, in policy text: as data, one finding per place.

Owns: `Finding` and its one-line form. Does not own: the checks (`source`, `compiling`, `lint`).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    """An error keeps the whole set from being loaded; a warning does not."""

    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """One finding. `line` counts from 1 and is where the policy's statement begins; 0 is the file as a whole."""

    file: str
    line: int
    code: str  # a stable word: syntax, missing-id, duplicate-id, unguarded-attribute, …
    message: str
    severity: Severity = Severity.ERROR
    policy: str | None = None

    @property
    def is_error(self) -> bool:
        """Whether this keeps the set from being loaded."""
        return self.severity is Severity.ERROR

    @property
    def where(self) -> str:
        """The file and, if it is about one, the line."""
        return f"{self.file}:{self.line}" if self.line else self.file

    def as_dict(self) -> dict[str, object]:
        """The finding as plain data, for `--output json` and the administrator's answers."""
        return {
            "file": self.file,
            "line": self.line,
            "code": self.code,
            "severity": str(self.severity),
            "policy": self.policy,
            "message": self.message,
        }

    def __str__(self) -> str:
        about = f" {self.policy}:" if self.policy else ""
        return f"{self.where}: {self.severity}:{about} {self.message} [{self.code}]"
