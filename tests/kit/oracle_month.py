"""Oracle for Task 2 answers, written only from the product page.

It shares no code with the renderer or the gateway's check: it computes kilograms in exact
fractions. From the contract it uses only the catalogue's facts: which exercise assists which lift.
"""

from fractions import Fraction
from typing import Any

from serving.tasks.month.exercises import CATALOGUE

LIFTS = {"bench_press", "squat", "dead_lift", "over_head_press"}
PLAN = [[5, 5, 5], [3, 3, 3], [5, 3, 1], [5, 5, 5]]


def month_faults(request: dict[str, Any], answer: dict[str, Any]) -> list[str]:
    """Return every fault of ``answer`` to ``request``; the list is empty if it is correct."""
    found = []
    per_week = request["days_per_week"]
    if [len(week["days"]) for week in answer["weeks"]] != [per_week] * 4:
        return [f"days are {[len(week['days']) for week in answer['weeks']]}"]
    if request.get("rates") not in (None, answer["rates"]):
        found.append(f"rates are {answer['rates']}")
    days = [(number, day) for number, week in enumerate(answer["weeks"]) for day in week["days"]]
    for start in range(3):
        fortnight = {day["lift"] for number, day in days if number in (start, start + 1)}
        if fortnight != LIFTS:
            found.append(f"weeks {start + 1} and {start + 2} train only {fortnight}")
    before: dict[str, list[tuple[str, int]]] = {}
    for number, day in days:
        found += _sets(request, answer["rates"], number, day)
        found += _assistance(request, day)
        volume = [(e["name"], e["sets"] * e["repetitions"]) for e in day["assistance"]]
        if number == 3:
            volume = [(name, 2 * count) for name, count in volume]
        if before.setdefault(day["lift"], volume) != volume:
            found.append(f"week {number + 1}: {volume} after {before[day['lift']]}")
    return found


def _sets(
    request: dict[str, Any], rates: dict[str, int], week: int, day: dict[str, Any]
) -> list[str]:
    found = []
    step = Fraction(str(request.get("plate_step", 2.5)))
    basis = Fraction(str(request["rm_weight"][day["lift"]]))
    if request.get("basis") == "tm":
        basis *= Fraction(9, 10)
    if len(day["sets"]) != 3:
        found.append(f"{len(day['sets'])} sets")
    for place, one in enumerate(day["sets"]):
        start = rates["init_weight_rate"] + week * rates["increase_rate_week"]
        start = rates["deloading_rate"] if week == 3 else start
        percent = start + place * rates["increase_rate_set"]
        kg = Fraction(str(one["kg"]))
        if one["percent"] != percent or not 0 < percent <= 100:
            found.append(f"week {week + 1}: {one['percent']} %, expected {percent} %")
        if kg <= 0 or kg % step or abs(kg - basis * percent / 100) > step / 2:
            found.append(f"week {week + 1}: {one['kg']} kg is not {percent} % of {float(basis)} kg")
        if one["repetitions"] != PLAN[week][place] or one["amrap"] != (place == 2 and week < 3):
            found.append(f"week {week + 1} set {place + 1}: {one}")
    return found


def _assistance(request: dict[str, Any], day: dict[str, Any]) -> list[str]:
    names = [exercise["name"] for exercise in day["assistance"]]
    found = [] if 2 <= len(set(names)) == len(names) <= 4 else [f"assistance is {names}"]
    for exercise in day["assistance"]:
        known = CATALOGUE.get(exercise["name"])
        if not known or day["lift"] not in known.lifts or known.level > request["experience"]:
            found.append(f"{exercise['name']} does not suit {day['lift']}")
        elif exercise["muscle_groups"] != list(known.muscles):
            found.append(f"{exercise['name']} trains {exercise['muscle_groups']}")
        if exercise["sets"] < 1 or exercise["repetitions"] < 1:
            found.append(f"{exercise} is no work")
    return found
