"""The page in a real browser, against the real engine."""

import json
import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, Route, expect

from deploy.browser import WEIGHTS, chromium, fill, submit
from loadtests.service import own_ports, served
from serving.gateway.errors import Overloaded, Unauthorized
from serving.process import StartError
from serving.tasks.profile import EXPERIENCE, LIFTS, PURPOSE
from tests.kit.stack import Stack

MONTH = "gen/routine/month"
FIRST_LOAD_BYTES, FIRST_LOAD_SECONDS = 100_000, 0.3


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    try:
        with chromium() as found:
            yield found
    except StartError as error:
        pytest.skip(str(error))


@pytest.fixture
def page(browser: Browser, stack: Stack) -> Iterator[Page]:
    """The page as first opened; what the browser complains of fails the test."""
    context = browser.new_context(viewport={"width": 1200, "height": 900})
    opened, complaints = context.new_page(), []
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.on(
        "console",
        lambda told: complaints.append(told.text) if "Content Security" in told.text else None,
    )
    opened.goto(stack.url)
    yield opened
    context.close()
    assert complaints == []


def planned(page: Page, **weights: object) -> None:
    """Fill the form and wait for its plan."""
    fill(page, **weights)
    submit(page)
    expect(page.locator("#plan")).to_be_visible(timeout=30_000)
    expect(page.locator("#status")).to_contain_text("ms")


def findings(page: Page) -> list[str]:
    """What axe-core finds."""
    return [one["id"] for one in Axe().run(page).response["violations"]]


def test_a_profile_s_month_is_on_the_page_with_kilograms_and_plates(
    page: Page, stack: Stack
) -> None:
    page.select_option("[name=days_per_week]", "3")
    planned(page)
    profile = {
        "experience": 1, "gender": "남성", "purpose": 1, "rm_weight": WEIGHTS, "days_per_week": 3,
    }  # fmt: skip
    month = page.request.post(f"{stack.url}/{MONTH}", data=profile).json()
    days = [day for week in month["weeks"] for day in week["days"]]
    sets = [one for day in days for lift in day["lifts"] for one in lift["warm_up"] + lift["sets"]]
    expect(page.locator(".day td.kg")).to_have_text(
        [f"{one['kg']:g}×{one['repetitions']}{'+' * one['amrap']}" for one in sets]
    )
    plates = ["+".join(f"{kg:g}" for kg in one["plates"]) for one in sets]
    expect(page.locator(".day td:last-child")).to_have_text(
        ["빈 바보다 가볍게" if one["below_bar"] else text or "빈 바"
         for one, text in zip(sets, plates, strict=True)]
    )  # fmt: skip
    expect(page.locator(".day li")).to_contain_text(
        [f"{one['name']} {one['sets']}×{one['repetitions']}"
         for day in days for one in day["assistance"]]
    )  # fmt: skip
    told = page.inner_text("#status")
    milliseconds, passes, tokens = map(int, re.findall(r"\d+", told))
    assert 0 < milliseconds < 60_000
    assert 0 < passes < tokens


def test_a_maximum_is_estimated_from_a_set(page: Page) -> None:
    fill(page, squat=90)
    page.select_option("#profile [name='repetitions.squat']", "5")
    expect(page.locator("[name='estimate.squat']")).to_have_text("1RM 105 kg")
    with page.expect_request(f"**/{MONTH}") as asked:
        submit(page)
    assert json.loads(asked.value.post_data or "")["rm_weight"] == WEIGHTS | {"squat": 105}


@pytest.mark.parametrize(("name", "value"), [("rm_weight.squat", "0"), ("bar", "300")])
def test_a_wrong_value_is_told_beside_its_field(page: Page, name: str, value: str) -> None:
    fill(page)
    page.evaluate("document.querySelector('details').open = true")
    page.fill(f"#profile [name='{name}']", value)
    submit(page)
    field = page.locator(f"#profile [name='{name}']")
    expect(field).to_have_attribute("aria-invalid", "true")
    expect(field).to_be_focused()
    error = page.locator(f"#{field.get_attribute('aria-describedby')}")
    expect(error).to_contain_text(f"{name} cannot be {value}")
    assert findings(page) == []
    page.fill(f"#profile [name='{name}']", "20")
    planned(page)
    expect(error).to_have_count(0)


def test_the_plates_at_hand_are_those_of_the_month(page: Page) -> None:
    fill(page)
    page.evaluate("document.querySelector('details').open = true")
    field = page.locator("#profile [name=plates]")
    for wrong in ("20x2, 1.1", "20xx", "twenty", "20x99"):
        field.fill(wrong)
        submit(page)
        expect(field).to_have_attribute("aria-invalid", "true")
        expect(page.locator(".error")).to_contain_text("plates")
    field.fill("20 10x2, 5 2.5X1, 1.25")
    with page.expect_request(f"**/{MONTH}") as asked:
        planned(page)
    pairs = {20: 1, 10: 2, 5: 1, 2.5: 1, 1.25: 1}
    assert json.loads(asked.value.post_data or "")["plates"] == [
        {"kg": kg, "pairs": count} for kg, count in pairs.items()
    ]
    for cell in page.locator(".day td:last-child").all_inner_texts():
        used = Counter(re.findall(r"[\d.]+", cell))
        assert all(count <= pairs[float(kg)] for kg, count in used.items())


def test_what_is_missing_is_told_too(page: Page) -> None:
    submit(page)
    expect(page.locator("#profile [aria-invalid]")).to_have_attribute(
        "name", "rm_weight.bench_press"
    )


def test_the_next_month_follows_from_the_repetitions(page: Page) -> None:
    planned(page)
    for lift, count in zip(WEIGHTS, (8, 5, 3, 0), strict=True):
        page.fill(f"#next [name='repetitions.{lift}']", str(count))
    page.click("#next button")
    expect(page.locator("#changes li")).to_have_count(4)
    expect(page.locator("#changes")).to_contain_text("50 → 45 kg")
    assert page.input_value("#profile [name='rm_weight.over_head_press']") == "45"
    expect(page.locator("#status")).to_contain_text("ms")


def test_the_month_can_be_taken_along(page: Page, stack: Stack, tmp_path: Path) -> None:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"], origin=stack.url)
    planned(page)
    page.fill("#calendar input", "2026-12-07")
    with page.expect_download() as download:
        page.click("#calendar button")
    download.value.save_as(tmp_path / "routine.ics")
    assert (tmp_path / "routine.ics").read_text(encoding="utf-8").count("BEGIN:VEVENT") == 16
    page.click("#curl")
    expect(page.locator("#status")).to_have_text("복사했습니다.")
    copied = page.evaluate("navigator.clipboard.readText()")
    body = json.loads(copied.split(" -d '")[1].removesuffix("'"))
    assert page.request.post(f"{stack.url}/{MONTH}", data=body).ok
    page.click("#python")
    expect(page.locator("#status")).to_have_text("복사했습니다.")
    compile(page.evaluate("navigator.clipboard.readText()"), "copied", "exec")
    page.evaluate("Object.defineProperty(navigator, 'clipboard', { value: undefined })")
    page.click("#curl")
    expect(page.locator("#snippet")).to_have_text(copied)
    expect(page.locator("#status")).to_have_text("")


@pytest.mark.parametrize("days", ["2", "3", "4"])
def test_a_month_is_printed_on_one_sheet(page: Page, days: str) -> None:
    page.select_option("[name=days_per_week]", days)
    page.select_option("[name=experience]", "5")
    planned(page)
    sheets = page.pdf(prefer_css_page_size=True)
    assert len(re.findall(rb"/Type\s*/Page\b", sheets)) == 1


def test_it_can_be_used_on_a_phone_by_keyboard_in_the_dark_and_in_english(
    browser: Browser, stack: Stack
) -> None:
    context = browser.new_context(viewport={"width": 360, "height": 740}, color_scheme="dark")
    page = context.new_page()
    page.goto(stack.url)
    page.focus("#language")
    page.keyboard.press("Enter")
    expect(page.locator("h1")).to_have_text("A month of 5/3/1")
    for key in ("i", "f", "m", "3"):  # each selects the choice that begins so
        page.keyboard.press("Tab")
        page.keyboard.type(key)
    for kg in WEIGHTS.values():
        page.keyboard.press("Tab")
        page.keyboard.type(str(kg))
        page.keyboard.press("Tab")
    page.keyboard.press("Tab")  # bar and plates
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.locator("#plan-title")).to_be_focused(timeout=30_000)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert findings(page) == []
    page.reload()
    assert page.input_value("#profile [name='rm_weight.squat']") == "100"
    expect(page.locator("h1")).to_have_text("A month of 5/3/1")
    context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(page: Page, scheme: str) -> None:
    page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    assert findings(page) == []
    planned(page, bench_press=225)
    expect(page.locator("#notes li")).to_have_count(1)
    assert findings(page) == []


def test_an_engine_that_is_down_is_told(browser: Browser, tmp_path: Path) -> None:
    environment, url, _ = own_ports()
    command = [sys.executable, "-m", "serving.gateway"]
    with served(command, f"{url}/healthz", tmp_path / "log", environment):
        page = browser.new_page()
        page.goto(url)
        fill(page)
        submit(page)
        expect(page.locator("#problem")).to_contain_text("다시 시도하세요")
        page.close()


def test_a_service_that_asks_for_a_key_is_given_it(page: Page) -> None:
    held = {"authorization": "Bearer routine-mine"}

    def guard(route: Route) -> None:
        if route.request.headers.get("authorization") == held["authorization"]:
            route.continue_()
            return
        headers, body = Unauthorized("there is no such API key").response()
        sent = {name.decode(): value.decode() for name, value in headers}
        route.fulfill(status=401, headers=sent, body=body)

    page.route("**/gen/**", guard)
    key = page.locator("#key input")
    expect(key).to_be_hidden()
    fill(page)
    submit(page)
    expect(page.locator("#problem")).to_contain_text("there is no such API key")
    expect(key).to_be_focused()
    assert findings(page) == []
    key.fill("routine-mine")
    key.press("Enter")
    expect(page.locator("#plan")).to_be_visible(timeout=30_000)
    page.locator("#curl").click()
    expect(page.locator("#snippet")).to_contain_text("Bearer $ROUTINE531_KEY")
    expect(page.locator("#snippet")).not_to_contain_text("routine-mine")
    assert "routine-mine" not in str(page.evaluate("({...localStorage})"))
    page.reload()
    expect(key).to_have_value("routine-mine")


def test_overload_and_an_unreachable_service_are_told(page: Page) -> None:
    refusal = Overloaded("9 requests are waiting; try again in 7 s", 7)
    headers, body = refusal.response()
    sent = {name.decode(): value.decode() for name, value in headers}
    page.route(f"**/{MONTH}", lambda route: route.fulfill(status=429, headers=sent, body=body))
    fill(page)
    submit(page)
    expect(page.locator("#problem")).to_contain_text("7초 뒤에")
    page.unroute(f"**/{MONTH}")
    page.context.set_offline(True)
    submit(page)
    expect(page.locator("#problem")).to_contain_text("연결할 수 없습니다")
    page.context.set_offline(False)
    planned(page)
    expect(page.locator("#problem")).to_be_hidden()


def test_it_is_small_and_soon_there(browser: Browser, stack: Stack) -> None:
    seconds, sizes = [], {}
    for _ in range(5):
        context = browser.new_context()
        page = context.new_page()
        page.on("response", lambda got: sizes.update({got.url: len(got.body())}))
        page.goto(stack.url, wait_until="load")
        seconds.append(
            page.evaluate("performance.timing.loadEventEnd - performance.timing.navigationStart")
            / 1000
        )
        context.close()
    assert all(url.startswith(stack.url) for url in sizes)
    assert sum(sizes.values()) < FIRST_LOAD_BYTES
    assert sorted(seconds)[2] < FIRST_LOAD_SECONDS


def test_both_languages_say_all_and_korean_says_it_as_the_api_does(page: Page) -> None:
    spoken = page.evaluate(
        "import('./static/words.js').then(({ LANGUAGES: { ko, en } }) => ({"
        " keys: [ko, en].map((words) => Object.keys(words)),"
        " ko: JSON.parse(JSON.stringify(ko)), en: JSON.parse(JSON.stringify(en)) }))"
    )
    korean, english = spoken["keys"]
    assert korean == english
    for name, ours in (("experiences", EXPERIENCE), ("purposes", PURPOSE)):
        assert spoken["ko"][name] == list(ours.values())
        assert len(spoken["en"][name]) == len(ours)
    assert spoken["ko"]["lifts"] == LIFTS
    assert list(spoken["en"]["lifts"]) == list(LIFTS)
