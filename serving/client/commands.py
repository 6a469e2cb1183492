"""``routine531``: asks a running service for plans, from a terminal or a script.

Exit codes: 0 if there is an answer, 2 if the request is at fault, 3 if the service is.
"""

import json
import sys
from collections.abc import Callable
from functools import wraps
from inspect import Signature, signature
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from serving.client.batch import batch_of
from serving.client.service import BAD_REQUEST, Service, ended
from serving.tasks.profile import EXPERIENCE, GENDERS, LIFTS, PURPOSE
from serving.tasks.rate.answer import RATES

SEXES = {"male": GENDERS[0], "female": GENDERS[1]}

app = typer.Typer(
    help="Ask a routine-serving for months of 5/3/1.", no_args_is_help=True, rich_markup_mode=None
)


def _meanings(codes: dict[int, str]) -> str:
    return ", ".join(f"{code} {meaning}" for code, meaning in codes.items())


Experience = Annotated[int | None, typer.Option(help=_meanings(EXPERIENCE))]
Sex = Annotated[str | None, typer.Option(help="male or female")]
Purpose = Annotated[int | None, typer.Option(help=_meanings(PURPOSE))]
Kilograms = Annotated[float | None, typer.Option(help="1RM in kg")]
Rates = Annotated[
    str | None, typer.Option(help="the four rates of a rate answer, such as 55,10,5,50")
]
Request = Annotated[
    Path | None, typer.Option(help="a file with the request as JSON, - for standard input")
]
AsJson = Annotated[bool, typer.Option("--json", help="print the answer as JSON")]


@app.callback()
def connect(
    context: typer.Context,
    url: Annotated[
        str, typer.Option(envvar="ROUTINE531_URL", help="address of the service")
    ] = "http://127.0.0.1:8000",
    key: Annotated[
        str | None, typer.Option(envvar="ROUTINE531_KEY", help="sent as a bearer token")
    ] = None,
    wait: Annotated[
        float, typer.Option(help="seconds to try again as long as the service is busy")
    ] = 30,
) -> None:
    try:
        httpx.URL(url)
    except httpx.InvalidURL as error:
        raise ended(f"--url cannot be {url!r}: {error}", BAD_REQUEST) from error
    context.obj = Service(url, key, wait)


def _read(request: Path | None) -> dict[str, Any]:
    """Return the request in a file; nothing if there is none."""
    if request is None:
        return {}
    try:
        text = sys.stdin.read() if str(request) == "-" else request.read_text(encoding="utf-8")
        read = json.loads(text)
    except (OSError, ValueError) as error:
        raise ended(f"--request {request}: {error}", BAD_REQUEST) from error
    if not isinstance(read, dict):
        raise ended(f"--request {request} is no JSON object", BAD_REQUEST)
    return read


def _numbers(option: str, text: str | None, names: list[str]) -> dict[str, Any] | None:
    """Return the numbers of an option by name; None if it was not given."""
    if text is None:
        return None
    parts = text.split(",")
    if len(parts) != len(names) or not all(part.strip().isdecimal() for part in parts):
        raise ended(
            f"{option} cannot be {text!r}; it must be {len(names)} numbers: {', '.join(names)}",
            BAD_REQUEST,
        )
    return {name: int(part) for name, part in zip(names, parts, strict=True)}


def _put(body: dict[str, Any], told: dict[str, Any]) -> dict[str, Any]:
    """Return ``body`` with what was told put over it."""
    return body | {name: value for name, value in told.items() if value is not None}


def _profile(
    experience: Experience = None,
    sex: Sex = None,
    purpose: Purpose = None,
    bench: Kilograms = None,
    squat: Kilograms = None,
    deadlift: Kilograms = None,
    press: Kilograms = None,
    request: Request = None,
) -> dict[str, Any]:
    """Return the request in a file, with what the options say put over it."""
    sex = SEXES.get(sex, sex) if sex else None
    body = _read(request)
    body = _put(body, {"experience": experience, "gender": sex, "purpose": purpose})
    given = dict(zip(LIFTS, (bench, squat, deadlift, press), strict=True))
    before = body.get("rm_weight")
    weights = _put(before if isinstance(before, dict) else {}, given)
    return _put(body, {"rm_weight": weights or None})


def _asking(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of ``_profile``, and the request they make as its ``body``."""
    shared = signature(_profile).parameters.values()
    context, _, *own = signature(command).parameters.values()

    @wraps(command)
    def asking(context: typer.Context, **given: Any) -> None:
        body = _profile(**{option.name: given.pop(option.name) for option in shared})
        command(context, body, **given)

    setattr(asking, "__signature__", Signature([context, *shared, *own]))  # noqa: B010
    return asking


@app.command()
@_asking
def rate(
    context: typer.Context,
    body: dict[str, Any],
    as_json: AsJson = False,
) -> None:
    """The four rates of a month, and its percentages."""
    text = context.obj.ask("rate", body)
    if as_json:
        sys.stdout.write(text + "\n")
        return
    answer = json.loads(text)
    table = Table(title=answer["program"])
    weeks = [week.splitlines() for week in answer.pop("weekly_weight_increase_plan").split("\n\n")]
    for week, *_ in weeks:
        table.add_column(week)
    for sets in zip(*(week[1:] for week in weeks), strict=True):
        table.add_row(*sets)
    Console().print(table)
    rates = ",".join(str(rate) for rate in answer.values() if isinstance(rate, int))
    sys.stdout.write(f"--rates {rates}\n")


@app.command()
@_asking
def month(
    context: typer.Context,
    body: dict[str, Any],
    days: Annotated[int | None, typer.Option(help="training days a week, 2 to 4")] = None,
    basis: Annotated[str | None, typer.Option(help="percentages of: 1rm or tm")] = None,
    bar: Annotated[float | None, typer.Option(help="weight of the bar in kg")] = None,
    rates: Rates = None,
    calendar: Annotated[
        str | None, typer.Option(help="first training day, YYYY-MM-DD: print iCalendar")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Four weeks of training days, as a table, JSON or a calendar."""
    others = {"days_per_week": days, "basis": basis, "bar": bar, "rates": _rates(rates)}
    body = _put(body, others)
    if calendar is not None:
        route = str(httpx.URL("month", params={"start": calendar}))
        sys.stdout.write(context.obj.ask(route, body, "text/calendar"))
    elif as_json:
        sys.stdout.write(context.obj.ask("month", body) + "\n")
    else:
        answer = json.loads(context.obj.ask("month", body))
        Console().print(*map(_table, answer["weeks"]), *answer["notes"], sep="\n")


def _table(week: dict[str, Any]) -> Table:
    """Return a week as a table, a line a set."""
    title = f"{week['week']}주차" + ", 디로딩" * week["deload"]
    table = Table("일", "리프트", "웜업", "본 세트", "보조 운동", title=title, show_lines=True)
    for day in week["days"]:
        first = [str(day["day"])]
        work = [f"{one['name']} {one['sets']}×{one['repetitions']}" for one in day["assistance"]]
        for main in day["lifts"]:
            cells = (
                first,
                [LIFTS[main["lift"]]],
                *map(_sets, (main["warm_up"], main["sets"])),
                work,
            )
            table.add_row(*(Text("\n".join(cell), overflow="fold") for cell in cells))
            first = work = []
    return table


def _sets(sets: list[dict[str, Any]]) -> list[str]:
    found = []
    for one in sets:
        plates = "+".join(f"{kg:g}" for kg in one["plates"]) or "빈 바"
        side = "빈 바보다 가벼움" if one["below_bar"] else f"[{plates}]"
        found.append(f"{one['kg']:g} kg × {one['repetitions']}{'+' * one['amrap']} {side}")
    return found


@app.command("next")
@_asking
def next_month(
    context: typer.Context,
    body: dict[str, Any],
    reached: Annotated[
        str | None,
        typer.Option(help="repetitions of week 3's last sets: bench, squat, deadlift, press"),
    ] = None,
    rates: Rates = None,
    as_json: AsJson = False,
) -> None:
    """The 1RMs of the next month, from the repetitions reached in this one."""
    others = {"rates": _rates(rates), "repetitions": _numbers("--reached", reached, list(LIFTS))}
    text = context.obj.ask("next", _put(body, others))
    if as_json:
        sys.stdout.write(text + "\n")
        return
    table = Table("lift", "kg", "repetitions", "1RM", "next 1RM", "change")
    for lift, one in json.loads(text)["lifts"].items():
        cells = (one["kg"], one["repetitions"], one["before"], one["after"], one["change"])
        table.add_row(LIFTS[lift], *map(str, cells))
    Console().print(table)


def _rates(text: str | None) -> dict[str, Any] | None:
    return _numbers("--rates", text, list(RATES))


@app.command()
def batch(
    context: typer.Context,
    source: Annotated[
        Path, typer.Argument(help="a request a line, as JSON, or OpenAI's batch file")
    ],
    target: Annotated[
        Path, typer.Argument(help="for the answers; those it has are not asked for again")
    ],
    task: Annotated[str, typer.Option(help="what is asked: rate or month")] = "rate",
) -> None:
    """The answers to many requests, as they come, from where an earlier run stopped."""
    batch_of(context.obj, task, source, target)
