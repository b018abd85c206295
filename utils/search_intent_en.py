"""Whether an English sentence wants the web."""

from __future__ import annotations

import re

from utils.questions import detect


def _any(*parts: str) -> re.Pattern[str]:
    return re.compile("|".join(parts), re.IGNORECASE)


#: What is one's own: the company's, the asker's. The web knows nothing of it.
_OWN = _any(
    r"\b(?:my|our|ours|we|us|internal|intranet|colleague|employee|handbook|polic(?:y|ies)|wiki|knowledge base|department|tickets?|mailbox"
    r"|reimbursement|payslip|canteen|meeting|onboarding|manager|invoice|benefits|vesting|vests?|templates?|project|migration|hr|order status"
    r"|options?|restricted|allowance|subsidy|leave|parcel|delivery|company (?:news|newsletter|wiki))\b"
)
#: What only leads in to a request.
_LEAD = (
    r"^(?:(?:please|pls|hi|hey|hello|ok|okay|so|then|now|and|also|just|thanks|kindly|go|quick(?:ly)?|by the way"
    r"|(?:can|could|would|will) you(?: mind| please)?|i(?:'d| would)? (?:need|want|like) (?:you )?to|let's|try to|you should"
    r"|do a(?: quick)?|run a(?: quick)?|help me)[\s,]+)*"
)
_PLACE = r"(?:web|internet|net|online|google|bing)"
_SEEK = r"(?:search(?:ing)?|look(?:ing)?(?: \w+){0,2}? up|look(?:ing)?|find(?:ing)?|check(?:ing)?|browse|browsing)"
#: Search it on the web; google it.
_ON_THE_WEB = _any(
    rf"{_LEAD}(?:a )?{_SEEK}\b.*\b(?:the |on )?{_PLACE}\b",
    rf"{_LEAD}(?:a )?(?:quick )?{_PLACE} search\b",
    rf"{_LEAD}(?:google|googling|bing)\s+(?!(?:drive|docs?|sheets?|calendar|meet|workspace|maps|account|team|cloud|analytics|forms?|slides"
    r"|chrome|play|pay|translate|ads|is|are|has|was|were|will|visits?|wants?|says?|said|asked)\b)\w",
)
#: Search, with nothing said of where: of the web, unless it is for one's own.
_COMMAND = _any(
    rf"{_LEAD}search(?:ing)?(?: for\b|:)?\s+(?!(?:box|bar|engine|function|feature|results?|index|page|history|term|query|field|button|api"
    r"|warrants?|committee|party|firm|is|was|does|takes|and|or|in)\b)\w",
    rf"{_LEAD}look(?:ing)? up\s+\w",
    rf"{_LEAD}look (?:it|this|that|them) up\b",
)

_WEATHER = _any(
    r"(?<!under the )\bweather\b(?! (?:policy|leave|station|the))|\bforecast\b(?= (?:for|in) (?:the |this |next )?(?:week|today|tomorrow))",
    r"\b(?:will|does|is) it (?:be |going to |gonna )?(?:rain|snow|freez|storm)|\bumbrella\b|\bair quality\b",
    r"\btemperature (?:in|outside|today|tomorrow|right now)\b|\bhow (?:cold|hot|warm|humid|windy) (?:is|will) it\b",
    r"\bhow (?:cold|hot|warm) will\b|\btyphoon\b|\bhurricane\b",
)
_NO_WEATHER = _any(r"\b(?:inclement|severe|bad|extreme) weather\b.*\b(?:policy|day|leave)\b", r"\bweather (?:is|was) (?:so |really )?nice\b")
_NEWS = _any(
    r"(?<!good )(?<!bad )(?<!no )(?<!great )\bnews\b(?! (?:section|page|team|channel|desk|item))",
    r"\bheadlines?\b(?! of (?:the|a) (?:slide|page))|\btop stories\b|\bcurrent events\b|\bnewspapers? (?:say|saying|report|write|writing)",
    r"\bwhat(?:'s| is| has)? happen(?:ed|ing)? (?:in|around) the world\b|\b(?:latest|update) on the\b",
)
_MARKET = _any(
    r"\b(?:stock|share|gold|silver|copper|oil|crude|gas|bitcoin|btc|house|housing)(?:'s)? prices?\b|\bprice of (?:brent|wti|gold|oil|bitcoin)",
    r"\b(?:exchange|inflation|unemployment|mortgage|interest) rates?\b|\b(?:nasdaq|dow jones|s&p|ftse|hang seng|nikkei|dax|brent|wti)\b",
    r"\bstock markets?\b|\bthe markets (?:doing|today|up|down)\b|\bare the markets\b|\bmarket cap\b|\bbitcoin\b|\bbtc\b",
    r"\bstock (?:doing|up|down|today|falling|rising|trading)\b|\b(?:usd|eur|gbp|cny|jpy|rmb|hkd)\b.{0,12}\b(?:usd|eur|gbp|cny|jpy|rmb|hkd)\b",
)
_FRESH = _any(
    r"\bwho (?:just )?(?:won|is winning|wins|is leading|leads|scored)\b|\bscores?\b.{0,20}\b(?:match|game)\b|\bthe score\b",
    r"\b(?:premier league|la liga|bundesliga|serie a|nba|nfl|world cup|champions league|olympics?)\b|\bnobel\b|\boscars?\b",
    r"\bwho(?:'s| is) the (?:current |new |present )?(?:president|prime minister|chancellor|king|queen|pope|mayor|governor|secretary.general|ceo)\b",
    r"\b(?:latest|newest|current)(?: stable| lts)? (?:version|release)(?: of)? (?!the\b|a\b|this\b|that\b)\w",
    r"\b(?:latest|newest|current) (?:iphone|ipad|macbook|pixel|galaxy|\w+ (?:price|model|version|release))\b",
    r"\b(?:movies?|films?)\b.*\b(?:theaters?|theatres?|cinemas?|playing|out|released)\b|\bbox office\b",
    r"\bis (?!the\b|our\b|my\b|this\b|that\b|it\b|there\b)[\w.-]+ (?:down|offline|out)\b|\bnext \w+ launch\b",
    r"\b(?:flight|train) [a-z]{0,2}\s?\d+.*\b(?:delay|on time|cancel|status|land|late|depart|arrive)|\btraffic (?:on|in|to|jam|like)\b",
)
_TOPICS = (_WEATHER, _NEWS, _MARKET, _FRESH)
_ORDER = _any(rf"{_LEAD}(?:tell|show|give|get|read|check|find|list)\b")
#: Who states has a subject before the verb: I read the news; what has none is a topic as a whole question.
_STATES = _any(
    r"^(?:well |oh |yes |no |and |but |so )?(?:i|i'm|i've|you|he|she|it|it's|we|they|that|that's|this|there|there's|good|nice|lovely|great|bad|what a)\b",
    r"^(?:the|a|an) .*\b(?:is|are|was|were|has|had|have|goes|went|delayed|asked|will)\b",
)
#: Characters of a topic that stands for a question.
_TOPIC_LENGTH = 60
_COMMAND_WORDS = _any(
    rf"{_LEAD}(?:a )?(?:quick )?(?:(?:google|bing|web|internet|online) search|search(?:ing)?(?: the (?:web|internet|net)| online| google)?"
    rf"|look(?:ing)? up|look (?:it|this|that) up|google|googling|bing)(?: on the (?:web|internet))?(?: for| on| about)?\s*:?\s*"
)
_PLEASE = re.compile(r"[\s,]*\b(?:please|thanks|thank you|for me|online|on the (?:web|internet))[.!\s]*$", re.IGNORECASE)


def wanted(sentence: str) -> str | None:
    """Return what to search for, None where the sentence wants no search."""
    asked = sentence.replace("’", "'")
    if _ON_THE_WEB.search(asked) or (not _OWN.search(asked) and (_COMMAND.search(asked) or _asks_for_the_day(asked))):
        return _COMMAND_WORDS.sub("", _PLEASE.sub("", asked), count=1)
    return None


def _asks_for_the_day(sentence: str) -> bool:
    """Tell whether a sentence asks for what changes by the day."""
    topic = next((each for each in _TOPICS if each.search(sentence)), None)
    if topic is None or (topic is _WEATHER and _NO_WEATHER.search(sentence)):
        return False
    if _ORDER.search(sentence) or detect(sentence).is_question:
        return True
    return len(sentence) <= _TOPIC_LENGTH and not _STATES.search(sentence)
