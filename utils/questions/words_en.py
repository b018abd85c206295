"""Words and phrases of English questions, and of forms that only look like questions; used by `english`.

The word classes are closed or nearly so: verbs that invert with their subject, pronouns, determiners, prepositions. The
phrases match lower-case words separated by single spaces, with contractions of question words expanded.
"""

from __future__ import annotations

import re


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


def _either(*forms: str) -> str:
    return f"(?:{'|'.join(forms)})"


BE = _words("is are was were isn't aren't wasn't weren't")
HAVE = _words("have has had haven't hasn't hadn't")
DO = _words("do does did don't doesn't didn't")
MODAL = _words(
    "can could will would shall should may might must can't couldn't won't wouldn't shouldn't mustn't shan't"
)
#: Verbs that invert with the subject in questions.
AUXILIARY = BE | HAVE | DO | MODAL | {"am"}
NEGATED = frozenset(word for word in AUXILIARY if word.endswith("n't"))

PERSON = _words("i you we they he she")
SOMEONE = _words("anyone anybody someone somebody everyone everybody anything something everything nobody")
DETERMINER = _words("the this that these those my your our their his her its any some all both each")
#: Determiners that often stand alone.
POINTER = _words("this that these those")
SUBJECT = PERSON | SOMEONE | DETERMINER | {"it", "there"}
#: Departments, which offices treat as persons.
BODY = _words("finance payroll hr legal management marketing sales accounting security support facilities procurement")
NOUNS_IN_ING = _words("parking training meeting building billing housing hiring onboarding funding catering")

QUESTION_WORD = _words("what who whom whose which when where why how")
CONTRACTIONS = {
    "what's": "what is", "who's": "who is", "where's": "where is", "when's": "when is", "how's": "how is",
    "why's": "why is", "what're": "what are", "who'll": "who will", "what'll": "what will", "how'd": "how did",
    "where'd": "where did", "what'd": "what did", "who'd": "who would",
}  # fmt: skip

PREPOSITION = _words(
    "at to for from in on by with of about until till since under into over through during"
)  # fmt: skip
#: Words after a verb's object; they show that the noun before them is not a subject: did the slides already.
AFTER_OBJECT = PREPOSITION | _words(
    "before after already yesterday today tonight tomorrow again now then and but or so because as if when while first"
    " last once twice myself yourself instead too right please well quickly"
)
#: Words after a form of `be` whose subject is omitted: (this) is fine.
COMPLEMENT = AFTER_OBJECT | _words(
    "fine good ok okay great nice not also still just very really done ready true false wrong better worse perfect"
    " correct important a an no out up down off back here what why how where when who being going getting sick late"
    " more less most well"
)
#: Introductory words.
LEAD = _words(
    "um uh er erm hmm ah oh so and but or okay ok alright well now then yeah yep yes sorry hi hello hey thanks guys"
    " everyone team just actually anyway also please basically like right seriously really honestly again maybe"
)
#: Phrases before a question that are not part of it.
INTRODUCTION = re.compile(
    _either(
        r"excuse me|one (?:more|last|quick) thing",
        r"one (?:second|moment|sec)|(?:next|last) (?:topic|point|item)|before i forget|out of curiosity|hold on|wait",
        r"let me (?:just |quickly )?ask (?:you )?(?:something|this|one thing|a question)|let me (?:just )?ask you",
        r"let me (?:just )?ask(?= (?:wh\w+|how) (?:do|did|are|have|would|can|could|will) you\b)",
        r"(?:let me )?(?:just |quickly |double )*check(?:ing)?(?= (?:is|are|do|does|did|has|have|was|were|can|will)\b)",
        r"just to (?:confirm|be sure|clarify|double check)",
        r"(?:if|hope|i hope) you don't mind (?:me|my) asking|if (?:i|you) (?:may|might) (?:i )?ask|can i just ask",
        r"(?:forgive me |not |i don't want |i hate )?(?:for|to) (?:bother|interrupt(?:ing)?|jump in|be rude|bothering)"
        r"(?: (?:you|again|here))?(?: but)?",
        r"(?:i|we) (?:have|had|got|'ve got) (?:a|one|another) (?:quick )?question|(?:a )?(?:quick|one) question",
    )
    + r"(?: |$)"
)
#: Words after which inversion is no question: nor do I, as can we.
NO_QUESTION_AFTER = _words(
    "it there to if that not neither nor as than only never nowhere rarely seldom hardly whether is are was were be and"
)
#: Verbs that introduce a reported question: he goes what do you want, I don't know what's the status.
TELLING = _words("said say says saying goes went thought thinking like asking ask know see understand remember wonder")
#: Words between such a verb and the reported question: she said to me what do you want.
TOLD_TO = PERSON | _words("me him her us them like if that to")
#: Subjects that each verb agrees with: `is they` in "the thing is they fail" is no inversion.
AGREEMENT = {
    "am": _words("i"), "is": _words("he she it"), "are": _words("you we they"), "was": _words("i he she it"),
    "were": _words("you we they"), "has": _words("he she it"), "have": _words("i you we they"),
    "does": _words("he she it"), "do": _words("i you we they"),
}  # fmt: skip
#: Verbs before `it` that mark a question in mid-sentence: the invoice has it been paid (not: the thing is it fails).
ASK_OF_IT = _words("has does will would can should")

#: Verbs after `that` in questions about the previous statement: does that work for everyone.
SUITS = _words("work help suit make sound answer mean include apply count")

#: Verbs after a relative `which`.
AFTER_WHICH = _words("means makes leads brings reminds explains shows")

#: Requests for information, at the start of a clause; requests for actions are no questions.
REQUEST = re.compile(
    r"(?:please |can you |could you |would you |just )*"
    + _either(
        r"(?:tell|remind) (?:me|us)\b",
        r"explain\b(?! (?:\w+ )?to (?!me|us))|describe\b|summari[sz]e\b|define\b",
        r"walk (?:me|us) through|help me understand|look up\b|find out\b",
        r"list (?:the|all|every|our|my)\b|compare (?:the|our)",
        r"show (?:me|us) (?:the|all|how|what|where|which|our|my)\b",
        r"give (?:me|us) (?:the|an?|some|more) (?:\w+ )?(?:summary|overview|update|list|status|numbers?|details?)",
        r"give (?:me|us) (?:the|an?|some|more) (?:\w+ )?(?:breakdown|examples?|reasons?|explanation|idea|information)",
        r"check (?:if|whether|how|what|when|the status)\b",
    )
)
WANTS_TO_KNOW = re.compile(
    _either(
        r"\bi(?:'d| would) (?:like|love) to (?:know|ask|understand|find out|check)",
        r"\bi (?:just )?(?:want|wanted|need) to (?:know|ask|find out)(?! that)",
        r"\bi(?: was|'m| am)? (?:just )?wonder(?:ing)?\b|^wondering if|\bi'm curious\b",
        r"^any (?:ideas?|chance|updates?|news|thoughts|word)\b(?! (?:is|are|will|would|can|could)\b)",
        r"^any (?:\w+ )?(?:objections?|questions?|comments?|concerns?|suggestions?|feedback|volunteers)$",
        r"^any(?:one|body) (?:know|have|got|seen|heard|remember|need|want|here)\b",
        r"^any(?:one|body|thing) else\b|^got (?:a|any) (?:minute|moment|second|sec|question|idea)\b",
        r"^question (?:about|for|on)|^(?:quick|one) question\b|^need (?:i|we)\b",
        r"\b(?!(?:have|has|had|having|got|get|be|is|are|was|were|\w+n't|without|see|hear|heard|for|with|on|to|of|in"
        r"|if|there|answer|take|raised?|make|give)\b)\w+ any (?:ideas?|thoughts|objections|suggestions|volunteers)$",
    )
)
#: Had I known, should you need it: conditions. May I introduce: no question, and May is a month too.
NO_INVERSION = re.compile(
    r"had (?:i|you|we|they|he|she)\b|should you (?:need|have|want|wish|find)\b|may (?!i\b|we\b)|may i introduce"
    r"|should (?:anything|something) (?!be\b)"
    r"|were it (?:not|up|my)\b|don't you (?:worry|dare)\b"
)
#: Words after which inversion follows anywhere in the clause and is no question: no sooner had we started.
NEGATIVE_FIRST = re.compile(
    r"(?:no sooner|only (?:then|when|after|once|if|by)|not (?:only|once|until)|(?:under|in|at|on) no \w+|hardly|rarely"
    r"|seldom|never(?! mind)|little) "
)
#: Statements about a question: who approved it doesn't matter.
DISMISSED = re.compile(
    r"\b(?:doesn't|does not|didn't) matter\b|\bis (?:irrelevant|unclear|up to)\b|\bremains\b"
    r"|^\w+(?: \w+){2,8} (?:is|was) (?:not (?:my|our|your|for)|none of|beyond|another|anyone's guess|a mystery)\b"
)
#: Quoted questions: are you coming he asked.
QUOTED = re.compile(r"\b(?:he|she|they) (?:asked|said|wondered)\b")
#: Free relative clauses: what is done is done, what matters is.
FREE_RELATIVE = re.compile(
    r"^what (?:(?:is|was|are) \w+|matters|counts|happened|happens|helps|works|worked|remains|follows) (?:is|was)\b"
    r"|^what (?!(?:is|was|are|were|do|does|did|can|will|would|about|if|else)\b)\w+(?: \w+){0,4}"
    r" (?:is|was) (?:that|to|when|because)\b"
)
