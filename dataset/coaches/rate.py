"""Coach policy for Task 1: selects a profile's progression. See README.md for the reasons.

Only this module defines the correct answer for a profile. Serving does not import it; the adapter
decides there.
"""

from enum import IntEnum

from dataset.coaches import Source
from dataset.profiles import profiles
from serving.tasks.profile import STANDARD_KG, Profile
from serving.tasks.rate.answer import RATES, SETS, is_rest, set_fits

START_PERCENT = {1: 65, 2: 55, 3: 60, 4: 55, 5: 50, 6: 65}
"""Week 1, set 1 in percent of 1RM by purpose, before adjusting for experience and strength."""

DELOAD_TOP_PERCENT = 60


class Strength(IntEnum):
    """Level by number of lifts that reach the standard: none, one or two, three or four."""

    DEVELOPING = 0
    MIXED = 1
    STRONG = 2


def strength(profile: Profile) -> Strength:
    standard = STANDARD_KG[profile.gender]
    reached = sum(getattr(profile.rm_weight, lift) >= kg for lift, kg in standard.items())
    return Strength((reached + 1) // 2)


def coach_rate(profile: Profile) -> dict[str, int]:
    """Return the four rates for ``profile`` in percent, as values of ``rate.OUTPUT``.

    Args:
        profile: the profile, with weights on the 2.5 kg grid, as in the prompt.
    """
    novice, veteran = profile.experience == 1, profile.experience >= 4
    level = strength(profile)
    strong = level is Strength.STRONG

    week, set_ = 5, 10
    if profile.purpose == 5:
        week, set_ = 5, 5
    elif novice or profile.purpose == 2:
        week, set_ = (5 if strong else 10), 5
    elif profile.purpose in (1, 6) and level is Strength.DEVELOPING:
        week, set_ = 10, 10

    init = START_PERCENT[profile.purpose] + 5 * (level - Strength.MIXED)
    init += 5 * veteran - 5 * novice
    while not set_fits(set_, init, week):
        init -= 5

    deload_top = DELOAD_TOP_PERCENT - 5 * (veteran and strong) + 5 * (profile.purpose == 5)
    deload = deload_top - set_ * (SETS - 1)
    while not is_rest(deload, init):
        deload -= 5
    return dict(zip(RATES, (init, week, set_, deload), strict=True))


SOURCE = Source(
    requests=profiles,
    coach=coach_rate,
    rows={"train": 80_000, "validation": 1_000, "test": 2_000, "odd": 2_000},
    form_rows=20_000,
)
