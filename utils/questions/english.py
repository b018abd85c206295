"""Detect questions in English clauses by inversion, leading question words, tags and requests for information.

Live speech recognition writes no capitals and few commas, so a question may start in the middle of what looks like one
clause; there, only a verb before its subject marks it.

The word classes are closed or nearly so: verbs that invert with their subject, pronouns, determiners, prepositions. The
phrases match lower-case words separated by single spaces, with contractions of question words expanded. Each pattern of
rhetorical questions includes the words that make the form rhetorical: `how hard can it be` states, `how hard is it to
switch` asks.
"""

from __future__ import annotations

import re
from itertools import pairwise


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

#: End of a form: the end of the clause, or Chinese text after it.
_END = r"(?:$|(?= [\u4e00-\u9fff]))"
_START = r"^(?:(?:well|so|and|but|oh|now|yeah|really|seriously|honestly|like|anyway|okay|then) ){0,3}"
_ONE = r"(?:i|you|we|they|he|she)"
#: The situation that an exclamation refers to.
_THIS = r"(?:it|this|that|things|this \w+|the day|today)"
_PERSON_OR_PLACE = (
    r"(?:person|people|company|employer|boss|manager|colleague|idiot|fool|moron|monster|maniac|genius|lunatic|clown"
    r"|place|hotel|world|team|friend)"
)
#: Verbs of suitability, after which `what kind of …` is a real question.
_FITS = r"(?:is|was|has|does|fits|suits|works|handles|qualifies|counts|needs|gets|applies|uses|owns|runs|offers|sells)"
_PRAISE = (
    r"(?:cool|great|awesome|amazing|lucky|lovely|sweet|nice|weird|crazy|rude|typical|sad|funny|ridiculous|convenient"
    r"|ironic|perfect)"
)

_WHO = _either(
    r"\bwho cares(?! about)|\bwho knew\b|\bwho can say\b|\bwho gives a\b|\bwho even\b",
    rf"\bwho knows(?:{_END}| (?:what|how|when|why|if|where|maybe)\b)",
    r"\bwho (?:am|are) (?:i|we|you) (?:kidding|fooling)\b|\bwho are you to\b|\bwho am i to\b",
    r"\bwho (?:doesn't|wouldn't|don't|hasn't|didn't) (?:like|love|want|need|enjoy|know|hate|prefer)\b",
    r"\bwho doesn't make\b|\bwho hasn't been there\b",
    r"\bwho hasn't (?:had|done|seen|made|heard|felt|missed|lost|forgotten) (?:a|an|that|those)\b(?!.{0,40}\byet\b)",
    rf"\bwho (?:isn't|doesn't|didn't|hasn't|wouldn't){_END}",
    r"\bwho would(?:'ve| have) (?:thought|guessed|known|believed|expected|imagined)\b",
    r"\bwho would (?:ever|even)\b|\bwho would(?: \w+){1,2} such\b|\bwho wants to (?:hear|know) that\b",
    r"\bwho (?:is going to|is gonna|will|would) (?:ever |really |even )?(?:believe|notice|care|miss|stop|blame)\b",
    r"\bwho in (?:their|his|her) right mind|\bwho (?:needs|reads|wants|uses)(?: \w+){1,4} anyway|^seriously who\b",
    rf"\bwho needs(?: \w+){{1,3}} (?:these days|when you have){_END}",
    rf"\bwho has (?:the )?time for (?:that|this|it){_END}",
    rf"\bwho does (?:that|this)(?: anymore)?{_END}|\bwho (?:asked|invited) (?:you|him|her|them|me){_END}",
    rf"\bwho is counting{_END}|\bwho died and\b|\bwho made (?:you|him|her|them) (?:the )?(?:boss|king|queen)\b",
    rf"\bwho (?:do|does) {_ONE} think {_ONE} (?:is|are)\b|\bwho (?:said|says) anything about\b",
    r"\bwho put (?:you|him|her|them) in charge\b",
)
_WHAT = _either(
    rf"\bwhat (?:is|was) the (?:point|use|sense|harm)(?:{_END}| in\b| of\b(?! (?:contact|entry|sale|origin)))",
    r"\bwhat good (?:is|are|does|would|will)\b|\bwhat do i know\b|\bwhat could possibly\b|\bwhat is not to\b",
    rf"\bwhat (?:was|were) \w+ (?:thinking|expecting{_END})",
    rf"\bwhat did {_ONE} expect(?:{_END}| from (?:a|an|such|them|him|her|the \w+est)\b)",
    r"\bwhat more (?:do you want|(?:could|can) (?:you|we|one) (?:ask|want))",
    r"\bwhat is wrong with (?:you|people|them|him|her|me)\b|\bwhat (?:is|was) (?:it|that) to (?:you|me|us)\b",
    rf"\bwhat can i say{_END}|\bwhat can (?:you|one) do{_END}|^so what{_END}|\bwhat else is new{_END}",
    r"\bwhat (?:do|does|did|would|will) (?:it|that) (?:even |really )?matter\b",
    r"\bwhat difference (?:do|does|did|would|will) (?:it|that|this|one \w+) make\b",
    r"\bwhat (?:have|has) \w+ got to lose\b|\bwhat is there to (?:discuss|lose|say|talk|think|complain|worry|argue)\b",
    rf"\bwhat (?:kind|sort) of (?:a )?{_PERSON_OR_PLACE} (?!{_FITS}\b)\w+s\b",
    r"\bwhat (?:kind|sort) of people (?:do|say) (?:that|this|such)\b",
    rf"\bwhat (?:am|are|is) (?:i|we|you|he|they)(?:{_END}| (?:a|an|your|my|some|his) )",
    r"\bwhat (?:do|does|did) (?:he|she|they) think this is\b",
    r"\b(?:what|which) part of(?: \w+){1,4}? (?:do|does|did|don't|doesn't|didn't) \w+ (?:not )?(?:understand|get)\b",
    rf"\bwhat is the (?:rush|big deal|fuss|hurry){_END}|\bwhat do you take (?:me|us) for\b",
    r"\bwhat is an? \w+ anyway\b|\bwhat use is\b(?!.{0,40} for$)",
    r"\b(?:in|on) what (?:world|universe|planet)\b|\bwhat planet\b",
)
_HOW = _either(
    r"\bhow many times (?:do|did|have|must) (?:i|we)\b|\bhow dare\b",
    r"\b(?:how is|when did) (?:that|this|it) (?:become )?my\b",
    rf"\bhow is (?:that|this|it) (?:even )?(?:fair|acceptable|okay|normal){_END}",
    r"\bhow (?:can|could) (?:(?:i|you|they) forget|anyone|anybody)\b",
    rf"\bhow (?:hard|difficult|tough|complicated|bad|wrong|much worse) (?:can|could) {_THIS}(?: \w+)? (?:be|get)\b",
    rf"\bhow (?:stupid|dumb|naive|gullible|blind|desperate) (?:do|does|can|could) {_ONE}\b",
    r"\bhow (?:am|is|are|was|were) (?:i|we|he|she|anyone) supposed to (?:have )?(?:know|known|guess|guessed)\b",
    rf"\bhow (?:should|would|could) (?:i|we) (?:possibly )?(?:have )?know(?:n)?(?: that)?{_END}",
    rf"\bhow {_PRAISE} (?:is|was|are|would) (?:that|this|it)(?: be)?{_END}",
    r"\bhow (?:can|could|would|should) \w+ (?:possibly|\w+ such)\b",
    r"\bhow (?:do|should|can) i (?:say|put) (?:this|it)\b(?! in)",
    r"\bhow (?:do|does|did|would) (?:that|this|it) (?:even )?make (?:any )?sense\b",
)
_WHY = _either(
    r"\bwhy (?:do|does)(?: \w+){1,3} always happen to (?:me|us)\b",
    r"\bwhy would any(?:one|body)\b",
    r"\bwhy bother\b",
    r"\bwhy (?:do|did|should|would) (?:i|we) (?:even )?(?:bother|care|worry|lie|apologi[sz]e)\b",
    r"\bwhy (?:should|would) (?:i|we) (?:make (?:that|this|it) up|be the one)\b",
    r"\bwhy (?:do|did|should|would) i even\b|\bwhy (?:am|are|is) \w+ not (?:even )?surprised\b",
    r"\bwhy (?:would|should|does|do) \w+ even\b|\bwhy can't (?:people|they|you|he|she) (?:just|ever)\b",
    r"\bwhy is it always (?:me|us|my)\b",
    r"\bwhy (?:fix|change|replace) what (?:isn't|is not|works)\b",
)
_WHEN_AND_WHERE = _either(
    r"\bwhere (?:is|was) the (?:fun|harm|logic|sense|fairness|justice)(?:$| in\b)",
    r"\b(?:where|what) would \w+ (?:be|do) without\b",
    r"\bsince when (?:do|does|did|is|are|[\u4e00-\u9fff])"
    r"(?!.{0,60}\b(?:down|closed|open|available|broken|offline|missing|active|valid"
    r"|in effect|in force|out of|apply|hold|(?:on|in|at|with) the|back)\b)",
)
#: Forms with "ever" (what did they ever …), or with "on earth" and the like.
_EVER = _either(
    r"\b(?:what|who|when|where|how) (?:has|have|do|did|does|was|is|would|will|can)(?: \w+){1,3} ever\b",
    r"\b(?:what|who|where|why|how) (?:on earth|in the world|the hell|the heck)\b",
    r"\bwill(?: \w+){1,3} ever (?:end|stop|learn|change|finish|be over)\b",
    r"^(?:do|does|did) (?:they|he|she|you|people) ever (?:listen|learn|think|stop|read)\b",
    r"^have i ever (?:let|lied|failed|said|told|complained|refused)\b",
)
#: Forms with only one possible answer, yes or no.
_ONE_ANSWER = _either(
    r"\bare you (?:kidding|joking|serious)\b|\bcan you (?:imagine|believe|blame)\b|\bmoney grows on trees",
    r"\bmade of money\b|^is this (?:some kind of|a) joke\b|^can't we (?:just )?have one\b",
    r"\bis (?:that|it|this) (?:really )?so (?:hard|difficult|complicated)\b|\b(?:so|too) much to (?:ask|expect|hope)\b",
    r"\b(?:lost|out of) (?:your|his|her|their) mind\b|\bwould it (?:kill|hurt) \w+ to\b",
    r"\bis there anything (?:worse|better|more \w+) than\b",
    r"\b(?:spell it out|draw you a picture|do you see me (?:laughing|smiling|crying))\b",
    r"^didn't see (?:that|this|it) coming\b",
    r"\bdo (?:you|they) (?:really|honestly) think",
    rf"{_START}(?:do )?you think i (?:enjoy|like|love|want|care|chose|have nothing)\b",
    rf"{_START}you call (?:that|this|it|yourself)\b|\bread (?:minds|your mind|my mind)\b|\bborn in a barn\b",
    r"^is (?:the sky blue|the pope|water wet|nothing)\b|^do pigs fly|\bdid i stutter\b",
    r"\bis it any (?:wonder|surprise)\b|\bhave (?:you|they|we) no \w+",
    r"\bneed (?:i|we) (?:say|remind|mention|add|go on)\b",
    rf"\bdo (?:i|we) look like\b(?! {_ONE} (?:need|should|have))",
    r"\bdoes (?:it|this) look like i(?:'m)? (?:\w+ed|am|care|know|enjoy)\b",
    rf"\bcould (?:{_THIS}|{_ONE}) (?:be|get) any (?:\w+er|more|less|worse)\b",
    r"\bmust (?:you|he|she|they|everything|it) (?:always|really|constantly)\b|\bhave to do everything\b",
    r"\bcan't (?:you|they|he|she) (?:do|get) anything\b|^can't (?:one|a (?:person|man|woman|girl|guy))\b",
    r"\bhaven't (?:i|we|you|they)(?: \w+){1,3} enough\b|\bdidn't i (?:just |already )?(?:say|tell|warn)\b",
    r"^(?:isn't|wasn't) (?:it|that|this) (?:just )?(?:great|obvious|lovely|nice|wonderful|ironic|typical|perfect)\b",
    r"^(?:isn't|wasn't|aren't) (?:it|that|this) (?:so )?(?:funny|amazing|something|interesting|sad|ridiculous)",
    r"^(?:isn't|aren't) (?:he|she|we|you|they) (?:just|so|lucky|clever|special|smart|the \w+ one)\b",
    r"\bobvious by now\b",
    r"^isn't (?:that|this) what(?: \w+){2,6} for$",
    r"^wouldn't (?:it|that) (?:though$|be (?:nice|great|lovely|fun|good)\b)",
    rf"{_START}(?:don't|doesn't) (?:you|everyone|everybody) just (?:love|hate)\b|^wouldn't you know\b",
)
#: Exclamations: boy is it hot, am I glad.
_EXCLAIMED = _either(
    r"^(?:boy|man|wow|gosh) (?:is|was|are|were|am|do|does|did|has|have|can)\b",
    rf"{_START}(?:am|was|were) (?:i|we) (?:ever )?(?:so )?(?:glad|relieved|happy|surprised|tired|embarrassed|mad)\b",
)
RHETORICAL = re.compile(_either(_WHO, _WHAT, _HOW, _WHY, _WHEN_AND_WHERE, _EVER, _ONE_ANSWER, _EXCLAIMED))

#: Statements whose tag is rhetorical: they say what everybody knows, or what the speaker has said.
STATES_BEFORE_TAG = re.compile(
    _START
    + _either(
        r"i (?:said|told|warned|did (?:say|tell|warn))\b",
        r"(?:we|everyone|everybody)(?:'ve)? (?:have )?all\b|nobody is perfect\b",
        r"(?:you|one) can't (?:win|have|please|beat|argue)\b|what is done\b",
        r"(?:you|he|she|they) would say\b",
        r"(?:that's|that is|such is|it's|it is) (?:just )?(?:life|typical|always|the way|how it goes|business)\b",
    )
)

_TOKEN = re.compile(r"[a-z]+(?:'[a-z]+)?|[\u4e00-\u9fff]+|\d[\d.,]*", re.IGNORECASE)


def is_rhetorical(clause: str) -> bool:
    """Return whether a clause is a rhetorical question, which states something."""
    tokens = _tokens(clause)[0]
    return bool(RHETORICAL.search(" ".join(tokens))) or _states(tokens)


def states(clause: str) -> bool:
    """Return whether a clause is a statement with a rhetorical tag."""
    return _states(_tokens(clause)[0])


def confidence(clause: str, *, first: bool = True) -> tuple[float, int]:
    """Return the confidence, 0 to 1, that a clause is a question, and the offset at which the question starts.

    `first`: the clause starts its sentence. A later clause may be only a tag.
    """
    tokens, offsets = _tokens(clause)
    if not first and (tokens == ["right"] or _is_tag(tokens)):
        return 0.75, 0
    if RHETORICAL.search(" ".join(tokens)) or _states(tokens):
        return 0.2, 0
    lead = _lead(tokens)
    at_start = max(_by_phrase(tokens[lead:]), _by_order(tokens[lead:]), _by_tag(tokens))
    if tokens[:1] == ["so"] and len(tokens) == 3:  # so do I
        at_start = 0.0
    inside, begin = (0.0, 0) if NEGATIVE_FIRST.match(" ".join(tokens[lead:])) else _inside(tokens, lead)
    if at_start >= inside:
        return at_start, 0
    return inside, offsets[begin] if _is_clause(tokens[:begin]) else 0


def _tokens(clause: str) -> tuple[list[str], list[int]]:
    """Return the words in lower case, a run of Chinese as one word, and the offset of each."""
    found = [(word[0].lower(), word.start()) for word in _TOKEN.finditer(clause.replace("’", "'"))]
    pairs = [(word, offset) for known, offset in found for word in CONTRACTIONS.get(known, known).split()]
    once = [pair for before, pair in pairwise([("", 0), *pairs]) if pair[0] != before[0]]  # did did that help
    return [word for word, _ in once], [offset for _, offset in once]


def _lead(tokens: list[str]) -> int:
    """Return the number of introductory words."""
    lead = _leading(tokens, 0)
    introduction = INTRODUCTION.match(" ".join(tokens[lead : lead + 12]))
    return _leading(tokens, lead + len(introduction[0].split())) if introduction else lead


def _leading(tokens: list[str], start: int) -> int:
    end = max(start, len(tokens) - 1)
    return next((i for i in range(start, len(tokens)) if tokens[i] not in LEAD), end)


def _by_phrase(tokens: list[str]) -> float:
    text = " ".join(tokens)
    if WANTS_TO_KNOW.search(text):
        return 0.85
    if REQUEST.match(text):
        return 0.75
    return 0.6 if 3 <= len(tokens) <= 4 and "or" in tokens[1:-1] and tokens[0] not in ("sooner", "more", "one") else 0.0


def _by_tag(tokens: list[str]) -> float:
    if not 4 <= len(tokens) <= 12:
        return 0.0
    if tokens[-1] == "huh" or tokens[-2:] == ["or", "what"]:
        return 0.65
    if tokens[-1] in QUESTION_WORD and tokens[-2] in PREPOSITION:
        return 0.65
    if tokens[-1] in ("right", "correct"):
        return 0.0 if tokens[-2] in ("all", "is", "are", "that's", "you're", "the", "then", "turn", "just") else 0.7
    return 0.75 if _is_tag(tokens[-2:]) or _is_positive_tag(tokens[-3:]) else 0.0


def _states(tokens: list[str]) -> bool:
    """Return True for `that's life isn't it`, False for `that's the key isn't it`."""
    return bool(STATES_BEFORE_TAG.match(" ".join(tokens))) and _by_tag(tokens) > 0


def _is_tag(tokens: list[str]) -> bool:
    return len(tokens) == 2 and tokens[0] in NEGATED and tokens[1] in PERSON | {"it", "there"}


def _is_positive_tag(tokens: list[str]) -> bool:
    """Return True for `it doesn't mix does it`, False for `so do I`."""
    before, verb, subject = tokens
    inverted = verb in AUXILIARY and subject in PERSON | {"it"} and _agrees(verb, subject)
    return inverted and before not in NO_QUESTION_AFTER | PERSON | QUESTION_WORD | {"so"}


def _by_order(tokens: list[str]) -> float:
    """Rate a clause by its first words."""
    if len(tokens) > 1 and tokens[0] in PREPOSITION and tokens[1] in QUESTION_WORD:
        since = tokens[:2] == ["since", "when"] and tokens[2:3] != [] and tokens[2] in AUXILIARY
        return 0.8 if since or _inverts_soon(tokens, 2) else 0.0
    if tokens and tokens[0] in QUESTION_WORD:
        return _by_question_word(tokens)
    return 0.85 if len(tokens) > 1 and _inverts(tokens) and not QUOTED.search(" ".join(tokens)) else 0.0


def _by_question_word(tokens: list[str]) -> float:
    word, rest = tokens[0], tokens[1:]
    text = " ".join(tokens)
    if DISMISSED.search(text) or FREE_RELATIVE.search(text):
        return 0.0
    if not rest:
        return 0.6
    if word == "what" and rest[0] in BE and rest[1:2] and rest[1] not in SUBJECT and _goes_on(rest[2:]):
        return 0.0
    if rest[0] in AUXILIARY:
        return 0.9 if word != "which" or _asks_which(rest) else 0.0
    return 0.8 if _asks_after(word, rest) else 0.0


def _goes_on(rest: list[str]) -> bool:
    """Return whether the words so far are only the subject of a statement: what is strange to me is that."""
    return any(verb in ("is", "was") and after not in PERSON for verb, after in pairwise(rest))


def _asks_which(rest: list[str]) -> bool:
    """Return True for `which is cheaper`, `which would you take`; False for relative clauses: which is why."""
    if rest[0] in BE - NEGATED:
        return rest[1:2] == ["the"] or any(word.endswith(("er", "est")) or word in _OF_WHICH for word in rest[1:3])
    return _inverts(rest)


#: which is it, which are ours.
_OF_WHICH = frozenset(("it", "ours", "yours", "mine", "right", "correct", "which"))


def _asks_after(word: str, rest: list[str]) -> bool:
    """Return whether a question word that no auxiliary follows starts a question, not a subordinate clause."""
    after = rest[0].split("'")[0]
    if word == "how":
        return _asks_how(rest)
    if word in ("where", "when", "why"):
        return after in ("to", "exactly", "else") or (word == "why" and after == "not" and len(rest) > 1)
    if word == "which" and (after in AFTER_WHICH or after.endswith(("ly", "ed"))):
        return False
    return after not in SUBJECT | {"a", "an", "and", "or", "but"}


def _asks_how(rest: list[str]) -> bool:
    if rest[0] in ("about", "come"):
        return True
    if rest[0] in ("much", "many", "long", "often", "far", "soon", "big", "old", "to", "fast"):
        return rest[1:2] == [] or rest[1] not in PERSON
    return rest[0] not in SUBJECT and _inverts_soon(rest, 1)


def _inverts_soon(tokens: list[str], start: int) -> bool:
    pairs = zip(tokens[start : start + 5], tokens[start + 1 : start + 6], strict=False)
    return any(verb in AUXILIARY and subject in SUBJECT | {"a", "an"} for verb, subject in pairs)


def _inverts(tokens: list[str]) -> bool:
    """Return whether a clause starts with a verb before its subject, excluding commands and omitted subjects."""
    verb, subject = tokens[0], tokens[1] if len(tokens) > 1 else ""
    if verb not in AUXILIARY or not subject or NO_INVERSION.match(" ".join(tokens[:3])):
        return False
    if not _agrees(verb, subject):
        return False
    if subject in PERSON:
        return True
    if subject in SOMEONE or subject[0] >= "\u4e00":
        return verb != "have"
    if verb in BE:
        return _is_subject_of_be(tokens)
    if verb in DO | HAVE:
        return _has_predicate(tokens)
    return subject in SUBJECT | BODY or ((subject in ("a", "an") or _is_plural(subject)) and len(tokens) > 3)


def _agrees(verb: str, subject: str) -> bool:
    persons = AGREEMENT.get(verb.removesuffix("n't"))
    return persons is None or subject in persons or (verb != "am" and subject not in PERSON)


def _is_subject_of_be(tokens: list[str]) -> bool:
    """Return True for `is lunch included`, False for `is fine by me`."""
    subject = tokens[1]
    if len(tokens) < 3 or subject in SUBJECT | BODY:
        return len(tokens) > 2
    swallowed = subject in COMPLEMENT or subject.endswith(("ed", "ly"))
    return not swallowed and (not subject.endswith("ing") or subject in NOUNS_IN_ING)


def _has_predicate(tokens: list[str]) -> bool:
    """Return True for `did the client sign`, `do invoices need a stamp`; False for `did the slides already`."""
    verb = tokens[0]
    if verb in NEGATED:
        return tokens[1] in SUBJECT and len(tokens) > 2
    end = 3 if tokens[1] in DETERMINER - POINTER else 2
    if len(tokens) <= end or tokens[end] in AFTER_OBJECT | DETERMINER | {"a", "an"}:
        return False
    if verb == "do":
        return tokens[1] in ("these", "those") or (_is_plural(tokens[end - 1]) and tokens[1] not in POINTER)
    if verb in ("have", "had"):
        return tokens[1] in DETERMINER and tokens[-1].endswith(("ed", "en", "ne"))
    return tokens[1] not in ("not", "been", "to", "a", "an", "no", "already")


def _is_plural(word: str) -> bool:
    return len(word) > 3 and word.endswith("s") and not word.endswith("ss")


def _inside(tokens: list[str], start: int) -> tuple[float, int]:
    """Return the confidence of a question that starts inside the clause, and the index of its first word."""
    told = tokens.index("asked") if "asked" in tokens else len(tokens)
    for i in range(start + 1, min(told, len(tokens) - 2)):
        if _is_told(tokens[max(start, i - 2) : i]):
            continue
        if tokens[i] in QUESTION_WORD and _is_fronted(*tokens[i : i + 3]):
            return 0.8, i
        if tokens[i] in AUXILIARY and _inverts_inside(tokens, i):
            return 0.75, i
    return 0.0, 0


def _is_told(before: list[str]) -> bool:
    return before[-1] in TELLING or (before[0] in TELLING and before[-1] in TOLD_TO)


def _is_fronted(word: str, verb: str, subject: str) -> bool:
    if word in ("who", "which"):
        return verb in AUXILIARY and subject in PERSON
    return verb in AUXILIARY and subject in SUBJECT and not (verb in BE and subject == "that")


def _inverts_inside(tokens: list[str], i: int) -> bool:
    before, verb, subject, after = tokens[i - 1 : i + 3]
    if before in PERSON | AUXILIARY | NO_QUESTION_AFTER | QUESTION_WORD or "'" in before:
        return False
    if subject == "there":
        return verb in BE and after in ("a", "an", "any", "some")
    if subject == "it":
        return verb in ASK_OF_IT and after not in AUXILIARY
    if subject == "that":
        return verb in ASK_OF_IT and after in SUITS and before not in SOMEONE
    if not _agrees(verb, subject):
        return False
    return subject in PERSON or (subject in SOMEONE and verb != "have")


def _is_clause(tokens: list[str]) -> bool:
    """Return whether the words are a clause of their own, so that the question after them is separate."""
    own = AUXILIARY | PERSON | {"thanks"}
    return len(tokens) > 2 and any(word in own or "'" in word for word in tokens)
