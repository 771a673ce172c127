"""Which columns a file lacks, and which of its own look like them: `Timestamp` or `userId` are other columns,
and reading on without them would lose what they say.
"""

from collections.abc import Iterable, Sequence

from eddy.models.logs.formats.source import path_error
from eddy.models.storage import Location

_SHOWN = 20
"""Names of a file's columns that an error lists, at most."""


def require_columns(
    path: Location, names: Sequence[str], required: Iterable[str], optional: Iterable[str] = ()
) -> None:
    """Compare the names of a file's columns with those that are wanted.

    Errors: EddyError when a required column is missing, and when an optional one is missing while another
    column has its name but for case, spaces, hyphens and underscores.
    """
    missing = [name for name in required if name not in names]
    if missing:
        likely = _look_alikes(names, [*missing, *optional])
        has = f"; it has {_listed(names)}" if names else ""
        advice = f"; rename {_pairs(likely)}" if likely else ""
        raise path_error(path, f"no column {' and no '.join(missing)}{has}{advice}")
    likely = _look_alikes(names, optional)
    if likely:
        raise path_error(
            path, f"column {_listed(list(likely))} is not read under this name; rename {_pairs(likely)}, or "
            "remove it",
        )  # fmt: skip


def _look_alikes(names: Sequence[str], wanted: Iterable[str]) -> dict[str, str]:
    """The missing columns by the names of those that look like them."""
    missing = {_letters(name): name for name in wanted if name not in names}
    return {name: missing[_letters(name)] for name in names if _letters(name) in missing}


def _letters(name: str) -> str:
    return "".join(letter for letter in name.casefold() if letter not in " \t_-\ufeff")


def _pairs(look_alikes: dict[str, str]) -> str:
    return ", ".join(f"{_shown(name)} to {wanted}" for name, wanted in look_alikes.items())


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(map(_shown, names[:_SHOWN])) + more


def _shown(name: str) -> str:
    """A name, in quotation marks where it begins or ends with a space."""
    return name if name == name.strip() else repr(name)
