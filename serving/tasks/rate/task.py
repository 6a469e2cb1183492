"""The ``Task`` implementation for Task 1."""

from collections.abc import Mapping
from random import Random
from typing import Any

from serving.language.fields import Values
from serving.language.output import Output
from serving.tasks.base import Task
from serving.tasks.profile import EDGES, LIFTS, PUBLISHED, Profile, describe, draw, on_grid
from serving.tasks.prompt import Fact, Facts
from serving.tasks.rate.answer import OUTPUT, PROGRAM, RATES, RateAnswer
from serving.tasks.rate.check import RULES, check_rate

EXAMPLE_ANSWER = dict(zip(RATES, (55, 10, 5, 50), strict=True))


class RateTask(Task[Profile]):
    """Decides four rates from a profile; the four-week plan is computed from them."""

    name = "rate"
    summary = "한 달 5/3/1 진행표: 네 가지 비율과 4주 계획"
    title = PROGRAM
    request = Profile
    response = RateAnswer
    rules = RULES
    examples = PUBLISHED
    edges = EDGES
    example_answer = EXAMPLE_ANSWER
    least_score = 0.995

    def facts(self, request: Profile) -> Facts:
        """Return the whole profile, with weights rounded to 2.5 kg."""
        weights: dict[str, Fact] = {
            name: f"{on_grid(getattr(request.rm_weight, lift)):g}kg" for lift, name in LIFTS.items()
        }
        return {
            "운동경험": request.experience,
            "성별": request.gender,
            "운동목표": request.purpose,
            "1RM": weights,
        }

    def output(self, facts: Facts) -> Output:
        """Return the output, which is the same for all profiles."""
        return OUTPUT

    def render(self, request: Profile, values: Values) -> str:
        """Return the output text itself."""
        return OUTPUT.text(values)

    def check(self, request: Profile, answer: Mapping[str, Any]) -> list[str]:
        """Check the answer alone: any progression is valid for any profile."""
        return check_rate(answer)

    def draw(self, rng: Random) -> Profile:
        """Draw a realistic profile."""
        return draw(rng)

    def describe(self, request: Profile) -> str:
        """Describe experience, gender and purpose."""
        return describe(request)
