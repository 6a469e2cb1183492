"""Oracle for what a coach would not sign in a week, written from dataset/README.md, by names.

It shares nothing with the coach's code, the catalogue or the check: an exercise is known by what is
written here of it.
"""

from typing import Any

SKILL = {
    "클로즈그립 벤치프레스",
    "푸시 프레스",
    "스포토 프레스",
    "중량 친업",
    "노르딕 컬",
    "프론트 스쿼트",
    "피스톨 스쿼트",
    "드래곤 플래그",
}
ISOLATION = {
    "사이드 레터럴 레이즈",
    "트라이셉스 푸시다운",
    "라잉 트라이셉스 익스텐션",
    "페이스 풀",
    "바벨 컬",
    "해머 컬",
    "리어 델트 플라이",
    "글루트 브리지",
    "레그 컬",
    "레그 익스텐션",
    "데드버그",
    "플랭크 숄더 탭",
    "크런치",
    "사이드 플랭크 딥",
    "케이블 크런치",
    "캡틴 체어 니 레이즈",
    "팔로프 프레스",
    "덤벨 사이드 벤드",
}
LOWER_BACK = {"굿모닝", "바벨 로우", "펜들레이 로우", "백 익스텐션", "싱글 레그 데드리프트"}
CURLS = {"바벨 컬", "해머 컬"}
REAR_DELTS = {"페이스 풀", "리어 델트 플라이"}
BUILDERS = {
    "bench_press": {
        "푸시업",
        "체스트 프레스 머신",
        "덤벨 벤치프레스",
        "인클라인 덤벨 프레스",
        "딥스",
        "클로즈그립 벤치프레스",
        "스포토 프레스",
    },
    "over_head_press": {
        "푸시업",
        "숄더 프레스 머신",
        "인클라인 덤벨 프레스",
        "시티드 덤벨 프레스",
        "클로즈그립 벤치프레스",
        "푸시 프레스",
    },
    "squat": {
        "스텝업",
        "레그 익스텐션",
        "워킹 런지",
        "불가리안 스플릿 스쿼트",
        "핵 스쿼트",
        "프론트 스쿼트",
        "피스톨 스쿼트",
    },
    "dead_lift": {"글루트 브리지", "레그 컬", "힙 쓰러스트", "노르딕 컬"},
}
OWN = {"bench_press": "push", "over_head_press": "push", "squat": "leg", "dead_lift": "leg"}
STANDARD = {
    "남성": {"bench_press": 80, "squat": 110, "dead_lift": 130, "over_head_press": 50},
    "여성": {"bench_press": 40, "squat": 60, "dead_lift": 75, "over_head_press": 30},
}
MOST_APART = 5
"""Sets between a week's longest and its shortest day."""


def week_faults(request: dict[str, Any], answer: dict[str, Any]) -> list[str]:
    """Return what a coach would not sign in the first week of a month; an empty list if nothing."""
    days = answer["weeks"][0]["days"]
    found = [fault for day in days for one in day["assistance"] for fault in _exercise(one)]
    sets = {"push": 0, "pull": 0, "leg": 0, "core": 0}
    for day in days:
        for one in day["assistance"]:
            sets[one["category"]] += one["sets"]
    if not (sets["leg"] and sets["core"]):
        found.append(f"a week without leg or core work: {sets}")
    if sets["pull"] < sets["push"]:
        found.append(f"more pushes than pulls: {sets}")
    names = [one["name"] for day in days for one in day["assistance"] if one["category"] == "pull"]
    curls = sum(name in CURLS for name in names)
    if curls > 1 and len(names) - curls - sum(name in REAR_DELTS for name in names) < 2:
        found.append(f"curls before rows: {names}")
    work = [
        sum(len(lift["sets"]) for lift in day["lifts"])
        + sum(one["sets"] for one in day["assistance"])
        for day in days
    ]
    if max(work) - min(work) > MOST_APART:
        found.append(f"days of {work} sets")
    return found + _helped(request, days)


def _exercise(one: dict[str, Any]) -> list[str]:
    name, count = one["name"], one["repetitions"]
    least, most = (4, 8) if name in SKILL else (10, 20) if name in ISOLATION else (6, 16)
    found = [] if least <= count <= most else [f"{name} for {count}"]
    return [*found, f"{name} loads the lower back"] if name in LOWER_BACK else found


def _helped(request: dict[str, Any], days: list[dict[str, Any]]) -> list[str]:
    """Return the lifts that lag behind and get no help: an exercise that builds them, with no fewer
    sets than core work has, or the other lift's own, if that does not lag."""
    standard = STANDARD[request["gender"]]
    # To 2.5 kg, as the prompt has it.
    rounded = {lift: int(kg / 2.5 + 0.5) * 2.5 for lift, kg in request["rm_weight"].items()}
    shares = {lift: kg / standard[lift] for lift, kg in rounded.items()}
    lagging = {lift for lift in shares if shares[lift] < 0.9 * sum(shares.values()) / 4}
    found = []
    for day in days:
        lifts = {one["lift"] for one in day["lifts"]}
        by_category = {one["category"]: one for one in day["assistance"]}
        others = {"core", *(OWN[lift] for lift in lifts - lagging)}
        for lift in lifts & lagging:
            own = by_category[OWN[lift]]
            most = max(one["sets"] for category, one in by_category.items() if category in others)
            if own["name"] not in BUILDERS[lift] or own["sets"] < most:
                found.append(f"{lift} lags and gets {own}")
    return found
