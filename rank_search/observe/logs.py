"""Structured logs: every event is a few words and fields, among them the study, the trial, its attempt and the worker.

The application decides what becomes of them: rank-search as a library only logs, under `rank_search` in Python's own
`logging`. The command line and the workers are the application here and call `configure`: a line for people on
standard error, and JSON lines in a file.

    with configure("run.jsonl"), bound(study="digits", worker="host:1234"):
        trial_finished(12, "complete", 3.2, worker="host:1250")

Library code may use `logging` or structlog; both come out with the fields that are bound. No record holds credentials:
see `credentials`.
"""

from __future__ import annotations

import json
import logging
import math
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, ExitStack, suppress
from contextvars import copy_context
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final, ParamSpec, final

import structlog
from structlog.contextvars import bind_contextvars, bound_contextvars, get_contextvars, merge_contextvars
from structlog.stdlib import BoundLogger, ExtraAdder, LoggerFactory, PositionalArgumentsFormatter, ProcessorFormatter
from structlog.stdlib import filter_by_level as filtered
from structlog.typing import EventDict, Processor, WrappedLogger

from rank_search.basics import MASK, is_secret, masked
from rank_search.errors import RankSearchError

_FIELDS: Final = ("study", "trial", "attempt", "worker")
_ROOT: Final = logging.getLogger("rank_search")
_EVENTS: Final = logging.getLogger("rank_search.events")
_Parameters = ParamSpec("_Parameters")

_ROOT.addHandler(logging.NullHandler())


# ---- what happens in a run -------------------------------------------------------------------------------


def study_joined(store: str, target: int, finished: int) -> None:
    """A driver begins or resumes a study."""
    _tell(logging.INFO, "study joined", store=store, target=target, finished=finished)


def driver_done(complete: bool, recorded: int, seconds: float) -> None:
    """A driver ends; `complete`: the target was reached, `recorded`: by this driver."""
    _tell(logging.INFO, "driver done", complete=complete, recorded=recorded, seconds=seconds)


def trial_started(trial: int, *, budget: float, attempt: int = 1, worker: str | None = None) -> None:
    """A trial was handed to the workers; `worker`: to which, where that is known."""
    _tell(logging.INFO, "trial started", trial=trial, attempt=attempt, worker=worker, budget=budget)


def trial_finished(
    trial: int, state: str, seconds: float, *, reason: str = "", attempt: int = 1, worker: str | None = None
) -> None:
    """A trial was recorded; one that failed is a warning."""
    level = logging.WARNING if state == "failed" else logging.INFO
    fields = {"state": str(state), "seconds": round(seconds, 3), "reason": reason or None}
    _tell(level, "trial finished", trial=trial, attempt=attempt, worker=worker, **fields)


def result_dropped(trial: int, *, attempt: int, worker: str | None = None) -> None:
    """What came of a trial is not recorded: another driver had taken it over, and was faster."""
    _tell(logging.WARNING, "result dropped", trial=trial, attempt=attempt, worker=worker)


def trial_retried(trial: int, reason: str, *, attempt: int, worker: str | None = None) -> None:
    """A trial is tried again; `attempt`: which try that is, `worker`: where the one before ended."""
    _tell(logging.WARNING, "trial retried", trial=trial, attempt=attempt, worker=worker, reason=reason)


def trial_goes_on(trial: int, epoch: float, *, attempt: int) -> None:
    """A trial that was in flight before goes on from a checkpoint on its way, that many epochs after its beginning.

    Where its process has died, which is a warning, this is one, too: whoever reads that reads this.
    """
    _tell(logging.WARNING if attempt > 1 else logging.INFO, "trial goes on", trial=trial, attempt=attempt, epoch=epoch)


def trial_promoted(trial: int, budget: float) -> None:
    """A stopped trial goes on to a larger budget."""
    _tell(logging.INFO, "trial promoted", trial=trial, budget=budget)


def claim_taken_over(trial: int, holder: str, *, attempt: int) -> None:
    """A claim was taken over from `holder`, which is dead or silent; "" gave it up."""
    _tell(logging.WARNING if holder else logging.INFO, "claim taken over", trial=trial, attempt=attempt, holder=holder)


def worker_started(worker: str) -> None:
    """A worker is ready for its first trial."""
    _tell(logging.INFO, "worker started", worker=worker)


def worker_died(worker: str, reason: str) -> None:
    """A worker's process, or its machine, is gone."""
    _tell(logging.WARNING, "worker died", worker=worker, reason=reason)


def artifacts_unwritable(location: str, reason: str) -> None:
    """The artifact store takes no more files."""
    _tell(logging.ERROR, "artifacts unwritable", location=location, reason=reason)


def _tell(level: int, event: str, **fields: Any) -> None:
    """Log the event with the fields that are known, as attributes of the record: any application can use them."""
    context = get_contextvars()
    bound_here: dict[str, Any] = {name: context[name] for name in _FIELDS if name in context}
    given = {name: value for name, value in fields.items() if value is not None}
    _EVENTS.log(level, event, extra={**bound_here, **given})


# ---- the fields of everything that is logged here --------------------------------------------------------


def bind(*, study: str | None = None, worker: str | None = None) -> None:
    """Put the fields on everything that this process logs from now on in this thread."""
    given = {"study": study, "worker": worker}
    bind_contextvars(**{name: value for name, value in given.items() if value is not None})


def bound(*, study: str, worker: str) -> AbstractContextManager[None]:
    """Put the fields on everything that is logged inside."""
    return bound_contextvars(study=study, worker=worker)


def trial_context(number: int, attempt: int) -> AbstractContextManager[None]:
    """Put the trial's number and its attempt on everything that is logged inside."""
    return bound_contextvars(trial=number, attempt=attempt)


def carried(function: Callable[_Parameters, None]) -> Callable[_Parameters, None]:
    """The function, run with the fields that are bound here: the target of a thread, which begins with none."""
    return partial(copy_context().run, function)


# ---- where it goes ---------------------------------------------------------------------------------------


def configure(json_file: str | Path | None = None, level: int | str = logging.WARNING) -> ExitStack:
    """Write what this process logs: on standard error from `level` on, and everything from INFO on into a file.

    A line on standard error appears above a live display. The file gets one JSON object a line; several processes may
    append to one file. Called again, the newer settings count.

    Returns:
        What leaves logging as it was when it is closed. A process that logs until it ends may drop it.

    Raises:
        RankSearchError: the file cannot be written.
    """
    handlers: list[logging.Handler] = [_People(level)]
    if json_file is not None:
        handlers.append(_JsonLines(_opened(Path(json_file))))
    undo = ExitStack()
    undo.callback(_ROOT.setLevel, _ROOT.level)
    undo.callback(structlog.configure, **structlog.get_config())
    _replace_ours(handlers)
    undo.callback(_replace_ours, [])
    _ROOT.setLevel(min(handler.level for handler in handlers))
    structlog.configure(processors=_ON_THE_WAY, wrapper_class=BoundLogger, logger_factory=LoggerFactory())
    return undo


def _replace_ours(handlers: Iterable[logging.Handler]) -> None:
    for handler in list(_ROOT.handlers):
        if isinstance(handler, _People | _JsonLines):
            _ROOT.removeHandler(handler)
            handler.close()
    for handler in handlers:
        _ROOT.addHandler(handler)


def _opened(path: Path) -> Any:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("ab", buffering=0)
    except OSError as error:
        raise RankSearchError(f"The log file {path} cannot be written: {error.strerror}. Choose another.") from error


@final
class _People(logging.Handler):
    """Lines on what standard error is at that moment: a live display puts itself in its place."""

    def __init__(self, level: int | str) -> None:
        super().__init__(level)
        self.setFormatter(_formatter(_line))

    def emit(self, record: logging.LogRecord) -> None:
        if sys.stderr is not None:
            with suppress(OSError, ValueError):  # nobody reads it any more
                sys.stderr.write(self.format(record) + "\n")


@final
class _JsonLines(logging.Handler):
    """Each line is one write to a file that is open for appending, so that lines of several processes never mix."""

    def __init__(self, file: Any) -> None:
        super().__init__(logging.INFO)
        self._file = file
        self.setFormatter(_formatter(_json))

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._file.write(self.format(record).encode("utf-8", "backslashreplace") + b"\n")
        except OSError as error:
            self.setLevel(sys.maxsize)  # said once; the run goes on
            _EVENTS.warning("The log file %s ends here: %s.", self._file.name, error.strerror)

    def close(self) -> None:
        self._file.close()
        super().close()


# ---- how it is written -----------------------------------------------------------------------------------


def _without_secrets(name: str, value: Any) -> Any:
    """The value as JSON can hold it, masked however deep."""
    if is_secret(name):
        return MASK
    if value is None or isinstance(value, bool | int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    if isinstance(value, Mapping):
        return {masked(str(key)): _without_secrets(str(key), each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_without_secrets(name, each) for each in value]
    return masked(str(value))


def _tidy(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """When, how grave, what, and the fields: masked, those of the run first."""
    record: logging.LogRecord = event.pop("_record")
    del event["_from_structlog"]
    when = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
    ordered = {"timestamp": when, "level": record.levelname.lower(), "event": event.pop("event")}
    ordered |= {name: event.pop(name) for name in _FIELDS if name in event}
    ours = {name: value for name, value in event.items() if not name.startswith("_")}  # Ray adds some of its own
    ordered |= {**ours, "logger": record.name}
    return {name: _without_secrets(name, value) for name, value in ordered.items()}


def _json(logger: WrappedLogger, method: str, event: EventDict) -> str:
    return json.dumps(event, ensure_ascii=False)


def _line(logger: WrappedLogger, method: str, event: EventDict) -> str:
    """One line, in local time; a traceback follows it."""
    when = datetime.fromisoformat(event.pop("timestamp")).astimezone()
    level, what, trace = event.pop("level"), event.pop("event"), event.pop("exception", "")
    del event["logger"]
    fields = "".join(f" · {name} {_short(value)}" for name, value in event.items())
    return f"{when:%H:%M:%S} {level}: {_short(what)}{fields}" + (f"\n{trace}" if trace else "")


def _short(value: Any) -> str:
    text = f"{value:.4g}" if isinstance(value, float) else " ".join(str(value).split())
    return "".join(each if each.isprintable() else "�" for each in text)


def _formatter(last: Processor) -> ProcessorFormatter:
    chain: list[Processor] = [structlog.processors.format_exc_info, _tidy, last]
    return ProcessorFormatter(processors=chain, foreign_pre_chain=[ExtraAdder(), merge_contextvars])


_ON_THE_WAY: Final[list[Processor]] = [
    filtered,
    merge_contextvars,
    PositionalArgumentsFormatter(),
    ProcessorFormatter.wrap_for_formatter,
]
