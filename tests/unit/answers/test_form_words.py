"""Which words answer which form, and what a person reads of one."""

from __future__ import annotations

import pytest

from services.answers.forms.form_store import KeptForm, State
from services.answers.forms.words import chosen, offered, shown, without_choices
from services.forms import FormAction, FormChoice, FormInput, OfferedChoices, PendingForm
from tests.support.texts import KEYS

ACTIONS = (FormAction("yes", "同意"), FormAction("no", "Refuse"), FormAction("later", "同意，但稍后"))
COMMENT, PRIORITY = FormInput("comment", "无"), FormInput("priority", options=("low", "High"))


def form(
    *inputs: FormInput, run: str = "run", first: int = 1, actions: tuple[FormAction, ...] = ACTIONS
) -> PendingForm:
    return PendingForm(f"token-{run}-{first}", run, actions=actions, inputs=inputs, content="要怎么办？", first=first)


def kept(one: PendingForm, opened: float = 1.0, state: State = "open") -> KeptForm:
    return KeptForm(one.token, opened, state, "", one)


def answer(text: str, *forms: KeptForm) -> tuple[str, FormChoice] | None:
    found = chosen(text, forms)
    return (found.kept.form_id, found.choice) if found else None


@pytest.mark.parametrize(
    ("text", "action"),
    [("1", "yes"), (" 2\n", "no"), ("３", "later"), ("同意", "yes"), ("REFUSE ", "no"), ("同意，但稍后", "later")],
)
def test_a_choice_is_its_number_or_its_words(text: str, action: str) -> None:
    """Spaces around, upper case and full-width characters do not count."""
    assert answer(text, kept(form())) == ("token-run-1", FormChoice(action, {}))


OTHER_TEXTS = ("", "0", "4", "12", "1.5", "1 吗", "第1", "我同意", "同意吧", "refused", "1\n2")
UNFIT_TEXTS = ("1\n尽快\nmiddle", "1\n一\nlow\n三", "1尽快", "10 尽快", "同意吗")


@pytest.mark.parametrize(
    ("text", "inputs"),
    [*((text, ()) for text in OTHER_TEXTS), *((text, (COMMENT, PRIORITY)) for text in UNFIT_TEXTS)],
)
def test_any_other_text_is_a_question(text: str, inputs: tuple[FormInput, ...]) -> None:
    """Words beside a choice are one as well, where the form asks for no text.

    Where it does: a value that is not offered, a line too many, or no space after the choice.
    """
    assert answer(text, kept(form(*inputs))) is None


@pytest.mark.parametrize(
    ("text", "inputs"),
    [
        ("1 尽快", {"comment": "尽快"}),
        ("1、尽快，\n谢谢", {"comment": "尽快，\n谢谢"}),
        ("同意：尽快", {"comment": "尽快"}),
        ("1", {"comment": "无"}),
        ("1\n尽快\nhigh", {"comment": "尽快", "priority": "High"}),
        ("1 尽快", {"comment": "尽快", "priority": ""}),
    ],
)
def test_one_text_is_the_rest_of_the_message_and_several_are_its_lines(text: str, inputs: dict[str, str]) -> None:
    """In the form's order, by default the form's own; an offered value is compared like a choice's words."""
    wanted = (COMMENT, PRIORITY)[: len(inputs)]

    assert answer(text, kept(form(*wanted))) == ("token-run-1", FormChoice("yes", inputs))


def test_a_number_means_the_newest_run_and_words_the_newest_form_that_has_them() -> None:
    """An older form is meant by words that only it has."""
    newer = kept(form(run="new", actions=(FormAction("ok", "好"),)), 2.0)
    older = kept(form(run="old"))

    assert answer("1", newer, older) == ("token-new-1", FormChoice("ok", {}))
    assert answer("2", newer, older) is None
    assert answer("同意", newer, older) == ("token-old-1", FormChoice("yes", {}))


def test_forms_of_one_pause_have_numbers_of_their_own() -> None:
    """The second one goes on counting."""
    forms = kept(form(first=4), 1.0), kept(form(), 1.0)

    assert answer("2", *forms) == ("token-run-1", FormChoice("no", {}))
    assert answer("5", *forms) == ("token-run-4", FormChoice("no", {}))


def test_an_expired_form_is_meant_where_no_other_is() -> None:
    """An older form that is open is chosen before it."""
    expired, older = kept(form(run="new"), 2.0, "expired"), kept(form(run="old"))

    assert answer("1", expired, older) == ("token-old-1", FormChoice("yes", {}))
    assert answer("1", expired) == ("token-new-1", FormChoice("yes", {}))


def test_a_form_is_shown_with_its_choices_and_how_to_answer() -> None:
    """Texts it asks for are listed; where it cannot be answered, a sentence says so."""
    plain = shown([form()], KEYS, answerable=True)
    texts = shown([form(COMMENT, PRIORITY)], KEYS, answerable=True)

    assert plain == "要怎么办？\n\n1. 同意\n2. Refuse\n3. 同意，但稍后\n\n<form_choose>"
    assert texts.endswith("<form_wanted>\n\n- comment\n- priority（low / High）\n\n<form_inputs>")
    assert shown([form()], KEYS, answerable=False).endswith("<form_elsewhere>")


def test_a_stored_form_is_read_back_and_shows_no_token() -> None:
    """Only its text is left out; a newer version's field is ignored."""
    one = form(COMMENT, PRIORITY, first=3)
    written = one.to_json().replace("{", '{"newer": 1, ', 1)

    assert PendingForm.from_json(written) == PendingForm(
        one.token, "run", actions=ACTIONS, inputs=(COMMENT, PRIORITY), first=3
    )
    assert "token" not in repr(one).replace("PendingForm(", "")


@pytest.mark.parametrize("inputs", [(), (COMMENT, PRIORITY)])
@pytest.mark.parametrize("size", [1, 7, 1000])
def test_choices_at_the_end_of_an_answer_are_left_out_of_its_slices(size: int, inputs: tuple[FormInput, ...]) -> None:
    """However the text is cut, with the texts that the form asks for; a text with another end stays whole."""
    asked = [form(*inputs)]
    text = "一共 5,000 元。\n\n" + shown(asked, KEYS, answerable=True)
    choices = OfferedChoices.from_json(offered(asked))

    def rest(whole: str) -> str:
        slices = (whole[at : at + size] for at in range(0, len(whole), size))
        return "".join(without_choices(slices, choices, KEYS))

    assert rest(text) == "一共 5,000 元。\n\n要怎么办？\n\n"
    assert rest(text + "。") == text + "。"
