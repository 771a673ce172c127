"""The demo's summary: what was measured, the promises that must hold, and the table at the end."""

from dataclasses import asdict, dataclass, field
from pathlib import Path

from rich.table import Table

from eddy.models.errors import EddyError
from eddy.models.plain_json import lines_of_json

FILE = Path("demo-summary.json")
ROUNDED = 4


@dataclass
class Summary:
    """Figures of one run, under the names that README and tests use."""

    events_in: int
    """records written to `events`, malformed ones included"""
    events_applied: int
    """the worker's own count; each of them moved its user's state once"""
    events_generated: int
    """applied events of users who do not exist, fed when the log was over too soon to measure throughput"""
    dead_letters: int
    recommendations_out: int
    mode: str
    events_ranked: int
    """live events of real users in the paced part, each ranked before it was applied"""
    recall_at_20: float
    mrr_at_20: float
    popularity_recall_at_20: float
    popularity_mrr_at_20: float
    with_backlog: dict[str, float]
    """the same means over the paced part and the rest together. As fast as it goes, a micro-batch spans
    days of the log's time, so model and baseline rank by statistics that are days old
    """
    model_versions: int
    """number of versions that were live, one after the other"""
    refresh: str
    """what became of the second version"""
    refresh_reason: str
    """why the gate of the refresh let it pass, or did not"""
    throughput_events_per_s: float
    p50_ms: float
    p99_ms: float
    """in the paced part: from an event's append until a list that includes it was readable"""
    freshness_events: int
    http_answers: int
    http_failures: int
    watched_user: str
    watched_list_changes: int
    quick: bool
    first_version_from_cache: bool
    seconds: float
    phases: dict[str, float] = field(default_factory=dict)
    """seconds"""

    def failures(self, malformed: int, paced: int) -> list[str]:
        """The promises that do not hold, after so many `malformed` records and so many events in the paced
        part.
        """
        valid = self.events_in - self.dead_letters
        recall, popularity_recall = self.recall_at_20, self.popularity_recall_at_20
        mrr, popularity_mrr = self.mrr_at_20, self.popularity_mrr_at_20
        rules = {
            f"{self.events_applied} events were applied, {valid} valid ones came in": self.events_applied
            == valid,
            f"{self.dead_letters} dead letters for {malformed} malformed records": self.dead_letters
            == malformed,
            # More are answered where somebody clicks on the live page meanwhile.
            f"{self.freshness_events} of {paced} paced events were answered": self.freshness_events >= paced,
            f"{self.model_versions} model versions were live, not 2, although the second one passed": (
                self.model_versions >= 2 or self.refresh == "refused"
            ),
            f"{self.http_failures} of {self.http_answers} HTTP questions failed": self.http_failures == 0,
            f"Recall@20 {recall:.4f} does not beat decayed popularity's {popularity_recall:.4f}": (
                recall > popularity_recall
            ),
            f"MRR@20 {mrr:.4f} does not beat decayed popularity's {popularity_mrr:.4f}": mrr > popularity_mrr,
        }
        return [rule for rule, holds in rules.items() if not holds]

    def write(self, path: Path = FILE) -> None:
        """Write the figures as JSON. Errors: EddyError when the file cannot be written."""
        figures = {k: round(v, ROUNDED) if isinstance(v, float) else v for k, v in asdict(self).items()}
        try:
            path.write_text(lines_of_json(figures) + "\n", encoding="utf-8")
        except OSError as error:
            raise EddyError(f"{path.absolute()}: cannot be written ({error})") from None

    def table(self) -> Table:
        """The figures as a table for the terminal."""
        table = Table(title="Eddy demo", title_justify="left", show_header=False)
        generated = f", {self.events_generated:,} of them by generated users" if self.events_generated else ""
        rows = [
            ("events in", f"{self.events_in:,}{generated}"),
            ("applied, each once", f"{self.events_applied:,}"),
            ("dead letters", f"{self.dead_letters} (malformed on purpose)"),
            ("recommendations out", f"{self.recommendations_out:,}"),
            ("throughput", f"{self.throughput_events_per_s:,.0f} events/s"),
            (
                "freshness",
                f"p50 {self.p50_ms:,.0f} ms, p99 {self.p99_ms:,.0f} ms (event appended → list readable)",
            ),
            ("model versions live", f"{self.model_versions}, exchanged without stopping"),
            ("second version", f"{self.refresh}: {self.refresh_reason}"),
            ("HTTP", f"{self.http_answers:,} answers, {self.http_failures} failures"),
            (
                f"Recall@20, mode {self.mode}",
                f"{self.recall_at_20:.4f}, popularity {self.popularity_recall_at_20:.4f}",
            ),
            (
                f"MRR@20, mode {self.mode}",
                f"{self.mrr_at_20:.4f}, popularity {self.popularity_mrr_at_20:.4f}",
            ),
            ("took", f"{self.seconds:.0f} s"),
        ]
        for name, figure in rows:
            table.add_row(name, figure)
        return table
