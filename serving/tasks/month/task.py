"""The ``Task`` implementation for Task 2."""

from collections.abc import Mapping
from random import Random
from typing import Any

from serving.language.fields import Values
from serving.language.output import Output
from serving.tasks.base import Form, Task
from serving.tasks.month.answer import MonthAnswer, MonthRequest, render
from serving.tasks.month.assistance import output_for
from serving.tasks.month.check import RULES, check_month
from serving.tasks.month.examples import ANSWER, BAD, EDGES, EXAMPLES, request_of
from serving.tasks.month.week import DAYS
from serving.tasks.profile import (
    EXPERIENCE,
    LIFTS,
    Profile,
    describe,
    draw,
    on_grid,
    standings,
)
from serving.tasks.prompt import Facts
from serving.tasks.rate.answer import OUTPUT, RATES, Rates

EXPERIENCE_FACT, DAYS_FACT = "운동경험", "주당 훈련일"


class MonthTask(Task[MonthRequest]):
    """Decides each day's assistance work from profile, days and rates; computes the rest."""

    name = "month"
    summary = "한 달 5/3/1 루틴: 날마다 메인 리프트의 중량(kg)과 보조 운동"
    title = "5/3/1 한 달 보조 운동"
    request = MonthRequest
    response = MonthAnswer
    rules = RULES
    examples = EXAMPLES
    edges = EDGES
    example_answer = ANSWER
    bad = BAD
    part = "day"
    least_score = 0.99
    prerequisite = "rate"

    def facts(self, request: MonthRequest) -> Facts:
        """Return the inputs that assistance work depends on: the month's heaviest set, and each
        lift's weight, rounded to 2.5 kg, with how it stands among the four."""
        assert request.rates, "Task 1 comes first"
        stands, weights = standings(request), request.rm_weight
        return {
            EXPERIENCE_FACT: request.experience,
            "성별": request.gender,
            "운동목표": request.purpose,
            DAYS_FACT: request.days_per_week,
            "최고 강도": f"{request.rates.top}%",
            "1RM": {
                name: f"{on_grid(getattr(weights, lift)):g}kg, {stands[lift]}"
                for lift, name in LIFTS.items()
            },
        }

    def output(self, facts: Facts) -> Output:
        """Return the assistance output for the experience and days in ``facts``."""
        experience, days = int(str(facts[EXPERIENCE_FACT])), int(str(facts[DAYS_FACT]))
        if experience not in EXPERIENCE or days not in DAYS:
            raise ValueError(f"no experience {experience} on {days} days a week")
        return output_for(experience, days)

    def render(self, request: MonthRequest, values: Values) -> str:
        """Return the four weeks as JSON."""
        return render(request, values)

    def check(self, request: MonthRequest, answer: Mapping[str, Any]) -> list[str]:
        """Recompute and compare every day."""
        return check_month(request, answer)

    def draw(self, rng: Random) -> MonthRequest:
        """Draw a realistic profile, training days and valid rates."""
        profile, rates = draw(rng), OUTPUT.sample(rng)
        return request_of(profile, rng.choice((2, 3, 4)), tuple(rates[name] for name in RATES))

    def describe(self, request: MonthRequest) -> str:
        """Describe experience, gender and purpose."""
        return describe(request)

    def missing(self, request: MonthRequest) -> Profile | None:
        """Return the profile if the request has no rates."""
        if request.rates:
            return None
        fields = {name: getattr(request, name) for name in Profile.model_fields}
        return Profile.model_construct(**fields)

    def complete(self, request: MonthRequest, values: Values) -> MonthRequest:
        """Add the rates decided by Task 1."""
        return request.model_copy(update={"rates": Rates.model_validate(values)})

    def parts(self, values: Values) -> list[Values]:
        """Split the decisions by training day."""
        names = dict.fromkeys(path.partition(".")[0] for path in values)
        return [
            {path: value for path, value in values.items() if path.startswith(f"{name}.")}
            for name in names
        ]

    def forms(self) -> tuple[Form, ...]:
        """Return the calendar and the printable table."""
        from serving.tasks.month.forms import CALENDAR, TABLE

        return CALENDAR, TABLE
