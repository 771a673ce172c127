"""The work of `eddy models compare`: two versions on the same events, as a table."""

from pathlib import Path

import typer

from eddy.cli.terminal import progress_bar, require_figures_file, write_figures
from eddy.models.evaluation.judgement import POPULARITY, Judgement
from eddy.models.evaluation.metrics import NAMES
from eddy.models.logs.events import read_events
from eddy.models.registry import load
from eddy.refresh.compare import compare_versions
from eddy.stream.records.settings import Settings


def compare(
    settings: Settings, first: str, second: str, events: str | None, time_unit: str, metric: str,
    figures: Path | None,
) -> None:  # fmt: skip
    """Print what both versions reach on events that neither has seen, and the difference.

    Errors: EddyError.
    """
    require_figures_file(figures)
    versions = load(settings.registry / first), load(settings.registry / second)
    log = read_events(events or settings.event_log, time_unit)
    with progress_bar() as show:
        judgement = compare_versions(
            log, *versions, settings.rules, "unseen" if settings.exclude_seen else "all", metric,
            lambda done, of: show("ranking", done, of),
        )  # fmt: skip
    typer.echo(table(judgement, first, second))
    write_figures(figures, {"first": first, "second": second, **judgement.to_dict()})


def table(judgement: Judgement, first: str, second: str) -> str:
    """A line for each version and for decayed popularity, and one for what the second gains."""
    of_line = {first: "live", second: "candidate", POPULARITY.replace("_", " "): POPULARITY}
    width = max(map(len, of_line))
    lines = [
        f"{judgement.targets:,} events of {judgement.users:,} users that neither version has seen, "
        f"mode {judgement.mode}",
        " ".join(["".ljust(width), *(name.rjust(9) for name in NAMES)]),
    ]
    for name, key in of_line.items():
        values = judgement.metrics[key]
        lines.append(" ".join([name.ljust(width), *(f"{values[metric]:9.4f}" for metric in NAMES)]))
    lines.append(f"{judgement.metric} of {second} less that of {first}: {judgement.gains['live']}")
    return "\n".join(lines)
