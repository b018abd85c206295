"""Decide whether an English sentence needs a web search."""

from __future__ import annotations

import re

from utils.questions.detection import detect


def _any(*parts: str) -> re.Pattern[str]:
    return re.compile("|".join(parts), re.IGNORECASE)


#: Things of the company or the asker, about which the web knows nothing.
_OWN = _any(
    r"\b(?:my|ours?|we|us|internal|intranet|colleague|employee|department|manager|hr|sales|works council)\b",
    r"\b(?:handbook|polic(?:y|ies)|wiki|knowledge base|templates?|glossary|invoice|payslip|expenses?|reimbursement)\b",
    r"\b(?:tickets?|mailbox|order status|project|migration|onboarding|performance|threshold|vendors?|bids?|tenders?)\b",
    r"\b(?:canteen|meeting|office|warehouse|server room|bookings?|room booking|parcel|delivery|hackathon|raffle)\b",
    r"\b(?:benefits|allowance|subsidy|leave|vest(?:s|ing)|options?|restricted)\b|\bcompany (?:news|newsletter|wiki)\b",
)
#: Introductions of a request. None may equal two others joined, or the regular expression backtracks over every split.
_LEAD = (
    r"^(?:(?:please|pls|hi|hey|hello|ok|okay|so|then|now|and|also|just|thanks|kindly|go|quick|quickly|by the way|let's"
    r"|(?:can|could|would|will) you(?: mind)?|i(?:'d| would)? (?:need|want|like) (?:you )?to|try to|you should"
    r"|do a|run a|help me)[\s,]+)*"
)
_SEEK = r"(?:search(?:ing)?|look(?:ing)?(?: \w+){0,2}? up|look(?:ing)?|find(?:ing)?|check(?:ing)?|browse|browsing)"
#: Products of Google; naming one is no request for a search.
_NOT_GOOGLED = (
    r"(?!(?:drive|docs?|sheets?|calendar|meet|workspace|maps|account|team|cloud|analytics|forms?|slides|chrome|play|pay"
    r"|translate|ads|is|are|has|was|were|will|visits?|wants?|says?|said|asked)\b)"
)
_NOT_SEARCHED = (
    r"(?!(?:box|bar|engine|function|feature|results?|index|page|history|term|query|field|button|api|warrants?|committee"
    r"|party|firm|is|was|does|takes|and|or|in)\b)"
)
#: Explicit requests: search it on the web, google it.
_ON_THE_WEB = _any(
    rf"{_LEAD}(?:a )?{_SEEK}\b.*\b(?:the (?:web|internet|net)|google|bing)\b",
    rf"{_LEAD}(?:a )?(?:search|look(?: \w+){{0,2}} up|see)\b.*\b(?:reddit|twitter|wikipedia|youtube)\b",
    rf"{_LEAD}see what the (?:web|internet) says\b",
    rf"{_LEAD}(?:a )?(?:web|internet|net|online|google|bing) search\b",
    rf"{_LEAD}(?:google|googling|bing)\s+{_NOT_GOOGLED}\w",
)
#: Requests to search that do not say where: they mean the web, unless the object is the company's own.
_COMMAND = _any(
    rf"{_LEAD}(?:a )?{_SEEK}\b.*\bonline\b",
    rf"{_LEAD}search(?:ing)?(?: for\b|:)?\s+{_NOT_SEARCHED}\w",
    rf"{_LEAD}look(?:ing)? up\s+\w",
    rf"{_LEAD}look (?:it|this|that|them) up\b",
)

_WEATHER = _any(
    r"(?<!under the )\bweather\b(?!-| (?:app|policy|leave|station|the))",
    r"\bforecast\b(?= (?:for|in) (?:the |this |next )?(?:week|today|tonight|tomorrow|\w{3,6}day))",
    r"\b(?:will|does|is) (?:it|there) (?:be |going to |gonna )*(?:rain|snow|freez|storm)",
    r"\bumbrella\b(?= (?:in|today|tonight|tomorrow))|\bair quality\b|\blike outside\b",
    r"\bneed (?:a|my) (?:coat|jacket|raincoat) in\b|\bstorm (?:coming|heading|near|in)\b|\b(?:sunny|cloudy|rainy)\b",
    r"\btemperature (?:in|outside|today|tomorrow|right now)\b|\bhow (?:cold|hot|warm|humid|windy) (?:is|will) it\b",
    r"\bhow (?:cold|hot|warm) will\b|\btyphoon\b|\bhurricane\b",
)
_NO_WEATHER = _any(
    r"\b(?:inclement|severe|bad|extreme) weather\b.*\b(?:policy|day|leave)\b",
    r"\bweather (?:is|was) (?:so |really )?nice\b",
    r"\bweather permitting\b",
)
_EVENTS = r"(?:wildfires?|earthquake|war|elections?|strike|floods?|hurricane|typhoon|pandemic|summit|protests?|crash)"
_NEWS = _any(
    r"(?<!good )(?<!bad )(?<!no )(?<!great )\bnews\b"
    r"(?! (?:section|page|team|channel|desk|item|banner|feed|app|ticker|widget|agency))",
    r"\bheadlines?\b(?! of (?:the|a) (?:slide|page))|\btop stories\b|\bcurrent events\b|\btrending\b",
    r"\bnewspapers? (?:say|saying|report|write|writing)\b|\blatest on the\b",
    r"\bhappen(?:ed|ing)? (?:in|around) the world\b|\bhappening in (?-i:[A-Z])\w+ (?:right now|now|today)\b",
    rf"\b(?:updates?|latest|happening|going on|situation)\b.*\b{_EVENTS}\b|\b{_EVENTS}\b.*\b(?:update|latest|over)\b",
)
_MONEY = r"(?:dollars?|euros?|yen|yuan|pounds?|rupees?|francs?|won|usd|eur|gbp|cny|jpy|rmb|hkd)"
_MARKET = _any(
    r"\b(?:stock|share|gold|silver|copper|oil|crude|gas|bitcoin|btc|house|housing) prices?\b",
    r"\bprice of (?:brent|wti|gold|oil|bitcoin)\b|\b(?:exchange|inflation|unemployment|mortgage|interest) rates?\b",
    r"\b(?:nasdaq|dow jones|s&p|ftse|hang seng|nikkei|dax|brent|wti|bitcoin|btc)\b|\bmarket cap\b",
    r"\bstock markets?\b(?! (?:function|formula|widget|sheet))",
    r"\bthe markets (?:doing|today|up|down)\b|\bare the markets\b|\bhow(?:'s| is) \w+ trading\b|\bdid \w+ close at\b",
    rf"\b{_MONEY} (?:to|in|against|versus|vs|into) (?:the )?{_MONEY}\b",
    r"\bstock (?:doing|up|down|today|falling|rising|trading)\b",
)
#: Public services whose outages are news; any other service that is down may be the company's own.
_SERVICES = (
    r"(?:chatgpt|openai|claude|github|gitlab\.com|aws|azure|cloudflare|gmail|whatsapp|wechat|netflix|reddit|youtube)"
)
_FRESH = _any(
    r"\bwho (?:just )?(?:won(?!')|is winning|wins|is leading|leads|scored)\b|\bwho (?:got|gets) the (?:oscar|nobel)\b",
    r"\bscores?\b.{0,20}\b(?:match|game)\b|\bthe score(?: of| in| now|\W*$)|\bnobel\b|\boscars?\b",
    r"\b(?:premier league|la liga|bundesliga|serie a|nba|nfl|world cup|champions league|olympics?)\b",
    r"\bdid \w+ (?:win|lose|beat|play)\b.*\b(?:yesterday|last night|tonight|today)\b",
    r"\bwho(?:'s| is) the (?:current |new |present )?(?:president|prime minister|chancellor|king|queen|pope|mayor)\b",
    r"\bwho(?:'s| is) the (?:current |new |present )?(?:governor|secretary.general|ceo)\b",
    r"\b(?:latest|newest|current)(?: stable| lts)? (?:version|release)(?: of)? (?!the\b|a\b|this\b|that\b)\w",
    r"\b(?:latest|newest|current) (?:iphone|ipad|macbook|pixel|galaxy|\w+ (?:price|model|version|release))\b",
    r"\bwhat version of \w+ is (?:the )?(?:current|latest)\b",
    r"\b(?:movies?|films?)\b.*\b(?:theaters?|theatres?|cinemas?|playing|released)\b|\bbox office\b",
    r"\b(?:playing|showing|on) at the (?:cinema|movies|theater)\b|\bnext \w+ launch\b",
    rf"\b{_SERVICES}\b.*\b(?:down|offline|outage|not working)\b",
    r"\bnext (?:train|bus|flight|ferry) (?:from|to)\b|\btraffic (?:on|in|to|jam|like)\b",
    r"\b(?:motorway|highway|[amg]\d{1,3}) (?:congested|closed|blocked|jammed)\b",
    r"\b(?:flight|train) [a-z]{0,2}\s?\d+.*\b(?:delay|on time|cancel|status|land|late|depart|arrive)",
)
_TOPICS = (_WEATHER, _NEWS, _MARKET, _FRESH)
_ORDER = _any(rf"{_LEAD}(?:tell|show|give|get|read|check|find|list)\b")
#: Statements have a subject before the verb: I read the news. A text without one is a topic that stands for a question.
_STATES = _any(
    r"^(?:(?:well|oh|yes|no|and|but|so) )?(?:i|i'm|i've|you|he|she|it|it's|we|they|that|that's|this|there|there's)\b",
    r"^(?:good|nice|lovely|great|bad|what a)\b",
    r"^(?:the|a|an) .*\b(?:is|are|was|were|has|had|have|goes|went|delayed|asked|will)\b",
)
#: Orders to do something, which are no requests to look something up.
_ACTS = _any(
    rf"{_LEAD}(?:update|fix|send|write|add|delete|remove|create|make|put|move|review|approve|close|open|rate|train)\b",
    rf"{_LEAD}(?:translate|rewrite|forward|share|draft|edit|post|publish|order|buy|sell|book|cancel|schedule|ask|call)\b",
    rf"{_LEAD}(?:print|wait|remember|remind|use|set|turn|keep|stop)\b",
)
#: Maximum characters of a topic that stands for a question.
_TOPIC_LENGTH = 60
_COMMAND_WORDS = _any(
    rf"{_LEAD}(?:a )?(?:(?:google|bing|web|internet|online) search"
    r"|search(?:ing)?(?: the (?:web|internet|net)| online| google)?|look(?:ing)? up|look (?:it|this|that) up"
    r"|google|googling|bing)(?: on the (?:web|internet))?(?: for| on| about)?\s*:?\s*"
)
_PLEASE = _any(r"[\s,]*\b(?:please|thanks|thank you|for me|online|on the (?:web|internet))[.!?\s]*$")


def wanted(sentence: str) -> str | None:
    """Return the search query in a sentence, or None for no search."""
    asked = sentence.replace("’", "'")
    if _ON_THE_WEB.search(asked) or (not _OWN.search(asked) and (_COMMAND.search(asked) or _asks_for_the_day(asked))):
        return _COMMAND_WORDS.sub("", _PLEASE.sub("", asked), count=1)
    return None


def _asks_for_the_day(sentence: str) -> bool:
    """Return whether a sentence asks for something that changes daily."""
    topic = next((each for each in _TOPICS if each.search(sentence)), None)
    if topic is None or (topic is _WEATHER and _NO_WEATHER.search(sentence)):
        return False
    if _ORDER.search(sentence) or detect(sentence).is_question:
        return True
    return len(sentence) <= _TOPIC_LENGTH and not _STATES.search(sentence) and not _ACTS.search(sentence)
