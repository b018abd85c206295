"""Patterns of English rhetorical questions: idioms, reproaches, sighs and exclamations.

They match lower-case words separated by single spaces, with contractions of question words expanded. Each pattern
includes the words that make the form rhetorical: `how hard can it be` states, `how hard is it to switch` asks.
"""

from __future__ import annotations

import re


def _either(*forms: str) -> str:
    return f"(?:{'|'.join(forms)})"


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
