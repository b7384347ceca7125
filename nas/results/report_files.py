"""The report of a run as files in its folder, and as plain values for a program."""

from dataclasses import asdict
from pathlib import Path

from nas.record.atomic import replace_text, replacing_folder
from nas.record.run_folder import Run, RunFolder, open_run
from nas.record.tables.collector import without_collection
from nas.results.finish.finals import final_as_plain, finals_of, rank_correlation
from nas.results.finish.view import finals_frame
from nas.results.page import render
from nas.results.picks import architecture_text
from nas.results.results import Reference, Results, front_as_plain
from nas.results.tables.frames import curves_csv, front_frame, trial_frame
from nas.study.prior import Prior
from nas.study.study import StudyError


def report_of(path: Path, *, empties_front: bool = False) -> tuple[Run, Path]:
    """The run in a folder, read and reported as `write_report` does, and the path of the page.

    Raises:
        StudyError: It cannot be read, or as `write_report`.
    """
    with without_collection():
        before = _last_written(path)
        run = open_run(path)
        with run.folder.report_lock():
            if _last_written(path) != before:
                run = open_run(path)  # what another has written meanwhile may be of more trials
            return run, write_report(run, empties_front=empties_front)


def _last_written(path: Path) -> int | None:
    """When the page of the run in a folder was written; None: it was not."""
    page = RunFolder(path).report_html
    return page.stat().st_mtime_ns if page.exists() else None


def write_report(run: Run, *, empties_front: bool = False) -> Path:
    """Path of the page, after writing it and, beside it, `trials.csv`, `curves.csv`, `front.csv` and
    `front/*.yaml`.

    Each file is replaced whole. It may be called at any time, also while the search goes on.

    Args:
        empties_front: Whether a front without members may replace one that has some.
    Raises:
        StudyError: It would, and that was not asked for; nothing is written then.
    """
    results = Results(run)
    with without_collection():
        return _write_report(results, empties_front=empties_front)


def _write_report(results: Results, *, empties_front: bool) -> Path:
    run = results.run
    num_files = len(list(run.folder.architectures.glob("trial-*.yaml")))
    if num_files and not results.front and not empties_front:
        raise StudyError(
            f"report: must have a complete trial where {str(run.folder.architectures)!r} has {num_files} "
            f"architectures, got none of {len(results.trials)} trials; --force empties it"
        )
    replace_text(run.folder.report_html, render(results))  # first: it is what people wait for
    _write_architectures(results)
    replace_text(run.folder.trials_csv, trial_frame(results, results.trials).to_csv(index=False))
    replace_text(run.folder.curves_csv, curves_csv(results.trials))
    replace_text(run.folder.front_csv, front_frame(results).to_csv(index=False))
    if run.study.finals is not None:
        replace_text(run.folder.finals_csv, finals_frame(results).to_csv(index=False))
    return run.folder.report_html


def summarise(run: Run) -> dict[str, object]:
    """What `write_report` says, as plain values for a program.

    Accuracies lie in [0, 1], times are device-seconds, measured objectives are in their own units.
    """
    results = Results(run)
    return {
        "run": run.name,
        "folder": str(run.folder.path),
        "report": str(run.folder.report_html),
        "trials": results.counts,
        "budget": run.study.budget,
        "spent_device_seconds": results.spent_seconds,
        "lost_device_seconds": run.record.lost_seconds,
        "confirm_device_seconds": 0.0 if run.study.finals else run.record.confirm_seconds,
        "hypervolume": results.hypervolume,
        "outlook": results.outlook and results.outlook._asdict(),
        "prior": run.study.prior and _prior(run.study.prior, results),
        "objectives": list(results.goals.names),
        "uncertainty": _uncertainty(results),
        "front": front_as_plain(results),
        "references": [_reference(reference) for reference in results.references],
        **_finals(results),
        "baselines": {
            name: {"val_accuracy": val, "test_accuracy": test} for name, (val, test) in results.notes.baselines.items()
        },
        "events": [event.model_dump(mode="json") for event in results.notes.events],
    }


def _prior(prior: Prior, results: Results) -> dict[str, object]:
    """The earlier search that this one started from, and how far it agrees: Kendall's tau over complete trials."""
    found = results.prior_agreement
    return {"run": prior.run, "architectures": len(prior.models), "agreement": found and found._asdict()}


def _uncertainty(results: Results) -> dict[str, object] | None:
    """On what the intervals rest, and by how much the front's mean accuracy is expected to fall, in [0, 1]."""
    known = results.uncertainty
    if known is None:
        return None
    return {
        "num_val": known.num_val,
        "num_replicates": known.num_replicates,
        "seed_sd_logit": known.seed_sd,
        "expected_drop_to_test": known.expected_drop(results.front),
        "expected_drop_other_seeds": known.optimism(results.front),
    }


def _finals(results: Results) -> dict[str, object]:
    """The models of a study of finals, and what the search's ranking was worth; nothing of a search."""
    finals = finals_of(results)
    if not finals:
        return {}
    correlation = rank_correlation(finals)
    return {
        "finals": [final_as_plain(final) for final in finals],
        "rank_correlation": correlation and asdict(correlation),
    }


def _reference(reference: Reference) -> dict[str, object]:
    """A hand-designed model, and the found ones that dominate it or are tied with it."""
    return {
        "names": list(reference.names),
        "trial": reference.trial.number if reference.trial else None,
        "standing": reference.standing,
        "p_dominated": reference.p_dominated,
        "dominated_by": [trial.number for trial in reference.dominated_by],
        "tied_with": [trial.number for trial in reference.tied_with],
    }


def _write_architectures(results: Results) -> None:
    """Write a YAML file for each member of the front, and remove those of former members."""
    folder = results.run.folder.architectures
    names = {trial.number: Path(results.architecture_file(trial)).name for trial in results.front}
    with replacing_folder(folder) as part:
        for trial in results.front:
            name = names[trial.number]
            (part / name).write_text(architecture_text(results.run.name, trial, file=name), encoding="utf-8")
    for path in set(folder.glob("trial-*.yaml")) - {folder / name for name in names.values()}:
        path.unlink(missing_ok=True)
