"""Oracle for Task 2 answers, written only from the product page.

It shares no code with the renderer or the gateway's check: it computes kilograms in exact
fractions. From the contract it uses only the catalogue's facts about exercises.
"""

from fractions import Fraction
from typing import Any

from serving.tasks.month.exercises import CATALOGUE
from tests.kit.oracle import heavy

DAYS = {
    2: [["squat", "bench_press"], ["dead_lift", "over_head_press"]],
    3: [["squat"], ["bench_press", "over_head_press"], ["dead_lift"]],
    4: [["over_head_press"], ["dead_lift"], ["bench_press"], ["squat"]],
}
PLAN = [[5, 5, 5], [3, 3, 3], [5, 3, 1], [5, 5, 5]]
WARM_UP = [(40, 5, False), (50, 5, False), (60, 3, False)]


def month_faults(request: dict[str, Any], answer: dict[str, Any]) -> list[str]:
    """Return every fault of ``answer`` to ``request``; the list is empty if it is correct."""
    found = []
    per_week = request["days_per_week"]
    if [len(week["days"]) for week in answer["weeks"]] != [per_week] * 4:
        return [f"days are {[len(week['days']) for week in answer['weeks']]}"]
    if request.get("rates") not in (None, answer["rates"]):
        found.append(f"rates are {answer['rates']}")
    found += heavy(list(answer["rates"].values()))
    days = [(number, day) for number, week in enumerate(answer["weeks"]) for day in week["days"]]
    for week in answer["weeks"]:
        lifts = [[one["lift"] for one in day["lifts"]] for day in week["days"]]
        if lifts != DAYS[per_week]:
            found.append(f"week {week['week']} trains {lifts}")
        kinds = {one["category"] for day in week["days"] for one in day["assistance"]}
        if not {"leg", "core"} <= kinds:
            found.append(f"week {week['week']} has only {kinds}")
    before: dict[str, list[tuple[str, int]]] = {}
    for number, day in days:
        for one in day["lifts"]:
            found += _sets(request, answer["rates"], number, one)
        found += _assistance(request, day)
        volume = [(e["name"], e["sets"] * e["repetitions"]) for e in day["assistance"]]
        if number == 3:
            volume = [(name, 2 * count) for name, count in volume]
        name = "+".join(one["lift"] for one in day["lifts"])
        if before.setdefault(name, volume) != volume:
            found.append(f"week {number + 1}: {volume} after {before[name]}")
    return found + _head(request, answer)


def _head(request: dict[str, Any], answer: dict[str, Any]) -> list[str]:
    found = []
    maxima = {lift: Fraction(str(kg)) * 9 / 10 for lift, kg in request["rm_weight"].items()}
    if request.get("basis") == "tm":
        if answer["training_max"] != {lift: float(kg) for lift, kg in maxima.items()}:
            found.append(f"training max is {answer['training_max']}")
    elif answer["training_max"] is not None:
        found.append("a training max for 1RM")
    if (answer["bar"], answer["plate_step"]) != _bar_and_step(request):
        found.append(f"bar {answer['bar']}, step {answer['plate_step']}")
    return found


def _bar_and_step(request: dict[str, Any]) -> tuple[float, float]:
    return request.get("bar", 20), request.get("plate_step", 2.5)


def loadable(bar: Fraction, plates: list[dict[str, Any]]) -> set[Fraction]:
    """Return every weight that pairs of plates make, bar included, up to 700 kg."""
    found = {bar}
    for one in plates:
        for _ in range(one["pairs"]):
            found |= {kg + 2 * Fraction(str(one["kg"])) for kg in found if kg < 700}
    return found


def _sets(
    request: dict[str, Any], rates: dict[str, int], week: int, day: dict[str, Any]
) -> list[str]:
    found = []
    basis = Fraction(str(request["rm_weight"][day["lift"]]))
    if request.get("basis") == "tm":
        basis *= Fraction(9, 10)
    if len(day["sets"]) != 3:
        found.append(f"{len(day['sets'])} sets")
    for place, one in enumerate(day["sets"]):
        start = rates["init_weight_rate"] + week * rates["increase_rate_week"]
        start = rates["deloading_rate"] if week == 3 else start
        percent = start + place * rates["increase_rate_set"]
        if one["percent"] != percent:
            found.append(f"week {week + 1}: {one['percent']} %, expected {percent} %")
        if one["repetitions"] != PLAN[week][place] or one["amrap"] != (place == 2 and week < 3):
            found.append(f"week {week + 1} set {place + 1}: {one}")
    lighter = [one for one in WARM_UP if one[0] < day["sets"][0]["percent"]]
    if [(o["percent"], o["repetitions"], o["amrap"]) for o in day["warm_up"]] != lighter:
        found.append(f"week {week + 1}: warm-up {day['warm_up']}")
    for one in day["warm_up"] + day["sets"]:
        found += _weight(request, basis * one["percent"] / 100, one)
    return found


def _weight(request: dict[str, Any], target: Fraction, one: dict[str, Any]) -> list[str]:
    """Return what is wrong with a set's kilograms and plates."""
    bar, step = map(Fraction, map(str, _bar_and_step(request)))
    kg, plates = Fraction(str(one["kg"])), [Fraction(str(p)) for p in one["plates"]]
    found = [] if abs(kg - target) <= step / 2 else [f"{kg} kg is far from {float(target)} kg"]
    if one["below_bar"]:
        is_right = 0 < kg < bar and (bar - kg) % step == 0 and target < bar and not plates
        return found if is_right else [*found, f"{one} is not below a bar of {bar} kg"]
    own = request.get("plates")
    if kg != bar + 2 * sum(plates) or plates != sorted(plates, reverse=True):
        found.append(f"{one['plates']} on a bar of {bar} kg are not {one['kg']} kg")
    if own:
        pairs = {Fraction(str(plate["kg"])): plate["pairs"] for plate in own}
        if any(plates.count(plate) > pairs.get(plate, 0) for plate in plates):
            found.append(f"{one['plates']} are not all at hand")
        best = min(abs(other - target) for other in loadable(bar, own))
        if abs(kg - target) != best:
            found.append(f"{one['kg']} kg is not the nearest to {float(target)} kg")
    elif (kg - bar) % step:
        found.append(f"{one['kg']} kg is off the grid of {step} kg from {bar} kg")
    return found


def _assistance(request: dict[str, Any], day: dict[str, Any]) -> list[str]:
    names = [exercise["name"] for exercise in day["assistance"]]
    found = [] if 2 <= len(set(names)) == len(names) <= 4 else [f"assistance is {names}"]
    for exercise in day["assistance"]:
        known = CATALOGUE.get(exercise["name"])
        lifts = {one["lift"] for one in day["lifts"]}
        suits = known and (lifts <= {*known.lifts} or lifts & {*known.builds})
        if not known or not suits or known.level > request["experience"]:
            found.append(f"{exercise['name']} does not suit {lifts}")
        elif exercise["muscle_groups"] != list(known.muscles):
            found.append(f"{exercise['name']} trains {exercise['muscle_groups']}")
        if exercise["sets"] < 1 or exercise["repetitions"] < 1:
            found.append(f"{exercise} is no work")
    return found
