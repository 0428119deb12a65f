"""The run: section by section; the rows of one are written, and the page made anew, when it is over."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from robustness.progress import Progress
from robustness.results.files import replace_section, write_text
from robustness.suite.imagenet.contest import Contest
from robustness.suite.imagenet.jobs import Journal
from robustness.suite.imagenet.sections import earlier_rows, jobs_of
from robustness.suite.pages import refresh_page


def run_sections(
    contest: Contest, sections: Sequence[str], results: Path, journal: Journal, progress: Progress
) -> Path:
    """Measure ``sections`` and return the page. A section's rows and warnings replace those it had in ``results``.

    Of a section that the journal's deadline cut short, what was measured is written, and warned of.
    """
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
        done = journal.run(section, mine)
        if done < len(mine):
            session.warnings.append(f"section {section}: {done} of {len(mine)} parts were measured before time was up")
        if section != "pictures" and recorder.rows:
            _keep(contest, section, results, whole=done == len(mine))
        refresh_page(session.store, results)
    return refresh_page(session.store, results)


def _keep(contest: Contest, section: str, results: Path, *, whole: bool) -> None:
    """Write the section's rows and warnings; where time was up, an earlier run's that it did not reach stay."""
    session, recorder = contest.session, contest.session.recorder
    path = results / f"{recorder.suite}.jsonl"
    earlier = [] if whole else earlier_rows(path, section, contest, recorder.rows)
    replace_section([*recorder.rows, *earlier], section, path)
    told = dict.fromkeys(session.warnings)
    write_text(results / f"{recorder.suite}-{section}.warnings.txt", "".join(f"{line}\n" for line in told))
