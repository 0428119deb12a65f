"""The run: section by section; the rows of one are written, and the page made anew, when it is over."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from robustness.progress import Progress
from robustness.results.files import replace_section, write_text
from robustness.suite.imagenet.contest import Contest
from robustness.suite.imagenet.jobs import Journal
from robustness.suite.imagenet.sections import jobs_of
from robustness.suite.pages import refresh_page


def run_sections(
    contest: Contest, sections: Sequence[str], results: Path, journal: Journal, progress: Progress
) -> Path:
    """Measure ``sections`` and return the page. A section's rows and warnings replace those it had in ``results``."""
    session = contest.session
    recorder = session.recorder
    jobs = {section: jobs_of(section, contest, results) for section in sections}
    for each in jobs.values():
        journal.expect(each)
    for number, (section, mine) in enumerate(jobs.items(), start=1):
        progress.section(section, number, len(jobs))
        recorder.section = section
        recorder.rows.clear()
        session.warnings.clear()
        journal.run(section, mine)
        if section != "pictures":
            replace_section(recorder.rows, section, results / f"{recorder.suite}.jsonl")
            told = dict.fromkeys(session.warnings)
            write_text(results / f"{recorder.suite}-{section}.warnings.txt", "".join(f"{line}\n" for line in told))
        refresh_page(session.store, results)
    return refresh_page(session.store, results)
