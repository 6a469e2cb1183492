"""The catalogue of assistance exercises: muscles, days, repetitions and required experience.

Categories follow 5/3/1's assistance work: push, pull, and single-leg or core, here split in two. An
exercise has exactly one category, so it cannot occur twice in a day. All exercises are counted in
repetitions (no holds), per side for unilateral exercises. None loads the lower back: the deadlift
does, once a week.
"""

from dataclasses import dataclass
from typing import Literal

from serving.tasks.profile import LIFTS

Category = Literal["push", "pull", "leg", "core"]
CATEGORIES: tuple[Category, ...] = ("push", "pull", "leg", "core")
Kind = Literal["skill", "compound", "isolation"]
REPETITIONS: dict[Kind, tuple[int, ...]] = {
    "skill": (4, 6, 8),
    "compound": (6, 8, 10, 12, 16),
    "isolation": (10, 12, 16, 20),
}
"""Repetitions that suit a kind of exercise: few where technique or heavy weights set the limit,
many where a single muscle does. Even, so that the deload can halve them."""
BENCH, SQUAT, DEAD, PRESS = LIFTS
UPPER, LOWER, ALL = (BENCH, PRESS), (SQUAT, DEAD), tuple(LIFTS)
SKILL: Kind = "skill"
COMPOUND: Kind = "compound"
ISOLATION: Kind = "isolation"


@dataclass(frozen=True)
class Exercise:
    """One assistance exercise."""

    name: str
    """Display name; unique, and not a prefix of any other name."""
    category: Category
    kind: Kind
    muscles: tuple[str, ...]
    """Muscle groups, primary first."""
    level: int
    """Minimum experience, 1 to 5."""
    equipment: Literal["맨몸", "머신", "케이블", "덤벨", "바벨", "중량 벨트"]
    builds: tuple[str, ...] = ()
    """Main lifts, as in ``LIFTS``, that it helps when they lag behind."""
    lifts: tuple[str, ...] = ALL
    """Main lifts on whose days it is done."""


CATALOGUE: dict[str, Exercise] = {
    exercise.name: exercise
    for exercise in (
        Exercise("푸시업", "push", COMPOUND, ("가슴", "삼두"), 1, "맨몸", UPPER),
        Exercise(
            "체스트 프레스 머신",
            "push",
            COMPOUND,
            ("가슴", "삼두"),
            1,
            "머신",
            (BENCH,),
            (BENCH, SQUAT),
        ),
        Exercise(
            "숄더 프레스 머신",
            "push",
            COMPOUND,
            ("어깨", "삼두"),
            1,
            "머신",
            (PRESS,),
            (PRESS, DEAD),
        ),
        Exercise(
            "사이드 레터럴 레이즈", "push", ISOLATION, ("어깨",), 1, "덤벨", (), (PRESS, DEAD)
        ),
        Exercise("트라이셉스 푸시다운", "push", ISOLATION, ("삼두",), 1, "케이블"),
        Exercise(
            "덤벨 벤치프레스",
            "push",
            COMPOUND,
            ("가슴", "삼두"),
            2,
            "덤벨",
            (BENCH,),
            (BENCH, SQUAT),
        ),
        Exercise(
            "인클라인 덤벨 프레스",
            "push",
            COMPOUND,
            ("가슴", "어깨"),
            2,
            "덤벨",
            UPPER,
            (BENCH, PRESS, SQUAT),
        ),
        Exercise(
            "시티드 덤벨 프레스",
            "push",
            COMPOUND,
            ("어깨", "삼두"),
            2,
            "덤벨",
            (PRESS,),
            (PRESS, DEAD),
        ),
        Exercise(
            "라잉 트라이셉스 익스텐션", "push", ISOLATION, ("삼두",), 3, "바벨", (), (BENCH, SQUAT)
        ),
        Exercise("딥스", "push", COMPOUND, ("가슴", "삼두"), 3, "맨몸", (BENCH,)),
        Exercise("클로즈그립 벤치프레스", "push", SKILL, ("삼두", "가슴"), 4, "바벨", UPPER),
        Exercise("푸시 프레스", "push", SKILL, ("어깨", "하체"), 4, "바벨", (PRESS,), (PRESS,)),
        Exercise("스포토 프레스", "push", SKILL, ("가슴", "삼두"), 5, "바벨", (BENCH,), (BENCH,)),
        Exercise("랫풀다운", "pull", COMPOUND, ("광배", "이두"), 1, "케이블"),
        Exercise("시티드 케이블 로우", "pull", COMPOUND, ("등", "이두"), 1, "케이블"),
        Exercise("인버티드 로우", "pull", COMPOUND, ("등", "이두"), 1, "맨몸"),
        Exercise("페이스 풀", "pull", ISOLATION, ("후면 어깨",), 1, "케이블", (), (PRESS,)),
        Exercise("원암 덤벨 로우", "pull", COMPOUND, ("광배", "이두"), 2, "덤벨"),
        Exercise("바벨 컬", "pull", ISOLATION, ("이두",), 2, "바벨", (), (BENCH,)),
        Exercise("해머 컬", "pull", ISOLATION, ("이두", "전완"), 2, "덤벨", (), (BENCH,)),
        Exercise("리어 델트 플라이", "pull", ISOLATION, ("후면 어깨",), 2, "덤벨", (), (PRESS,)),
        Exercise("친업", "pull", COMPOUND, ("광배", "이두"), 3, "맨몸"),
        Exercise("씰 로우", "pull", COMPOUND, ("등", "광배"), 3, "바벨"),
        Exercise("티바 로우 머신", "pull", COMPOUND, ("등", "광배"), 3, "머신"),
        Exercise("풀업", "pull", COMPOUND, ("광배", "이두"), 4, "맨몸"),
        Exercise("중량 친업", "pull", SKILL, ("광배", "이두"), 5, "중량 벨트"),
        Exercise("스텝업", "leg", COMPOUND, ("대퇴사두", "둔근"), 1, "덤벨", (SQUAT,)),
        Exercise("글루트 브리지", "leg", ISOLATION, ("둔근",), 1, "맨몸", (DEAD,)),
        Exercise("레그 컬", "leg", ISOLATION, ("햄스트링",), 1, "머신", (DEAD,)),
        Exercise(
            "레그 익스텐션", "leg", ISOLATION, ("대퇴사두",), 1, "머신", (SQUAT,), (SQUAT, *UPPER)
        ),
        Exercise("워킹 런지", "leg", COMPOUND, ("대퇴사두", "둔근"), 2, "덤벨", (SQUAT,)),
        Exercise("힙 쓰러스트", "leg", COMPOUND, ("둔근", "햄스트링"), 2, "바벨", (DEAD,)),
        Exercise(
            "불가리안 스플릿 스쿼트", "leg", COMPOUND, ("대퇴사두", "둔근"), 3, "덤벨", (SQUAT,)
        ),
        Exercise("핵 스쿼트", "leg", COMPOUND, ("대퇴사두", "둔근"), 3, "머신", (SQUAT,), LOWER),
        Exercise("노르딕 컬", "leg", SKILL, ("햄스트링",), 4, "맨몸", (DEAD,)),
        Exercise(
            "프론트 스쿼트", "leg", SKILL, ("대퇴사두", "둔근"), 4, "바벨", (SQUAT,), (SQUAT,)
        ),
        Exercise("피스톨 스쿼트", "leg", SKILL, ("대퇴사두", "둔근"), 5, "맨몸", (SQUAT,)),
        Exercise("데드버그", "core", ISOLATION, ("복근",), 1, "맨몸"),
        Exercise("플랭크 숄더 탭", "core", ISOLATION, ("복근", "어깨"), 1, "맨몸"),
        Exercise("크런치", "core", ISOLATION, ("복근",), 1, "맨몸"),
        Exercise("사이드 플랭크 딥", "core", ISOLATION, ("옆구리",), 2, "맨몸"),
        Exercise("케이블 크런치", "core", ISOLATION, ("복근",), 2, "케이블"),
        Exercise("캡틴 체어 니 레이즈", "core", ISOLATION, ("복근",), 2, "머신"),
        Exercise("팔로프 프레스", "core", ISOLATION, ("옆구리", "복근"), 3, "케이블"),
        Exercise("덤벨 사이드 벤드", "core", ISOLATION, ("옆구리",), 3, "덤벨"),
        Exercise("앱 롤아웃", "core", COMPOUND, ("복근", "광배"), 4, "맨몸"),
        Exercise("행잉 레그 레이즈", "core", COMPOUND, ("복근",), 4, "맨몸"),
        Exercise("드래곤 플래그", "core", SKILL, ("복근",), 5, "맨몸"),
    )
}


def fitting(category: Category, lifts: tuple[str, ...], experience: int) -> tuple[Exercise, ...]:
    """Return the exercises in ``category`` for a day of ``lifts``, in catalogue order: each is done
    on the days of all of them, or builds one."""
    return tuple(
        exercise
        for exercise in CATALOGUE.values()
        if exercise.category == category
        and exercise.level <= experience
        and (set(lifts) <= set(exercise.lifts) or set(lifts) & set(exercise.builds))
    )
