"""Decide whether a Chinese sentence, which may contain English, needs a web search."""

from __future__ import annotations

import re

from utils.questions.detection import detect


def _any(*parts: str) -> re.Pattern[str]:
    return re.compile("|".join(parts), re.IGNORECASE)


#: Things of the company or the asker, about which the web knows nothing.
_OWN = _any(
    "我们|咱|本(?:公司|部门|单位|司|组|项目)|(?<!家)公司(?:内|里|的|最|近|有|制度|流程|规定)|(?<![\u4e00-\u9fff])公司|工会|内部|内网|知识库|文档库|共享盘",
    "我的|我上|自己的|部门|领导|同事|客户|员工|制度|流程(?!图)|手册|工资|年假|考勤|报销|打卡|补卡|请假|调休|加班|值班|排班|会议|纪要",
    "合同|订单|工单|项目|审批|申请|食堂|班车|工位|饭卡|离职|入职|补贴|期权|行权|股权|激励|归属期|权限|代码|仓库|文档|需求",
    "住宿费|差旅|迟到|旷工|裁员|能报|报吗|奖金|预算|绩效|模板|告警|维护|坏了|系统里|在系统|审批|接口|公众号|排版|怎么发|怎么填|填什么",
    "入账|记账|损益|做账",
    r"\bPRD\b|\bbug\b|\bAPI\b|\bOA\b|\bnotes\b",
)
#: Words for the web and for searching it.
_WEB = r"(?:上网|网上|联网|互联网|全网|网络上|百度|谷歌|必应|搜狗|google|bing|\bweb\b|\binternet\b|\bonline\b)"
_SEEK = r"(?:搜索|搜|查|找|检索|看看|search|look\s?up)"
#: Introductions of a request. None may equal two others joined, or the regular expression backtracks over every split.
_LEAD = (
    r"(?:[，,、\s]|你好|您好|请问|请|麻烦|劳驾|辛苦|帮忙|帮|给|替|我|你|您|们|能不能|可不可以|可以|能|再|先|就|也|去|来|快|到|在"
    r"|想|要|需要|对了|那|现在|老板|一起|赶紧|直接|试着|用|从)*"
)
_SOME = r"(?:[一几]?[下个些篇条份款]|一?[搜查找]|索)*"

#: Explicit requests: search it on the web, google it.
_ON_THE_WEB = _any(
    rf"{_WEB}.{{0,8}}?{_SEEK}(?!过|了|不到|到了)",
    r"网上有没有.*(?:查|搜|找)(?:一?下)?[\s。.？?]*$",
    rf"{_SEEK}(?!过|了|不到|到了).{{0,6}}?(?:网上|互联网|全网|网络上|\bweb\b|\binternet\b|\bonline\b)",
    r"(?:百度|谷歌|必应|google|bing)\s*(?:一下|下|看看)",
    r"(?:search|look\s?up)\s*一?下",
)
#: Requests to search that do not say where: they mean the web, unless the object is the company's own.
_COMMAND = re.compile(
    rf"^{_LEAD}(?:搜索|检索|搜(?![索身集刮救罗查捕寻证狗])|search(?=\s*[一几]))"
    r"(?!框|栏|条|引擎|功能|结果|式|指数|热度|算法|记录|服务|组件|按钮|页|接口|词|量|排名|广告|优化|权限|历史|模块|半径|不|过|了|到|时|的)",
    re.IGNORECASE,
)
#: Reports of an earlier search, which are no requests for one.
_TOLD = _any(r"(?:搜|查|找|百度|谷歌)(?:索)?(?:过|了半天|了很久|不到)", "没(?:有)?(?:搜|查|找)到", "搜了.{0,6}没")
#: Requests to work on a given text, which need no search.
_WORKS_ON_TEXT = _any(
    "翻译|译成|译为|(?:总结|概括|归纳|润色|改写|校对|复述).{0,4}(?:上面|上文|上述|以上|以下|下面|这[句段篇些])"
)
_READ = re.compile("(?:看|听|读|刷)(?:了|过)")

#: Public services whose outages are news; any other service that is down may be the company's own.
_SERVICES = r"(?:chatgpt|openai|claude|deepseek|github|aws|azure|cloudflare|gmail|whatsapp|微信|支付宝|淘宝|钉钉|微博)"
_WEATHER = _any(
    r"天气(?!热|冷|凉|变|转|太|炎|不好|恶|原因|的?时候|补|假|组件|真|很|挺|越)",
    r"(?:气温|空气质量|雾霾|紫外线|湿度|降水|PM\s?2\.5|\bweather\b(?!\s*组件))",
    r"(?:下|有)[大小暴阵雷]*[雨雪](?!伞|衣|后|天|的)|带伞|打雷|多少度|台风|寒潮|降温",
    r"[冷热]不[冷热]|[冷热]吗|刮.{0,3}风",
)
_INDOORS = _any("会议室|办公室|机房|房间|空调|室内|车间|水温|温箱|设备|仓|开水|上班|居家|高温假|注意")
_NEWS = _any(
    r"新闻(?!稿|部|发布|联播|中心|栏|组|页|系|专业|社|法|学|办|官|组件|模块)",
    r"头条(?!号)|要闻|热搜(?!榜?功能|榜的|监控|系统)|时事|大事(?!化)|热点(?:事件|话题)|大新闻|\bnews\b(?!\s*(?:页|栏|组|模块|section|page))",
    r"最新的?\s*(?:消息|报道|动态|进展|动向|战况|局势)|(?:最近|近期).{0,6}(?:新动态|新消息|新动向|新进展)",
    r"(?:地震|台风|战争|大选|选举|疫情|罢工).{0,10}(?:最新|进展|严重|怎么样|到哪|在哪|结果)",
)
_MARKET = _any(
    r"股价|股市|大盘(?!点)|收盘价|[港美]股|\bA\s?股|上证|深成指|深证|恒生|恒指|纳指|纳斯达克|道指|道琼斯|标普|日经|汇率|[金银油铜房]价|比特币|以太坊|市值",
    r"(?:房贷|贷款|存款|国债|基准).{0,3}利率|LPR|CPI|GDP|通胀率?|失业率|行情(?!不好|不佳|分析|报告)|期货",
    r"(?:人民币|美元|欧元|英镑|日元|韩元|港币|港元|卢布).{0,2}[对兑换].{0,4}[币元镑布]|(?:黄金|白银|原油).{0,4}(?:多少|价|涨|跌)",
    r"股票.{0,10}(?:多少|价|涨|跌|走势|怎么样|如何)|\b(?:stock|share)\s*price\b|exchange\s*rate",
)
_FRESH = _any(
    r"(?:现任|现在的|目前的|当今|新任|新当选的?).{0,8}(?:总统|首相|总理|国王|主席|总书记|秘书长|教皇|CEO|市长|部长)",
    r"(?:总统|首相|国王|教皇)(?:现在)?是谁|谁是.{0,8}(?:总统|首相|国王|教皇)",
    r"(?:[A-Za-z]{2}.{0,10}(?:最新|latest)|(?:最新|latest)的?\s*[A-Za-z]{2}).{0,10}(?:版|款|型号|模型|价格|version|release)|最新款",
    r"最新版?.{0,4}(?:更新|多)了|发布会.{0,8}(?:出|发布|推出)了",
    r"比分|积分榜|奖牌榜|射手榜|排名第一|球赛|赛程|夺冠|决赛|[队军赛].{0,4}[赢输]了?[吗没么]|谁赢|谁夺|(?:上一站|本届|上届|今年).{0,6}冠军|踢得怎么样",
    r"(?:昨晚|昨天|昨夜|今晚|刚才).{1,10}[赢输]了[吗没么]",
    r"诺贝尔|奥斯卡|奥运|世界杯|欧洲杯|世界首富|首富是",
    r"上映|热映|票房|好看的(?:电影|电视剧|剧|综艺|片)|演唱会|春晚|黄历|农历",
    r"(?:航班|高铁|火车|列车|动车|[GDCKTZ]\d{1,4}\s*次?).{0,12}(?:还有|晚点|准点|延误|余票|取消|时刻|几点|到了吗)",
    r"路况|堵车|堵不堵|(?:高速|国道|环).{0,3}堵|限行",
    r"(?:现在|目前|当前|如今).{0,8}最[强大贵高火快]",
    rf"{_SERVICES}.{{0,6}}(?:挂了|崩了|宕机|故障)",
)
_TOPICS = (_WEATHER, _NEWS, _MARKET, _FRESH)
#: Requests to tell, show or look up something.
_ORDER = re.compile(rf"^{_LEAD}(?:查|搜|看看|看一?下|说说|讲讲|播报|告诉|介绍|列|找)")
#: A topic that stands for a question: 北京天气, 欧元汇率.
_NOMINAL = re.compile(
    r"(?:天气|天气预报|气温|空气质量|新闻|头条|要闻|热搜|汇率|股价|[金银油]价|收盘价|最新(?:稳定)?版本?号?|行情|走势|比分|积分榜|票房|路况"
    r"|最新(?:消息|报道|动态|进展)|news|weather|stock price)(?:情况)?[\s。.？?]*$",
    re.IGNORECASE,
)
_COMMAND_WORDS = re.compile(
    rf"^{_LEAD}(?:{_WEB}\s*)?{_LEAD}(?:(?:搜索|搜|查找|查|检索|找|search|look\s?up)\s*{_SOME}|{_SOME})\s*(?:{_WEB}上?的?)?"
    r"(?:关于)?[\s:：，,]*",
    re.IGNORECASE,
)
_THANKS = re.compile(r"[\s，,。！!]*(?:谢谢|多谢|感谢|拜托)(?:了|你|您)?[。！!~\s]*$")


def wanted(sentence: str) -> str | None:
    """Return the search query in a sentence, or None for no search."""
    asked = _THANKS.sub("", sentence)
    if _TOLD.search(asked):
        return None
    on_the_web = _ON_THE_WEB.search(asked)
    if on_the_web:
        # Clauses before the request may mention the company's own things: 我们的制度我看过，你上网查查….
        begin = max(asked.rfind(comma, 0, on_the_web.start()) for comma in "，,") + 1
        return _COMMAND_WORDS.sub("", asked[begin:], count=1) or asked
    if not _OWN.search(asked) and (_COMMAND.match(asked) or _asks_for_the_day(asked)):
        return _COMMAND_WORDS.sub("", asked, count=1)
    return None


def _asks_for_the_day(sentence: str) -> bool:
    """Return whether a sentence asks for something that changes daily."""
    topic = next((each for each in _TOPICS if each.search(sentence)), None)
    if topic is None or (topic is _WEATHER and _INDOORS.search(sentence)) or _WORKS_ON_TEXT.search(sentence):
        return False
    told = bool(_READ.search(sentence))
    return bool((_NOMINAL.search(sentence) and not told) or _ORDER.match(sentence)) or detect(sentence).is_question
