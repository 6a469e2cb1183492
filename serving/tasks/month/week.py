"""Which main lifts a training day has, and which kinds of assistance work beside them.

Every lift is trained every week, so that each goes through its own fives, triples, singles and
deload. Every day has a pull and core work; a lift's own category is push for the presses, and leg
for squat and deadlift.
"""

from serving.tasks.month.exercises import CATEGORIES, Category
from serving.tasks.profile import LIFTS

Lifts = tuple[str, ...]
"""The main lifts of a day, in order: field names as in ``LIFTS``."""

BENCH, SQUAT, DEAD, PRESS = LIFTS
DAYS: dict[int, tuple[Lifts, ...]] = {
    2: ((SQUAT, BENCH), (DEAD, PRESS)),
    3: ((SQUAT,), (BENCH, PRESS), (DEAD,)),
    4: ((PRESS,), (DEAD,), (BENCH,), (SQUAT,)),
}
"""The days of a week, by days per week."""
OWN: dict[str, Category] = {BENCH: "push", PRESS: "push", SQUAT: "leg", DEAD: "leg"}
"""The category that builds a lift."""
ALL_FROM = 3
"""Experience from which a day of one lift has work of all categories."""


def day_name(lifts: Lifts) -> str:
    """Return a day's name in the model's output, e.g. ``squat_and_bench_press``."""
    return "_and_".join(lifts)


def categories_of(lifts: Lifts, experience: int) -> tuple[Category, ...]:
    """Return the categories of a day's assistance exercises, one each: three or four."""
    wanted = {"pull", "core", *(OWN[lift] for lift in lifts)}
    if len(lifts) == 1 and experience >= ALL_FROM:
        return CATEGORIES
    return tuple(category for category in CATEGORIES if category in wanted)
