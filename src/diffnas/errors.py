"""The errors of diffnas.

    DiffnasError
    ├── UserError            what the caller can mend; the command line prints its lines and exits with 2
    │   ├── RecipeError      a recipe or an override
    │   ├── GenotypeError    a genotype that cannot be read or built
    │   ├── DataError        a data set, a file of it, or a split
    │   ├── RunError         a run folder
    │   ├── CheckpointError  no checkpoint that can be trusted
    │   ├── WeightsError     weights that do not fit a module
    │   ├── PluginError      a plug-in that cannot be loaded, or what it registers
    │   └── ResourceError    no room left on disk or in memory
    ├── Diverged             a loss that is no longer finite; exit code 1
    ├── ProcessLost          one of several processes has died, hangs or cannot be reached; exit code 1
    └── Interrupted          stopped by a signal after a checkpoint was written; exit code 130

A message names the file, the key and the remedy, one line per mistake.
"""

from __future__ import annotations


class DiffnasError(Exception):
    """Base of all errors that diffnas raises on purpose; `exit_code` is that of the command line (docs/errors.md)."""

    exit_code = 1


MOST = 20  # mistakes that are listed
LONGEST = 600  # characters of a line


class UserError(DiffnasError, ValueError):
    """Input that cannot be used: `lines` holds one line per mistake, `shown` the first twenty of them."""

    exit_code = 2

    def __init__(self, *lines: str) -> None:
        self.lines = tuple(_short(line) for line in lines)
        more = [f"and {len(lines) - MOST:,} more"] if len(lines) > MOST else []
        self.shown = (*self.lines[:MOST], *more)
        super().__init__("\n".join(self.shown))


def _short(line: str) -> str:
    """`line` without line breaks and with its middle left out where it is long: it begins with a place and ends in a remedy."""
    line = " ".join(line.split())
    return line if len(line) <= LONGEST else f"{line[: LONGEST * 2 // 3]} ... {line[-LONGEST // 3 :]}"


class RecipeError(UserError):
    """A recipe, or a value set on top of it, is refused."""


class GenotypeError(UserError):
    """A genotype cannot be read, or cannot be built in its space."""


class DataError(UserError):
    """A data set is missing, damaged, or does not fit what is asked of it."""


class RunError(UserError):
    """A run folder lacks what a command needs, or holds what it would overwrite."""


class CheckpointError(UserError):
    """No checkpoint of a run can be trusted."""


class WeightsError(UserError):
    """A state dict does not fit the module that it is loaded into."""


class PluginError(UserError):
    """A plug-in cannot be loaded, registers what cannot be used, or is not at hand."""


class ResourceError(UserError):
    """Disk or memory ran out, or cannot be enough; what was computed until the last checkpoint is kept."""


class Diverged(DiffnasError):  # noqa: N818 (the word for it)
    """A loss is not finite any more; nothing of its epoch was written."""


class ProcessLost(DiffnasError):  # noqa: N818 (the word for it)
    """One of the processes that compute together has ended, hangs or cannot be reached; checkpoints are kept."""


class Interrupted(DiffnasError):  # noqa: N818 (it is no error)
    """A signal stopped the work after a checkpoint was written; the message says how to go on."""

    exit_code = 130
