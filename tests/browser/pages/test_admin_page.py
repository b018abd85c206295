"""The administrators' page in Chromium: the token, the day, the answers in progress, and what each role may."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from playwright.sync_api import Browser, Page, Route, expect

from demo.mocks.dify.server import MockDify
from tests.browser.stage import LAPTOP, PHONE, pushes, screenshot, tab
from tests.support.replicas import ADMIN_TOKEN, VIEWER_TOKEN, Replica
from tests.support.servers.processes import wait_until

pytestmark = [pytest.mark.browser, pytest.mark.scenario, pytest.mark.timeout(240)]

QUESTION = "年假怎么申请？管理"


@pytest.fixture
def held_dify(open_dify: MockDify) -> Iterator[MockDify]:
    """The mock Dify, whose answers wait after some pieces until the test ends."""
    limit = open_dify.limit
    open_dify.holds_at, open_dify.limit = 8, 600.0
    yield open_dify
    open_dify.holds_at, open_dify.limit = None, limit


def asks(replica: Replica) -> str:
    """Ask a question whose answer stays in progress; return its stream."""
    body = {"query": QUESTION, "stream": True}
    with requests.post(f"{replica.url}/api/chat", json=body, stream=True, timeout=60) as reply:
        return str(re.findall(r'"stream_id":"(\w+)"', next(reply.iter_content(4096)).decode())[0])


def signs_in(page: Page, replica: Replica, token: str = ADMIN_TOKEN) -> None:
    page.goto(replica.url + "/admin")
    page.locator("#token").fill(token)
    page.keyboard.press("Enter")
    expect(page.locator("#state")).to_have_attribute("data-state", "open")


@pytest.mark.main_story
def test_an_administrator_signs_in_and_cancels_an_answer(
    chromium: Browser, open_replica: Replica, held_dify: MockDify
) -> None:
    """The day comes first; the answer in progress grows in its dialog, and leaves the list once it is cancelled."""
    stream_id = asks(open_replica)
    with tab(chromium, open_replica.url, language="en") as (page, watch):
        signs_in(page, open_replica)
        expect(page.locator("#figures dt")).not_to_have_count(0)
        expect(page.locator("#replicas tbody tr")).not_to_have_count(0)

        page.locator("#views a[data-view=live]").click()
        row = page.locator(f"#streams tr[data-key='{stream_id}']")
        row.get_by_role("button", name="Watch").click()
        expect(page.locator("#watch-question")).to_have_text(QUESTION)
        expect(page.locator("#watch-text")).not_to_be_empty()
        screenshot(page, "admin-watch")
        page.locator("#watch-close").click()
        screenshot(page, "admin-live")
        row.get_by_role("button", name="Cancel").click()
        screenshot(page, "admin-cancel")
        page.locator("#confirm-yes").click()
        expect(row).to_have_count(0)

        # A reload keeps the session, and the view that the address names.
        page.reload()
        expect(page.locator("#live")).to_be_visible()
        page.locator("#sign-out").click()
        expect(page.locator("#token")).to_be_focused()
        watch.assert_clean()


def test_a_viewer_sees_no_button_that_the_server_would_refuse(
    chromium: Browser, open_replica: Replica, held_dify: MockDify
) -> None:
    """The row is there without buttons; a wrong token opens nothing, and says so in the page's language."""
    stream_id = asks(open_replica)
    with tab(chromium, open_replica.url) as (page, watch):
        page.goto(open_replica.url + "/admin#live")
        page.locator("#token").fill("obviously-wrong")
        page.keyboard.press("Enter")
        expect(page.locator("#sign-in-failed")).to_have_text("令牌无效，请检查后重试。")
        page.locator("#token").fill(VIEWER_TOKEN)
        page.keyboard.press("Enter")

        row = page.locator(f"#streams tr[data-key='{stream_id}']")
        expect(row).to_be_visible()
        expect(row.get_by_role("button")).to_have_count(0)
        page.locator("#views a[data-view=questions]").click()
        expect(page.locator("#filter [name=person]")).to_be_visible()
        expect(page.locator("#filter [name=words]")).to_be_hidden()
        assert watch.foreign == []


@pytest.mark.parametrize("size", [LAPTOP, PHONE], ids=["laptop", "phone"])
def test_the_views_and_the_fields_of_the_log_stand_in_line(
    chromium: Browser, open_replica: Replica, size: tuple[int, int]
) -> None:
    """The views are one row, on a phone in English too; all fields have one height, so their labels are in line."""
    with tab(chromium, open_replica.url, size=size, language="en") as (page, _):
        signs_in(page, open_replica)
        page.locator("#views a[data-view=questions]").click()
        expect(page.locator("#filter [name=words]")).to_be_visible()

        assert len(boxes(page, "#views a", "top")) == 1
        assert len(boxes(page, "#filter .field :is(input, select)", "height")) == 1


def boxes(page: Page, css: str, side: str) -> set[float]:
    """Return the different values of a side of the boxes of visible elements."""
    script = "(all, side) => all.filter((one) => one.offsetWidth).map((one) => one.getBoundingClientRect()[side])"
    return set(page.locator(css).evaluate_all(script, side))


def is_logged(replica: Replica, words: str) -> bool:
    reply = requests.get(
        f"{replica.url}/api/admin/questions",
        params={"words": words},
        headers={"Authorization": f"Bearer {ADMIN_TOKEN}"},
        timeout=60,
    )
    return bool(reply.json()["data"]["questions"])


def is_rated(replica: Replica, stream_id: str) -> bool:
    headers = {"Authorization": f"Bearer {ADMIN_TOKEN}"}
    reply = requests.get(f"{replica.url}/api/admin/feedback?limit=500", headers=headers, timeout=60)
    return any(one["stream_id"] == stream_id for one in reply.json()["data"]["ratings"])


def test_an_admin_finds_a_question_of_the_log_and_reads_it(chromium: Browser, open_replica: Replica) -> None:
    """By its words; without them its figures alone come, page by page as they are asked for."""
    question = "出差补贴标准？日志"
    requests.post(f"{open_replica.url}/api/chat", json={"query": question}, timeout=60)
    wait_until(lambda: is_logged(open_replica, question), timeout=120.0, every=0.5)
    with tab(chromium, open_replica.url, language="en") as (page, watch):
        signs_in(page, open_replica)
        page.locator("#views a[data-view=questions]").click()
        expect(page.locator("#log tr")).not_to_have_count(0)
        expect(page.locator("#log")).not_to_contain_text(question)

        page.locator("#filter [name=words]").fill(question)
        page.locator("#filter [name=with_words]").check()
        page.keyboard.press("Enter")
        expect(page.locator("#log tr")).to_have_count(1)
        expect(page.locator("#log")).to_contain_text(question)
        screenshot(page, "admin-questions")

        page.locator("#log button").click()
        expect(page.locator("#detail-list")).to_contain_text("completed")
        expect(page.locator("#story")).to_contain_text("First text")
        expect(page.locator("#story li").first).to_contain_text("http")
        expect(page.locator("#detail-list")).not_to_contain_text(question)
        page.locator("#detail-words").click()
        expect(page.locator("#detail-list")).to_contain_text(question)
        screenshot(page, "admin-question")
        page.locator("#detail-close").click()
        with page.expect_download() as saved:
            page.locator("#log-save").click()
        assert question in Path(saved.value.path()).read_text("utf-8-sig")

        page.locator("#filter [name=person]").fill("nobody")
        page.keyboard.press("Enter")
        expect(page.locator("#none-found")).to_be_visible()
        page.locator("#sign-out").click()
        expect(page.locator("#token")).to_be_visible()
        expect(page.locator("#log tr")).to_have_count(0)
        watch.assert_clean()


def test_the_usage_is_a_chart_a_table_and_a_file(chromium: Browser, open_replica: Replica) -> None:
    """By day first, then by what is chosen; the file is for an admin, and a viewer has no button for it."""
    question = "宿舍几点关门？用量"
    requests.post(f"{open_replica.url}/api/chat", json={"query": question}, timeout=60)
    wait_until(lambda: is_logged(open_replica, question), timeout=120.0, every=0.5)
    with tab(chromium, open_replica.url, language="en") as (page, watch):
        signs_in(page, open_replica)
        page.locator("#views a[data-view=usage]").click()
        expect(page.locator("#usage-table tbody tr")).not_to_have_count(0)
        drawn = "document.getElementById('usage-chart').naturalWidth > 240"
        wait_until(lambda: bool(page.evaluate(drawn)), timeout=60.0, every=0.1)
        page.locator("#usage-form [name=by]").select_option("channel")
        expect(page.locator("#usage-table tbody")).to_contain_text("http")
        expect(page.locator("#usage-chart")).to_have_attribute("alt", re.compile("by Channel"))

        with page.expect_download() as saved:
            page.locator("#usage-save").click()
        assert saved.value.suggested_filename == "usage.csv"
        assert Path(saved.value.path()).read_text("utf-8-sig").startswith('"channel","questions"')

        page.locator("#sign-out").click()
        page.locator("#token").fill(VIEWER_TOKEN)
        page.keyboard.press("Enter")
        expect(page.locator("#usage-table tbody tr")).not_to_have_count(0)
        expect(page.locator("#usage-save")).to_be_hidden()
        watch.assert_clean()


def test_ratings_are_shown_with_their_questions_and_saved_for_a_batch(chromium: Browser, open_replica: Replica) -> None:
    """The comment comes on demand; questions without a good answer are looked for when an admin asks."""
    question = "食堂周末开吗？反馈"
    asked = requests.post(f"{open_replica.url}/api/chat", json={"query": question}, timeout=60).json()["data"]
    rating = {"rating": "dislike", "content": "没有说周日"}
    requests.post(f"{open_replica.url}/api/chat/{asked['stream_id']}/feedback", json=rating, timeout=60)
    wait_until(lambda: is_logged(open_replica, question), timeout=120.0, every=0.5)
    wait_until(lambda: is_rated(open_replica, asked["stream_id"]), timeout=120.0, every=0.5)
    with tab(chromium, open_replica.url, language="en") as (page, watch):
        signs_in(page, open_replica)
        page.locator("#views a[data-view=feedback]").click()
        expect(page.locator("#ratings tr")).not_to_have_count(0)
        expect(page.locator("#feedback")).not_to_contain_text("没有说周日")

        page.locator("#feedback-form [name=with_words]").check()
        page.keyboard.press("Enter")
        expect(page.locator("#ratings")).to_contain_text("没有说周日")
        expect(page.locator("#ratings")).to_contain_text(question)
        with page.expect_download() as saved:
            page.locator("#ratings-save").click()
        assert Path(saved.value.path()).read_text("utf-8-sig").startswith('"question","answer"')
        page.locator("#gaps-find").click()
        expect(page.locator("#gaps")).to_contain_text("disliked")
        page.locator("#ratings button").first.click()
        expect(page.locator("#story")).to_contain_text("Rated")
        page.locator("#detail-close").click()
        screenshot(page, "admin-feedback")

        # One click asks the questions again, and shows both answers once all have ended.
        page.locator("#ratings-again").click()
        expect(page.locator("#comparison-state")).to_contain_text("completed")
        row = page.locator("#comparison-rows tr").filter(has_text=question)
        expect(row.locator("td.words")).to_have_count(3)
        expect(row.locator("td.words").last).not_to_have_text("–")
        screenshot(page, "admin-comparison")
        with page.expect_download() as saved:
            page.locator("#comparison-save").click()
        assert Path(saved.value.path()).read_text("utf-8-sig").startswith('"question","outcome"')
        page.locator("#comparison-outcome").select_option("failed")
        expect(page.locator("#comparison-rows tr")).to_have_count(0)
        page.keyboard.press("Escape")
        page.locator("#views a[data-view=work]").click()
        page.locator("#batches").get_by_role("button", name="Compare").first.click()
        expect(page.locator("#comparison-rows")).to_contain_text(question)
        page.locator("#comparison-close").click()
        page.locator("#views a[data-view=feedback]").click()

        page.locator("#sign-out").click()
        page.locator("#token").fill(VIEWER_TOKEN)
        page.keyboard.press("Enter")
        expect(page.locator("#ratings tr")).not_to_have_count(0)
        expect(page.locator("#gaps-find")).to_be_hidden()
        expect(page.locator("#ratings-save")).to_be_hidden()
        expect(page.locator("#feedback")).not_to_contain_text("没有说周日")
        watch.assert_clean()


def test_rules_are_checked_saved_and_taken_back(chromium: Browser, open_replica: Replica) -> None:
    """A broken text says what was expected and cannot be saved; versions are compared and gone back to."""
    base = newest(open_replica, "words")
    with tab(chromium, open_replica.url, language="en") as (page, watch):
        signs_in(page, open_replica)
        page.locator("#views a[data-view=rules]").click()
        page.locator("#check-form [name=kind]").select_option("words")
        writes(page, "hide 薪酬")
        expect(page.locator("#check-about")).to_contain_text("in line 1 refuse, mask or note")
        expect(page.locator("#rules-save")).to_be_disabled()

        page.locator("#check-form [name=sample]").fill("薪酬怎么算？")
        writes(page, "mask 薪酬\nnote 竞品")
        expect(page.locator("#check-table")).to_contain_text("薪酬")
        page.locator("#check-form [name=note]").fill("until the new year")
        page.locator("#rules-save").click()
        expect(page.locator("#versions tr th").first).to_have_text(f"{base + 1}")
        expect(page.locator("#check-about")).to_have_text("Saved. It is in force on every replica within 5 s.")
        expect(page.locator("#files tbody tr").nth(2)).to_contain_text("ADMIN_TOKEN")
        writes(page, "mask 工资\nnote 竞品")
        expect(page.locator("#check-about")).to_contain_text("The content is good.")
        page.locator("#check-form [name=text]").press_sequentially(" ")
        expect(page.locator("#rules-save")).to_be_disabled()
        page.locator("#check-form [name=text]").press("Backspace")
        page.locator("#rules-save").click()
        expect(page.locator("#versions tr th").first).to_have_text(f"{base + 2}")
        screenshot(page, "admin-rules")

        first = page.locator("#versions tr").nth(1)
        expect(first).to_contain_text("until the new year")
        first.get_by_role("button", name="Compare").click()
        expect(page.locator("#difference-text li")).to_have_text(["−mask 工资", "+mask 薪酬", " note 竞品"])
        screenshot(page, "admin-rules-difference")
        page.locator("#difference-restore").click()
        page.locator("#confirm-yes").click()
        expect(page.locator("#versions tr th").first).to_have_text(f"{base + 3}")
        expect(page.locator("#versions tr").first).to_contain_text(f"as version {base + 1}")
        expect(page.locator("#check-form [name=text]")).to_have_value("mask 薪酬\nnote 竞品")
        saves(open_replica, "words", "", base + 3)
        watch.assert_clean()


def test_a_text_that_is_edited_stays_when_somebody_else_saves(chromium: Browser, open_replica: Replica) -> None:
    """The page says so, refuses to save it, and loads the newest version on demand."""
    base = newest(open_replica, "quotas")
    with tab(chromium, open_replica.url, size=PHONE, language="en") as (page, _):
        signs_in(page, open_replica)
        page.locator("#views a[data-view=rules]").click()
        page.locator("#check-form [name=kind]").select_option("quotas")
        mine = "- {questions: 2000/day}"
        writes(page, mine)
        expect(page.locator("#rules-save")).to_be_enabled()
        saves(open_replica, "quotas", "- {questions: 3000/day}\n", base)

        expect(page.locator("#rules-origin")).to_contain_text(f"has saved version {base + 1} meanwhile")
        expect(page.locator("#check-form [name=text]")).to_have_value(mine)
        page.locator("#rules-save").click()
        expect(page.locator("#trouble")).to_contain_text("Somebody has just saved a new version")
        screenshot(page, "admin-rules-phone")
        page.locator("#rules-reload").click()
        expect(page.locator("#check-form [name=text]")).to_have_value("- {questions: 3000/day}\n")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        saves(open_replica, "quotas", "", base + 1)


def test_a_viewer_sees_which_rules_are_in_force(chromium: Browser, open_replica: Replica) -> None:
    """Who saved them and when, and neither a text nor a version."""
    with tab(chromium, open_replica.url, language="en") as (page, watch):
        signs_in(page, open_replica, VIEWER_TOKEN)
        page.locator("#views a[data-view=rules]").click()
        expect(page.locator("#files tbody tr")).to_have_count(3)
        expect(page.locator("#check-form")).to_be_hidden()
        expect(page.locator("#versions-card")).to_be_hidden()
        watch.assert_clean()


def writes(page: Page, text: str) -> None:
    """Write a text of rules, and check it."""
    page.locator("#check-form [name=text]").fill(text)
    page.locator("#check-form [type=submit]").click()


def newest(replica: Replica, kind: str) -> int:
    """Return the newest version of a kind of rules, 0 for none."""
    headers = {"Authorization": f"Bearer {ADMIN_TOKEN}"}
    kinds = requests.get(f"{replica.url}/api/admin/rules", headers=headers, timeout=60).json()["data"]["kinds"]
    version = next(one["version"] for one in kinds if one["kind"] == kind)
    return int(version["number"]) if version else 0


def saves(replica: Replica, kind: str, text: str, base: int) -> None:
    headers = {"Authorization": f"Bearer {ADMIN_TOKEN}"}
    body = {"text": text, "base": base}
    reply = requests.put(f"{replica.url}/api/admin/rules/{kind}", json=body, headers=headers, timeout=60)
    assert reply.status_code == 200, reply.text


def test_an_administrator_pauses_and_cancels_a_batch(
    chromium: Browser, open_replica: Replica, held_dify: MockDify
) -> None:
    """Its row has the buttons of its status; a socket is listed, and closed for its client."""
    sent = {"name": "管理", "texts": [f"{QUESTION} {number}" for number in range(3)]}
    task = requests.post(f"{open_replica.url}/api/batch/tasks", json=sent, timeout=60).json()["data"]["task_id"]
    with (
        tab(chromium, open_replica.url, language="en") as (page, watch),
        tab(chromium, open_replica.url) as (chat, _),
    ):
        with chat.expect_websocket() as opened:
            chat.goto(open_replica.url + "/chat")
        expect(chat.locator("#state")).to_have_attribute("data-state", "open")
        client = opened.value.url.rpartition("/")[2]
        signs_in(page, open_replica)
        page.locator("#views a[data-view=work]").click()
        row = page.locator(f"#batches tr[data-key^='{task}']")
        row.get_by_role("button", name="Pause").click()
        expect(row).to_contain_text("paused")
        row.get_by_role("button", name="Resume").click()
        row.get_by_role("button", name="Cancel").click()
        page.locator("#confirm-yes").click()
        expect(row).to_contain_text("cancelled")
        expect(row.get_by_role("button")).to_have_count(0)

        socket = page.locator(f"#sockets tr[data-key^='{client}']")
        expect(socket).to_contain_text("chat")
        socket.get_by_role("button", name="Close").click()
        page.locator("#confirm-yes").click()
        expect(socket).to_have_count(0)
        watch.assert_clean()


def test_an_administrator_cancels_a_push(chromium: Browser, open_replica: Replica) -> None:
    """One that waits, after a question; one that was sent has no button."""
    cancelled: list[str] = []

    def cancel(route: Route) -> None:
        cancelled.append(route.request.url.rpartition("/api/admin/")[2])
        pushes(page, "cancelled", "sent")
        route.fulfill(json={"code": 200, "data": {}})

    with tab(chromium, open_replica.url, language="en") as (page, watch):
        pushes(page, "queued", "sent")
        page.route("**/api/admin/pushes/*/cancel", cancel)
        signs_in(page, open_replica)
        page.locator("#views a[data-view=work]").click()
        expect(page.locator("#pushes-count")).to_contain_text("1 wait")
        expect(page.locator("#pushes button")).to_have_count(1)
        page.locator("#pushes tr").first.get_by_role("button", name="Cancel").click()
        page.locator("#confirm-yes").click()

        expect(page.locator("#pushes tr").first).to_contain_text("cancelled")
        assert cancelled == [f"pushes/default.{0:032x}/cancel"]
        watch.assert_clean()


def test_problems_are_shown_with_their_remedies(chromium: Browser, open_replica: Replica) -> None:
    """The figures that need a database are gone, and the page says why; a late recovery shows by itself."""
    with tab(chromium, open_replica.url, size=PHONE) as (page, watch):
        signs_in(page, open_replica)
        overview = requests.get(
            f"{open_replica.url}/api/admin/overview", headers={"Authorization": f"Bearer {ADMIN_TOKEN}"}, timeout=60
        ).json()["data"]
        wrong = {
            "name": "sql",
            "cause": "SQL failed: OperationalError 2003",
            "remedy": "start MySQL",
            "remedy_zh": "启动 MySQL",
        }
        bot = {"bot": "default", "holder": "pod-1:7", "subscribed": True, "stands_by": False}
        changed = {
            **overview,
            **{"today": None, "last_week": None, "figures_missing": "store_unavailable"},
            **{"problems": [wrong], "long_connections": [bot]},
        }
        reply = json.dumps({"code": 200, "message": "Success", "data": changed})
        page.route("**/api/admin/overview", lambda route: route.fulfill(body=reply, content_type="application/json"))

        expect(page.locator("#problems li")).to_contain_text("处理办法： 启动 MySQL")
        expect(page.locator("#fine")).to_be_hidden()
        expect(page.locator("#no-figures")).to_be_visible()
        expect(page.locator("#connections tbody")).to_contain_text("pod-1:7")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        screenshot(page, "admin-problems-phone")

        page.unroute("**/api/admin/overview")
        expect(page.locator("#problems li")).to_have_count(0)
        watch.assert_clean()


def test_an_operator_posts_a_test_message_to_the_group(chromium: Browser, open_replica: Replica) -> None:
    """The button is there where there is a group; the page says whether the robot took the message."""
    with tab(chromium, open_replica.url, language="en") as (page, _):
        signs_in(page, open_replica)
        expect(page.locator("#parts li")).not_to_have_count(0)
        expect(page.locator("#test-alert")).to_be_hidden()

        def with_group(route: Route) -> None:
            found = route.fetch().json()
            found["data"]["alerts"] = True
            route.fulfill(json=found)

        page.route("**/api/admin/overview", with_group)
        page.route("**/api/admin/alerts/test", lambda route: route.fulfill(json={"data": {"posted": True}}))
        page.locator("#test-alert").click()
        expect(page.locator("#alert-tested")).to_have_text("Posted to the group.")
        screenshot(page, "admin-test-alert")

        page.route("**/api/admin/alerts/test", lambda route: route.fulfill(status=502, json={}))
        page.locator("#test-alert").click()
        expect(page.locator("#alert-tested")).to_contain_text("check ALERT_WEBHOOK")
