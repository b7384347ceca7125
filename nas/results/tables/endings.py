"""What ended trials before their last epoch, and what runs did without being asked, by reason with examples."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from nas.record.notes import Event
from nas.record.trials import LeaseEnd, StopReason, TrialRecord, TrialState

_MOST_SENTENCES = 20  # about trials that were stopped, for each reason; they can be as many as the trials
_MOST_EXAMPLES = 5  # trials that are named for a reason
_STOPPED = {  # how each reason reads after a number of trials
    StopReason.BUDGET: "stopped because the budget was spent",
    StopReason.STOPPER: "stopped early",
    StopReason.LIMIT: "stopped over a limit on a measured objective",
    None: "stopped",
}
_INTERRUPTED = "a lease was interrupted; its trial goes on from the last checkpoint"
_NUMBER = re.compile(r"(?<![\w.])[-+]?\d[\d.,]*(?:e[-+]?\d+)?")


@dataclass(frozen=True)
class StoppedGroup:
    """The trials that were stopped for one reason, and the sentences about them, the most frequent first."""

    title: str
    number: int
    sentences: list[tuple[str, int]]
    num_more: int  # sentences that are not listed


@dataclass(frozen=True)
class Cause:
    """What happened to how many trials, or leases of them, for one reason."""

    what: str  # `failed`, `interrupted`, or the kind of an event
    reason: str  # the first of these sentences; others differ in numbers alone
    number: int
    examples: tuple[int, ...]  # the first trials, by number
    num_more: int  # trials beside them


def ended_early(trials: Iterable[TrialRecord]) -> list[tuple[str, list[TrialRecord]]]:
    """Trials that were stopped or failed, by what ended them; the most frequent first."""
    groups: dict[str, list[TrialRecord]] = defaultdict(list)
    for trial in trials:
        if trial.state is TrialState.STOPPED:
            groups[_STOPPED[trial.stop_reason]].append(trial)
        elif trial.state is TrialState.FAILED:
            groups["failed"].append(trial)
    return sorted(groups.items(), key=lambda group: -len(group[1]))


def stopped_groups(trials: Iterable[TrialRecord]) -> list[StoppedGroup]:
    """The trials that were stopped, by reason; the most frequent first."""
    groups = []
    for title, stopped in ended_early(trials):
        if title == "failed":
            continue
        said = Counter(trial.reason or "no reason given" for trial in stopped)
        sentences = said.most_common(_MOST_SENTENCES)
        groups.append(StoppedGroup(title, len(stopped), sentences, len(said) - len(sentences)))
    return groups


def causes(trials: Sequence[TrialRecord], events: Iterable[Event]) -> list[Cause]:
    """Failures of trials, interruptions, and what the run did without being asked; failures and frequent ones first.

    Sentences that differ in numbers alone are one reason.
    """
    found: list[tuple[str, str, int | None]] = []
    for trial in trials:
        if trial.state is TrialState.FAILED:
            found.append(("failed", trial.reason or "no reason given", trial.number))
        found += [("interrupted", _INTERRUPTED, trial.number)] * trial.count_ends(LeaseEnd.INTERRUPTED)
    found += [(event.kind.value, event.text, event.trial) for event in events]
    groups: dict[tuple[str, str], list[tuple[str, int | None]]] = defaultdict(list)
    for what, reason, number in found:
        groups[what, _NUMBER.sub("#", reason)].append((reason, number))
    listed = []
    for (what, _), members in groups.items():
        numbers = list(dict.fromkeys(number for _, number in members if number is not None))
        examples = tuple(numbers[:_MOST_EXAMPLES])
        listed.append(Cause(what, members[0][0], len(members), examples, len(numbers) - len(examples)))
    return sorted(listed, key=lambda cause: (cause.what != "failed", -cause.number))
