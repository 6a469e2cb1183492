"""The catalogue of assistance exercises: muscles, assisted lifts and required experience.

Categories follow 5/3/1's assistance work: push, pull, and single-leg or core, here split in two. An
exercise has exactly one category, so it cannot occur twice in a day. All exercises are counted in
repetitions (no holds), per side for unilateral exercises.
"""

from dataclasses import dataclass
from typing import Literal

from serving.tasks.profile import LIFTS

Category = Literal["push", "pull", "leg", "core"]
CATEGORIES: tuple[Category, ...] = ("push", "pull", "leg", "core")
BENCH, SQUAT, DEAD, PRESS = LIFTS
UPPER, LOWER, ALL = (BENCH, PRESS), (SQUAT, DEAD), tuple(LIFTS)


@dataclass(frozen=True)
class Exercise:
    """One assistance exercise."""

    name: str
    """Display name; unique, and not a prefix of any other name."""
    category: Category
    muscles: tuple[str, ...]
    """Muscle groups, primary first; an isolation exercise has only one."""
    lifts: tuple[str, ...]
    """Assisted main lifts, as in ``LIFTS``."""
    level: int
    """Minimum experience, 1 to 5."""
    equipment: Literal["맨몸", "머신", "케이블", "덤벨", "바벨"]


CATALOGUE: dict[str, Exercise] = {
    exercise.name: exercise
    for exercise in (
        Exercise("푸시업", "push", ("가슴", "삼두"), ALL, 1, "맨몸"),
        Exercise("체스트 프레스 머신", "push", ("가슴", "삼두"), (BENCH, *LOWER), 1, "머신"),
        Exercise("숄더 프레스 머신", "push", ("어깨", "삼두"), (PRESS, *LOWER), 1, "머신"),
        Exercise("사이드 레터럴 레이즈", "push", ("어깨",), (PRESS, DEAD), 1, "덤벨"),
        Exercise("트라이셉스 푸시다운", "push", ("삼두",), (*UPPER, SQUAT), 1, "케이블"),
        Exercise("덤벨 벤치프레스", "push", ("가슴", "삼두"), (BENCH,), 2, "덤벨"),
        Exercise("인클라인 덤벨 프레스", "push", ("가슴", "어깨"), UPPER, 2, "덤벨"),
        Exercise("덤벨 숄더프레스", "push", ("어깨", "삼두"), (PRESS,), 2, "덤벨"),
        Exercise("라잉 트라이셉스 익스텐션", "push", ("삼두",), (BENCH,), 3, "바벨"),
        Exercise("딥스", "push", ("가슴", "삼두"), ALL, 3, "맨몸"),
        Exercise("클로즈그립 벤치프레스", "push", ("삼두", "가슴"), UPPER, 4, "바벨"),
        Exercise("푸시 프레스", "push", ("어깨", "하체"), (PRESS, SQUAT), 4, "바벨"),
        Exercise("스포토 프레스", "push", ("가슴", "삼두"), (BENCH,), 5, "바벨"),
        Exercise("랫풀다운", "pull", ("광배", "이두"), ALL, 1, "케이블"),
        Exercise("시티드 케이블 로우", "pull", ("등", "이두"), ALL, 1, "케이블"),
        Exercise("인버티드 로우", "pull", ("등", "이두"), (BENCH, SQUAT), 1, "맨몸"),
        Exercise("페이스 풀", "pull", ("후면 어깨",), UPPER, 1, "케이블"),
        Exercise("덤벨 로우", "pull", ("광배", "이두"), (*UPPER, SQUAT), 2, "덤벨"),
        Exercise("바벨 컬", "pull", ("이두",), (BENCH, DEAD), 2, "바벨"),
        Exercise("해머 컬", "pull", ("이두", "전완"), (PRESS, DEAD), 2, "덤벨"),
        Exercise("리어 델트 플라이", "pull", ("후면 어깨",), UPPER, 2, "덤벨"),
        Exercise("친업", "pull", ("광배", "이두"), ALL, 3, "맨몸"),
        Exercise("바벨 로우", "pull", ("등", "광배"), (BENCH, SQUAT), 3, "바벨"),
        Exercise("풀업", "pull", ("광배", "이두"), ALL, 4, "맨몸"),
        Exercise("펜들레이 로우", "pull", ("등", "광배"), (BENCH, DEAD), 4, "바벨"),
        Exercise("중량 친업", "pull", ("광배", "이두"), (PRESS, DEAD), 5, "맨몸"),
        Exercise("스텝업", "leg", ("대퇴사두", "둔근"), ALL, 1, "덤벨"),
        Exercise("글루트 브리지", "leg", ("둔근",), LOWER, 1, "맨몸"),
        Exercise("레그 컬", "leg", ("햄스트링",), LOWER, 1, "머신"),
        Exercise("레그 익스텐션", "leg", ("대퇴사두",), (SQUAT,), 1, "머신"),
        Exercise("워킹 런지", "leg", ("대퇴사두", "둔근"), ALL, 2, "덤벨"),
        Exercise("힙 쓰러스트", "leg", ("둔근",), LOWER, 2, "바벨"),
        Exercise("불가리안 스플릿 스쿼트", "leg", ("대퇴사두", "둔근"), ALL, 3, "덤벨"),
        Exercise("싱글 레그 데드리프트", "leg", ("햄스트링", "둔근"), (DEAD,), 3, "덤벨"),
        Exercise("굿모닝", "leg", ("햄스트링", "허리"), LOWER, 4, "바벨"),
        Exercise("프론트 스쿼트", "leg", ("대퇴사두", "둔근"), (SQUAT,), 4, "바벨"),
        Exercise("피스톨 스쿼트", "leg", ("대퇴사두", "둔근"), ALL, 5, "맨몸"),
        Exercise("데드버그", "core", ("복근",), ALL, 1, "맨몸"),
        Exercise("플랭크 숄더 탭", "core", ("복근", "어깨"), ALL, 1, "맨몸"),
        Exercise("버드독", "core", ("허리", "복근"), LOWER, 1, "맨몸"),
        Exercise("크런치", "core", ("복근",), UPPER, 1, "맨몸"),
        Exercise("사이드 플랭크 딥", "core", ("옆구리",), ALL, 2, "맨몸"),
        Exercise("백 익스텐션", "core", ("허리", "둔근"), LOWER, 2, "맨몸"),
        Exercise("행잉 니 레이즈", "core", ("복근",), ALL, 3, "맨몸"),
        Exercise("팔로프 프레스", "core", ("옆구리", "복근"), UPPER, 3, "케이블"),
        Exercise("에이비 휠 롤아웃", "core", ("복근", "광배"), ALL, 4, "맨몸"),
        Exercise("행잉 레그 레이즈", "core", ("복근",), LOWER, 4, "맨몸"),
        Exercise("드래건 플래그", "core", ("복근",), ALL, 5, "맨몸"),
    )
}


def fitting(category: Category, lift: str, experience: int) -> tuple[Exercise, ...]:
    """Return the exercises in ``category`` for ``lift`` and ``experience``, in catalogue order."""
    return tuple(
        exercise
        for exercise in CATALOGUE.values()
        if exercise.category == category and lift in exercise.lifts and exercise.level <= experience
    )
