"""Cards that an app writes into its answer: found, checked against the documented rules, and shown once."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.texts import ZH, Texts
from demo.wecom.card_rules import card_violations
from services.files.links import FileLinks
from services.files.shown import FileOffers
from services.streams.records import Snapshot
from services.wecom.cards import card_words, parted, read_card, read_click
from services.wecom.frames import EndedAnswer, WeComFrames

URL = {"type": 1, "url": "https://example.com/"}
OPTIONS = [{"id": "a", "text": "甲"}, {"id": "b", "text": "乙"}]
BUTTON = {"text": "年假", "key": "年假怎么申请"}
BUTTONS: dict[str, Any] = {
    "card_type": "button_interaction",
    "main_title": {"title": "要问什么？"},
    "button_list": [BUTTON],
}
CARDS: list[dict[str, Any]] = [
    BUTTONS,
    {**BUTTONS, "button_selection": {"question_key": "q", "option_list": OPTIONS}, "sub_title_text": "…"},
    {"card_type": "text_notice", "sub_title_text": "通知", "card_action": URL, "jump_list": [{"title": "更多", **URL}]},
    {
        "card_type": "text_notice",
        "main_title": {"title": "通知"},
        "card_action": URL,
        "action_menu": {"action_list": [BUTTON]},
        "horizontal_content_list": [{"keyname": "谁", "type": 3, "userid": "zhangsan"}],
        "jump_list": [{"type": 3, "title": "问", "question": "年假"}],
    },
    {
        "card_type": "news_notice",
        "main_title": {"title": "新闻"},
        "card_action": URL,
        "card_image": {"url": "https://example.com/x.png", "aspect_ratio": 2},
    },
    {
        "card_type": "vote_interaction",
        "main_title": {"title": "投票"},
        "checkbox": {"question_key": "q", "option_list": OPTIONS, "mode": 1},
        "submit_button": BUTTON,
    },
    {
        "card_type": "multiple_interaction",
        "main_title": {"title": "选择"},
        "select_list": [{"question_key": "q", "option_list": OPTIONS}],
        "submit_button": BUTTON,
    },
]
INVALID: list[Any] = [
    None,
    [],
    {},
    {**BUTTONS, "card_type": "other"},
    {**BUTTONS, "main_title": {}},
    {**BUTTONS, "button_list": []},
    {**BUTTONS, "button_list": [BUTTON] * 7},
    {**BUTTONS, "button_list": [{**BUTTON, "style": 5}]},
    {**BUTTONS, "button_list": [{**BUTTON, "key": "年" * 342}]},
    {**BUTTONS, "button_list": [{"text": "年假"}]},
    {**BUTTONS, "surprise": 1},
    {**BUTTONS, "card_action": {"type": 1, "url": "javascript:alert(1)"}},
    {**CARDS[2], "card_action": {"type": 0}},
    {**CARDS[2], "sub_title_text": ""},
    {**CARDS[2], "jump_list": [{"title": "更多"}] * 4},
    {**CARDS[3], "jump_list": [{"type": 3, "title": "问", "question": "年" * 67}]},
    {**CARDS[3], "horizontal_content_list": [{"keyname": "谁"}] * 7},
    {**CARDS[4], "card_image": {"url": "https://example.com/x.png", "aspect_ratio": 3}},
    {**CARDS[5], "checkbox": {"question_key": "q", "option_list": OPTIONS * 11}},
    {**CARDS[6], "select_list": CARDS[6]["select_list"] * 4},
    {**CARDS[6], "submit_button": None},
]


def block(card: Any) -> str:
    return f"```wecom-card\n{json.dumps(card, ensure_ascii=False)}\n```"


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card["card_type"])
def test_each_documented_kind_is_taken(card: dict[str, Any]) -> None:
    """It is what the app wrote, and breaks no rule."""
    found = read_card(json.dumps(card))

    assert found == card
    assert list(card_violations({**found, "task_id": "t"})) == []


@pytest.mark.parametrize("card", INVALID)
def test_an_invalid_card_stays_visible_as_code(card: Any) -> None:
    """Nothing of the answer is lost, and no half card is sent."""
    text = f"看：\n{block(card)}\n完"

    assert parted(text, growing=False) == (text, None)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"前\n{block(BUTTONS)}\n后", "前\n后"),
        (block(BUTTONS), ""),
        (f"前\n{block({})}\n{block(BUTTONS)}", f"前\n{block({})}"),
        (f"前\n{block(BUTTONS)}\n{block(BUTTONS)}", f"前\n{block(BUTTONS)}"),
        (f"<think>想\n</think>\n{block(BUTTONS)}", "<think>想\n</think>"),
    ],
)
def test_the_first_valid_block_is_the_card(text: str, shown: str) -> None:
    """A message has one card."""
    assert parted(text, growing=False) == (shown, BUTTONS)


@pytest.mark.parametrize(
    "text",
    [
        f"<think>\n{block(BUTTONS)}\n</think>",
        f"````\n{block(BUTTONS)}\n````",
        block(BUTTONS).removesuffix("\n```"),
        block(BUTTONS).replace("wecom-card", "wecom-cards"),
        f"- {block(BUTTONS)}",
        f"`{block(BUTTONS)}",
    ],
)
def test_what_is_no_block_of_the_answer_stays(text: str) -> None:
    """Thoughts, code about cards, a block without an end, another language, a block within a line."""
    assert parted(text, growing=False) == (text, None)


PIECES = st.sampled_from(
    ["前", "\n", "```", "`", "```wecom-card", "\n```\n", block(BUTTONS), block({}), "<think>", "x"]
)


@given(st.lists(PIECES, max_size=8).map("".join))
def test_what_is_shown_only_grows_and_ends_as_the_whole(text: str) -> None:
    """No part of a block that becomes a card is ever shown."""
    shown = ""
    for size in range(len(text) + 1):
        now = parted(text[:size], growing=True).text
        assert now.startswith(shown.rstrip("\n"))
        shown = now
    whole = parted(text, growing=False)
    assert whole.text.startswith(shown.rstrip("\n"))


NO_LINKS = FileOffers(Texts(), FileLinks(b"k"))
FRAMES = WeComFrames(Texts(), NO_LINKS, thinking={"b": "show"})
STREAM = "0123456789abcdef" * 2


def snapshot(text: str, status: Any = "completed", **members: Any) -> Snapshot:
    return Snapshot(STREAM, status, text=text, size=len(text.encode()), **{"late": True, **members})


def test_a_card_has_the_answers_own_id_and_its_clicks_are_questions() -> None:
    """Whatever id the app wrote: WeCom wants a unique one."""
    card = FRAMES.card(snapshot(block({**BUTTONS, "task_id": "mine"})), single=False)
    assert card == {**BUTTONS, "task_id": f"ask-{STREAM}"}

    chosen = {"selected_item": [{"question_key": "q", "option_ids": {"option_id": ["a", "b"]}}]}
    for items in (chosen, {"selected_item": [{"questionkey": "q", "optionids": {"optionid": ["a", "b"]}}]}):
        details = {"event_key": "提交", "task_id": card["task_id"], "selected_items": items}
        assert read_click({"event": {"template_card_event": details}}).text == "提交\nq: a, b"


def test_frames_show_a_card_once_and_whole() -> None:
    """A growing frame has no card, and no frame has its lines; where no click can be answered, the block is code."""
    text = f"前\n\n{block(BUTTONS)}\n\n后"
    growing, ended = snapshot(text, "processing"), snapshot(text)

    assert (FRAMES.content("b", growing), FRAMES.card(growing, single=True)) == ("前\n\n\n后", None)
    assert FRAMES.content("b", ended) == "前\n\n\n后"
    assert FRAMES.content("b", snapshot(block(BUTTONS))) == ZH["card_below"]
    unanswerable = snapshot(text, late=False)
    assert (FRAMES.content("b", unanswerable), FRAMES.card(unanswerable, single=True)) == (text, None)


@pytest.mark.parametrize(
    ("seen", "message"),
    [
        # The frame had the card: the message goes on after it.
        (f"前\n{block(BUTTONS)}\n后", "(2/2)\n\n再"),
        # The frame ended within the block: all of it is in the message.
        (f"前\n{block(BUTTONS)[:40]}", f"(2/2)\n\n{card_words(BUTTONS)}\n\n后\n\n再"),
        # What the frame showed is not known.
        (None, f"(2/2)\n\n前\n\n{card_words(BUTTONS)}\n\n后\n\n再"),
    ],
)
def test_a_card_that_the_frame_did_not_have_is_words_in_the_late_message(seen: str | None, message: str) -> None:
    """A late message cannot have a card beside its text."""
    text = f"前\n{block(BUTTONS)}\n后\n\n再"
    frame = None if seen is None else snapshot(seen, frame_over=True)

    shown = FRAMES.late_message("b", EndedAnswer(text, frame))

    assert "".join(shown.split()) == "".join(message.split())


def test_in_parts_a_card_follows_the_text() -> None:
    """The text of an answer without a frame has no block; without a text it says where the card is."""
    frames = WeComFrames(Texts(), NO_LINKS, thinking={"b": "show"}, parts=30)

    assert frames.further_messages("b", EndedAnswer(f"前\n{block(BUTTONS)}\n后", None)).messages == ["前\n\n后"]
    assert frames.further_messages("b", EndedAnswer(block(BUTTONS), None)).messages == [ZH["card_below"]]
    assert frames.app_card(STREAM, block(BUTTONS)) == {**BUTTONS, "task_id": f"ask-{STREAM}"}


@pytest.mark.parametrize(
    ("card", "words"),
    [
        (BUTTONS, "**要问什么？**\n\n- 年假: 年假怎么申请"),
        (CARDS[1], "**要问什么？**\n\n…\n\n- 年假: 年假怎么申请\n- 甲\n- 乙"),
        (CARDS[2], "通知\n\n- [更多](https://example.com/)\n- <https://example.com/>"),
        (CARDS[3], "**通知**\n\n- 谁: zhangsan\n- 问: 年假\n- <https://example.com/>\n- 年假: 年假怎么申请"),
        (CARDS[4], "**新闻**\n\n- <https://example.com/>"),
        (CARDS[5], "**投票**\n\n- 甲\n- 乙"),
        (CARDS[6], "**选择**\n\n- 甲\n- 乙"),
    ],
)
def test_a_card_has_words_for_places_that_show_none(card: dict[str, Any], words: str) -> None:
    """Its texts, and what people can choose, open or type."""
    assert card_words(read_card(json.dumps(card))) == words


def test_suggestions_are_a_card_in_a_single_chat_and_a_list_in_a_group() -> None:
    """Each question is once in the reply; after other cards they are listed."""
    ended = snapshot("五天", note="病假呢？\n怎么申请？")
    card = FRAMES.card(ended, single=True)
    assert card
    assert [button["key"] for button in card["button_list"]] == ["病假呢？", "怎么申请？"]
    assert list(card_violations(card)) == []
    assert FRAMES.content("b", ended, single=True) == "五天"

    listed = f"五天\n\n{ZH['suggestions_heading']}\n\n- 病假呢？\n- 怎么申请？"
    assert (FRAMES.content("b", ended), FRAMES.card(ended, single=False)) == (listed, None)
    with_card = snapshot(f"五天\n{block(BUTTONS)}", note=ended.note)
    assert FRAMES.content("b", with_card, single=True) == listed
