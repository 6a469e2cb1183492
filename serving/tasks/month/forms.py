"""Month answers as a printable table or a calendar."""

import re
import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, timedelta

from icalendar import Calendar, Event
from tabulate import tabulate

from serving.tasks.base import Form, QueryError
from serving.tasks.month.answer import Day, LiftSet, MonthAnswer, Week
from serving.tasks.profile import LIFTS

BASIS = {"1rm": "1RM", "tm": "트레이닝 맥스 (1RM의 90%)"}
DAY_OFFSETS = {2: (0, 3), 3: (0, 2, 4), 4: (0, 1, 3, 4)}
"""Day offsets from a week's first training day, by days per week; at most two days in a row."""
FIRST_DATE, LAST_DATE = date(2000, 1, 1), date(2100, 12, 31)
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
"""RFC 3339, as OpenAPI's ``date``; Python also reads ISO 8601's weeks."""
NOTES = (
    "+는 할 수 있는 만큼 반복합니다. 중량은 바 무게를 포함합니다. [ ]는 바 한쪽에 끼울 "
    "원판(kg)입니다. "
    "빈 바보다 가벼운 세트는 더 가벼운 바나 덤벨로 합니다. "
    "한쪽씩 하는 운동의 반복 횟수는 한쪽 기준입니다."
)


def start_date(query: Mapping[str, str]) -> date:
    """Return the first training day from a query.

    Raises:
        QueryError: the date is missing, invalid or out of range.
    """
    given = query.get("start")
    if given is None:
        raise QueryError(
            "start", "start is missing; a calendar needs the first training day: ?start=2026-12-07"
        )
    if _DATE.fullmatch(given):
        try:
            start = date.fromisoformat(given)
        except ValueError as error:
            raise QueryError("start", f"start cannot be {given}; there is no such day") from error
        if FIRST_DATE <= start <= LAST_DATE:
            return start
    raise QueryError(
        "start",
        f"start cannot be {given[:80]!r}; it must be a date from {FIRST_DATE} to {LAST_DATE}",
    )


def markdown(text: str) -> str:
    """Render a month as Markdown tables in Korean, one per week.

    Args:
        text: the answer, a ``MonthAnswer`` in JSON.
    """
    month = MonthAnswer.model_validate_json(text)
    parts = ["# 5/3/1 한 달 루틴", *_facts(month)]
    headers = ["훈련일", "메인 리프트", "웜업", "1세트", "2세트", "3세트", "보조 운동"]
    for week in month.weeks:
        rows = [row for day in week.days for row in _rows(day)]
        table = tabulate(rows, headers, tablefmt="pipe", disable_numparse=True)
        parts += [f"## {_title(week)}", table]
    return "\n\n".join([*parts, NOTES, *month.notes]) + "\n"


def _facts(month: MonthAnswer) -> list[str]:
    rates = month.rates
    found = [
        f"주 {month.days_per_week}일, 기준 {BASIS[month.basis]}, 바 {month.bar:g} kg, "
        f"중량 단위 {month.plate_step:g} kg",
        f"첫 주 첫 세트 {rates.init_weight_rate}%, 주마다 +{rates.increase_rate_week}%p, "
        f"세트마다 +{rates.increase_rate_set}%p, 디로딩 첫 세트 {rates.deloading_rate}%",
    ]
    if month.training_max:
        kg = month.training_max.model_dump()
        found.append(f"트레이닝 맥스: {', '.join(f'{LIFTS[lift]} {kg[lift]:g} kg' for lift in kg)}")
    return found


def _rows(day: Day) -> list[list[str]]:
    """Return a table row per lift; day and assistance stand in the first."""
    first, assistance = f"{day.day}일차", ", ".join(_assistance(day))
    found = []
    for main in day.lifts:
        warm_up = ", ".join(map(_set, main.warm_up))
        found.append([first, LIFTS[main.lift], warm_up, *map(_set, main.sets), assistance])
        first = assistance = ""
    return found


def calendar(text: str, start: date) -> bytes:
    """Render a month as iCalendar (RFC 5545), with an all-day event per training day.

    Args:
        text: the answer, a ``MonthAnswer`` in JSON.
        start: the first training day. The same answer and start give the same event UIDs, so
            importing twice creates no duplicates.
    """
    month = MonthAnswer.model_validate_json(text)
    found = Calendar()
    found.add("prodid", "-//routine-serving//5/3/1//KO")
    found.add("version", "2.0")
    found.add("x-wr-calname", "5/3/1 한 달 루틴")
    offsets = DAY_OFFSETS[month.days_per_week]
    for week in month.weeks:
        for day in week.days:
            on = start + timedelta(weeks=week.week - 1, days=offsets[day.day - 1])
            event = Event()
            event.add("uid", uuid.uuid5(uuid.NAMESPACE_OID, f"{text} {on}").urn)
            event.add("dtstamp", datetime.now(UTC))
            event.add("dtstart", on)
            event.add("dtend", on + timedelta(days=1))
            event.add("transp", "TRANSPARENT")  # the day is not busy
            lifts = ", ".join(LIFTS[main.lift] for main in day.lifts)
            event.add("summary", f"{lifts} ({_title(week)})")
            event.add("description", "\n".join([*_lines(day), *_assistance(day), NOTES]))
            found.add_component(event)
    ical: bytes = found.to_ical()
    return ical


def _title(week: Week) -> str:
    return f"{week.week}주차" + (", 디로딩" if week.deload else "")


def _lines(day: Day) -> list[str]:
    found = []
    for main in day.lifts:
        found.append(LIFTS[main.lift])
        found += [f"웜업 {_set(one)}" for one in main.warm_up]
        found += [_set(one) for one in main.sets]
    return found


def _set(one: LiftSet) -> str:
    load = f"{one.kg:g} kg × {one.repetitions}{'+' * one.amrap} ({one.percent}%)"
    if one.below_bar:
        return f"{load} 빈 바보다 가벼움"
    return f"{load} [{'+'.join(f'{kg:g}' for kg in one.plates) or '빈 바'}]"


def _assistance(day: Day) -> list[str]:
    return [f"{one.name} {one.sets}×{one.repetitions}" for one in day.assistance]


def _calendar_from(query: Mapping[str, str]) -> Callable[[str], bytes]:
    start = start_date(query)
    return lambda text: calendar(text, start)


TABLE = Form("text/markdown", lambda _: markdown)
CALENDAR = Form(
    "text/calendar",
    _calendar_from,
    (
        {
            "name": "start",
            "in": "query",
            "schema": {"type": "string", "format": "date"},
            "description": "첫 훈련일 (예: 2026-12-07). `text/calendar`에 필요합니다",
        },
    ),
    file_name="routine.ics",
)
