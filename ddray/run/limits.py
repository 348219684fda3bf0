"""What a person gives a run: so long, until then, so many hours of cards."""

from __future__ import annotations

import re
from datetime import datetime, timedelta

from ddray.errors import RequestError
from ddray.run.simulate import HOUR, NO_LIMIT, Limit

_UNITS = {"s": 1.0, "m": 60.0, "min": 60.0, "h": HOUR, "d": 24 * HOUR}
_DURATION = r"([0-9]+(?:\.[0-9]+)?)\s*(s|m|min|h|d)"


def limit_of(given_for: str | None, until: str | None, budget: str | None, now: datetime) -> Limit:
    """The limit that options ask for.

    Args:
        given_for: ``90m``, ``12h``, ``2d``.
        until: ``18:00``, the next time it is so late; or a date with it, ``2026-12-01 08:00``.
        budget: ``200h``: of whole cards, or of cores where there are no cards.
        now: Local time.

    Raises:
        RequestError: Not in one of these forms, two ends, an end that is past, or nothing at all.
    """
    if given_for is not None and until is not None:
        raise RequestError([f"--for {given_for} --until {until}: two ends of one run; expected one. Leave one out."])
    seconds = None
    if given_for is not None:
        seconds = _seconds(given_for, "--for")
    elif until is not None:
        seconds = (_moment(until, now) - now).total_seconds()
    hours = None if budget is None else _seconds(budget, "--budget") / HOUR
    return Limit(seconds, hours) if (seconds, hours) != (None, None) else NO_LIMIT


def _seconds(text: str, option: str) -> float:
    found = re.fullmatch(_DURATION, text.strip())
    if found is None or not float(found[1]):
        raise RequestError(
            [f"{option}: not a time; got {text!r}; expected a number above 0 and s, m, h or d, like 12h."]
        )
    return float(found[1]) * _UNITS[found[2]]


def _moment(text: str, now: datetime) -> datetime:
    try:
        if re.fullmatch(r"\d{1,2}:\d{2}", text.strip()):
            hour, minute = map(int, text.split(":"))
            moment = now.replace(hour=hour, minute=minute, second=0, microsecond=0)
            return moment if moment > now else moment + timedelta(days=1)
        moment = datetime.fromisoformat(text.strip())
        moment = moment.astimezone(now.tzinfo) if moment.tzinfo is not None else moment.replace(tzinfo=now.tzinfo)
    except ValueError:
        raise RequestError(
            [f"--until: not a time; got {text!r}; expected an hour like 18:00, or with a date, 2026-12-01 08:00."]
        ) from None
    if moment <= now:
        raise RequestError([f"--until: is past; got {text}; expected later than {now:%Y-%m-%d %H:%M}."])
    return moment


def limit_text(limit: Limit) -> str:
    """``within 12 h``, ``for 200 h of cards or cores``."""
    parts = []
    if limit.seconds is not None:
        parts.append(f"within {limit.seconds / HOUR:.3g} h by the clock")
    if limit.budget is not None:
        parts.append(f"for {limit.budget:.4g} h of cards, or of cores")
    return " and ".join(parts)
