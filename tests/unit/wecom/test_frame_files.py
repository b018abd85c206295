"""Pictures and files in WeCom's frames: words in the text, links after it, the same in every poll."""

from __future__ import annotations

from dataclasses import replace

from config.texts import ZH, Texts
from services.files.answer_store import StoredFile
from services.files.links import FOLDER, FileLinks, FileRef
from services.files.shown import FileOffers
from services.streams.records import Snapshot
from services.wecom.frames import EndedAnswer, WeComFrames, ended
from utils.stream_utils import FRAME_BYTES, answer_text

TEXTS = Texts()
LINKS = FileLinks(b"k" * 32, "https://chat.example.com")
FRAMES = WeComFrames(TEXTS, FileOffers(TEXTS, LINKS), thinking={"default": "show"})
CLOSED = WeComFrames(TEXTS, FileOffers(TEXTS, FileLinks(b"k")), thinking={"default": "show"})

SIGNED = "/files/tools/9d1c.png?timestamp=1790000105&nonce=ab12&sign=xyz="
PICTURE = StoredFile("p0", "猫.png", "image/png", 10, "0" * 32, expiry=2_000_000_000)
REPORT = StoredFile("f0", "报告.pdf", "application/pdf", 10, "0" * 32, expiry=2_000_000_000)
LOST = StoredFile("x0", "图 [1]", url="https://a.example/x")


def url(stored: StoredFile, suffix: str) -> str:
    return LINKS.url(FileRef("s", stored.entry), stored.expiry, suffix)


def test_a_picture_is_words_from_the_first_frame_on() -> None:
    """No frame shows Dify's address, and the words stay when the answer is complete."""
    text = f"看这只![猫]({SIGNED})很可爱"
    growing = [FRAMES.content("default", Snapshot("s", "processing", text=text[:end])) for end in range(1, len(text))]
    finished = FRAMES.content("default", ended(text, "", stream_id="s"), (PICTURE,))

    assert finished == "看这只（图片：猫）很可爱"
    assert all(finished.startswith(frame) for frame in growing)
    assert not [frame for frame in growing if "files" in frame]


def test_files_are_linked_after_the_text() -> None:
    """Pictures of the frame are no links; what could not be fetched is named with its own address."""
    content = FRAMES.content("default", ended("好了", "", stream_id="s"), (REPORT, PICTURE, LOST))

    file_link = ZH["file_link"].format(name="报告.pdf", url=url(REPORT, ".pdf"))
    missing = ZH["files_missing"].format(names="[图 1](https://a.example/x)")
    assert content == f"好了\n\n{file_link}\n\n{missing}"


def test_without_a_public_address_files_are_named() -> None:
    content = CLOSED.content("default", ended("好了", "", stream_id="s"), (REPORT,))

    assert content == f"好了\n\n{ZH['files_unlinked'].format(names='报告.pdf')}"


def test_a_long_text_leaves_room_for_the_links() -> None:
    """The text is cut for them, and the owner knows that the rest has to follow."""
    text = "字" * 6800
    answer = ended(text, "", stream_id="s")

    assert not FRAMES.overflows("default", text, "", stream_id="s")
    assert FRAMES.overflows("default", text, "", stream_id="s", files=(REPORT,))
    content = FRAMES.content("default", answer, (REPORT,))
    assert url(REPORT, ".pdf") in content
    assert len(content.encode()) <= FRAME_BYTES
    late = FRAMES.late_message("default", EndedAnswer(text, answer, stream_id="s", files=(REPORT,)))
    assert content.count("字") + late.count("字") == 6800


def test_sources_suggestions_and_links_have_their_order() -> None:
    """All three are below the text, as in the late message; without room for all, the suggestions are left out."""
    frames = WeComFrames(TEXTS, FileOffers(TEXTS, LINKS), thinking={"default": "show"}, sources={"default"})
    answer = replace(ended("好了", "", stream_id="s"), cited="1. 手册", note="病假呢\n婚假呢")
    file_link = ZH["file_link"].format(name="报告.pdf", url=url(REPORT, ".pdf"))
    suggestions = f"{ZH['suggestions_heading']}\n\n- 病假呢\n- 婚假呢"
    parts = [ZH["sources_heading"], "1. 手册", suggestions, file_link]

    content = frames.content("default", answer, (REPORT,))
    others = len("\n\n".join(["", *parts]).encode()) - len(suggestions.encode()) // 2
    full = frames.content("default", replace(answer, text="a" * (FRAME_BYTES - others)), (REPORT,))

    assert content == "\n\n".join(["好了", *parts])
    assert [part in full for part in parts] == [True, True, False, True]
    assert len(full.encode()) <= FRAME_BYTES


def test_a_frame_that_ended_early_shows_no_files_and_the_late_message_all() -> None:
    """The frame's text stays as it was, also where it was cut within a picture's address."""
    text = f"先看![猫]({SIGNED})再说"
    shown = Snapshot("s", "completed", text=text[:20], frame_over=True, late=True)

    content = FRAMES.content("default", shown, (PICTURE, REPORT))
    late = FRAMES.late_message("default", EndedAnswer(text, shown, stream_id="s", files=(PICTURE, REPORT)))

    assert content == f"先看\n\n{ZH['frame_ended_late']}"
    assert late.startswith("(2/2)\n\n（图片：猫）再说\n\n")
    assert f"![猫.png]({url(PICTURE, '.png')})" in late
    assert url(REPORT, ".pdf") in late


def test_an_answer_beyond_frame_and_message_links_the_whole() -> None:
    """Nothing of it is lost: the message ends with a link to all of the text."""
    offers = FileOffers(TEXTS, LINKS)
    text = "\n\n".join(f"第 {number} 条：{'字' * 40}" for number in range(500))
    link = offers.whole_text("s", 1200.0)

    late = FRAMES.late_message("default", EndedAnswer(text, ended(text, ""), stream_id="s", full_text_link=link))

    assert late.endswith(link)
    assert "https://chat.example.com/files/s.text." in link
    assert "20 分钟" in link
    assert len(late.encode()) <= FRAME_BYTES
    assert len(answer_text(text).encode()) > 2 * FRAME_BYTES


def test_a_link_that_would_end_at_once_is_not_given() -> None:
    assert FileOffers(TEXTS, LINKS).whole_text("s", 30.0) == ""
    assert FileOffers(TEXTS, FileLinks(b"k")).whole_text("s", 1200.0) == ""
    assert FOLDER in FileOffers(TEXTS, LINKS).whole_text("s", 61.0)
