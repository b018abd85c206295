"""Detect questions in Chinese clauses by particles, A-not-A forms, alternatives, requests and question words.

Chinese question words have many other uses (谁都, 没什么, 几个人, 问他什么时候来). Those are removed from the clause
first; a question word that remains marks a question. Each pattern of rhetorical questions (反问) includes the words
that make the form rhetorical: 吵有什么用 states, 这个按钮有什么用 asks.

Every repetition is bounded, so that matching takes time linear in any text.
"""

from __future__ import annotations

import re


def _either(*forms: str) -> str:
    return f"(?:{'|'.join(forms)})"


_WORD = r"(?:什么|啥|谁|哪|几|多少|多久|多长|多大|多远|多高|多快|怎|咋|为何|干嘛|干吗|如何|何时|何地|何处|何种)"
_WHETHER = r"(?:是否|能否|可否|[是能会要有可行]不[是能会要可行]|有没有)"


def _a_not_a(name: str) -> str:
    """能不能, 有没有, 同意不同意; not 没事没事 and 动不动. `name` is the groups', which each pattern has once."""
    once = rf"(?P<{name}>[^\W\d_a-zA-Z不没时动一了的吗〇])[不没](?P={name})"
    twice = rf"(?P<{name}_2>[\u4e00-\u9fff]{{2}})[不没](?P={name}_2)"
    return rf"(?:(?<![不没]){_either(once, twice)})"


#: Characters within one thought; the excluded ones start another thought.
_ON = r"(?:(?!但是|不过|所以|那么|然后|那(?![个边里些种天次])).)"

QUESTION_WORD = re.compile(_WORD)
OR_NOT = re.compile(r"是否|能否|可否")
#: Also 做得完做不完 and 付还是不付.
CHOICE = re.compile(_a_not_a("same") + r"|得(?P<result>.).不(?P=result)|(?P<either>.)还是不(?P=either)")

#: Question words that ask nothing: indefinite uses (any, some), approximate numbers, and parts of other words.
VAGUE = re.compile(
    _either(
        r"几乎|茶几|几何|几率|几[十百千万句]|[十好后近头]几|(?<!提)前几|[这那]几(?![点号月])|最近几",
        r"(?:(?:[我咱你他她]们?)几[个位人家]|(?:其他|另外|剩下|其余)几)|^(?:[我咱他她]们?|大家)[^你]{0,8}?了几",
        r"(?<!要)再.{0,2}几(?![点号])|[跟和与给]几[位个名]|(?<![要得])(?:过|等|说|讲|聊|歇|休息|补充|提|强调|举|隔|没)几",
        r"我(?:们)?(?:这边|这里|还|也)?有几|最近有几|[有剩]几.{1,6}?(?:没|在|都|已|需|不|还)",
        r"[这那]么几|[就才]几|才.{1,3}?几|了几[年天个次].{2,}|几[年天周个][前后月假]",
        r"(?<![要得])[走找配做画放]几|先.{0,3}?几|多.几(?!点)",
        r"^几[位个名家].{2,12}?(?:都|已|在|也|正|反映|反馈|觉得|了$)|几[位个名家].{1,12}?(?:都|一起|分别|统一)",
        r"哪怕|哪里哪里|哪[里儿]的话|哪门子|哪吒|(?<![在去到从往上放是来给问回跑住买找停])哪(?=\s|$)",
        r"多么|再怎么|不咋|怎么怎么|怎么[说讲]呢|不知怎|[不指]定(?:怎|什么|谁|哪|得)|成什么[样了]|(?:^|\s)那什么(?=\s|$)",
        r"(?:谁|怎么|咋|怎样)[^你我他大咱]?[都也]|怎么.我[都也]",
        r"(?<!为)什么.{0,3}?我[都也]|(?:(?<!为)什么|啥)[^你我他大咱]{0,4}?[都也]",
        r"(?:哪(?!些)[^你我他大咱]{0,5}?|(?:几|多少).{0,2}?)[都也]",
        r"(?<!有)没(?:有)?(?:(?!那|这).){0,3}?(?:什么|啥)|(?<!有)没(?:有)?(?:谁|哪|多少|怎|多[久长大远])",
        r"不(?:怎么样?|太怎|[是用要缺算]什么|需要什么|会有什么)",
        r"多少(?:还是|还|有点|有些|总|会有|.点)|哪天.{0,6}?再|(?<![你您])哪天有(?:空|时间).{0,4}?(?:一起|我们|咱|聊|吃)|改天.{0,5}?(?:什么|哪)|[点个]什么(?=..)",
        r"(?:总觉得|总感觉|老觉得|可能是?|说不定|没准).{0,6}?(?:哪[里儿]|谁)(?=..)|(?:总觉得|总感觉|老觉得).{0,6}?什么",
        rf"^什么[^，]{{1,4}}啊.{{1,4}}啊|(?:有|^)(?:什么|啥).{{1,6}}?的我们?(?:会|再|来)|(?:好像|似乎|仿佛).{{0,6}}?{_WORD}",
        r"(?<![做干管卖用是])什么的(?=$|[都了])",
        r"[这那][就也正便]是.{0,4}?(?:为什么|为何|为啥|怎么)",
        r"(?:重点|关键|难点|核心|问题|目的)(?:是|不?在于).{0,4}?(?:怎么(?!样|办)|如何|多少)",
        r"什么时候.{1,4}?就.{0,2}什么时候|(?P<twice>谁|哪[里儿个]?|怎[么样]|几|多少|啥)(?!跟|和|与).{1,8}?(?P=twice)",
        r"(?<!为)什么(?!时候).{1,5}?什么(?!时候)",
        rf"(?:无论|不管|不论|别管|甭管|任凭|随便).{{0,14}}?(?:为什么|什么|怎么样?|如何|{_WORD}|.不.|还是|是否)",
        rf"(?:如果|要是|假如|万一|等|若).{{0,8}}?{_WORD}.{{1,20}}?(?:就|我会|再|可以|会后|的话|尽管|随时|通知)",
        r"有(?:什么|啥|谁|哪).{0,8}?(?:随时|尽管|直接|会后|欢迎|及时|就[说问提找讲]|请[联找告及])",
    )
)

#: Indirect questions; the group `asker` shows whether the question is put to the listener.
TOLD = re.compile(
    rf"""(?P<asker>[你您]们?|[给跟]我们?|谁|(?<!没)有人|哪位|想要?|需要|请|麻烦|帮我|帮忙)?
    (?:[还都也能再先]|可以|一下|在|正|主要){{0,2}}
    (?P<verb> 不知道|不晓得|不清楚|不确定|[猜说想看记分搞弄查]不[出清到准懂起明]
      | 没(?:有)?(?:定|说|决定|想[好过]|提)|忘[了记]?|取决于|在于
      | (?:[他她它]们?|客户|领导|老板|对方|[总理])[也都还就]?想(?:知道|了解|问|看看?)
      | (?:[去再让他她]|回头|会后|[跟找给].{{1,2}})问一?下 | 问(?!题|卷|一?下|问|到哪)
      | 知道|明白|清楚|了解|懂得?(?!什么)|理解|记得 | [说讲聊](?:[了过清明起]|到(?!第|哪))|讲讲|说说|聊聊
      | [在想]想|想一?想|想清
      | 解释|介绍|演示|展示|讲解|提到|提示|提醒|指导|告诉 | 讨论|商量|研究|决定|发现|规定|考虑|关心|犹豫|纠结
      | 判断|确认|检查|测试|核实|验证|评估|分析|调查|排查|猜|投票|担心|怀疑|试试|试一?下
      | 琢磨|在意|关注|强调|争论|交代|透露|公布|汇报|盘算|[搞弄理]清楚?|[搞弄]明白|看得出来?|(?<!没)有[讲写提]
      | (?<![帮给替让])我们?(?:都|也|当然|大概)?(?:知道|明白|懂|理解|清楚|记得)(?!了)
      | 明确|记住|注意|留意
      | (?<![帮给替])我们?[先来再去就也想要得]{{0,3}}(?:[查看问想找算理]一?下|查查|看看|问问|想想|找找)
      | figure\ out|find\ out|no\ idea|don't\ know|not\ sure
      | 教(?![程育授室学练材]) | 看(?!起来|来|上去|好|着办|法|什么) | 写[了着清明] )
    (?P<gap>{_ON}{{0,12}}?)
    (?P<word>为什么|为何|为啥|怎么样?|如何|{_a_not_a("same")}|是否|能否|{_WORD})
    (?:(?:负责|[做干管去用拿选出])(?:什么|哪|几|多少))? (?P<rest>.{{0,2}})""",
    re.VERBOSE,
)
#: Reported questions with 没有 or 吗: 客户问发货了没有.
TOLD_WHETHER = re.compile(r"(?<=[他她们户板导来又总老])问(?!题|一?下).{1,14}?(?:了没有?|[^什]吗)")
#: Statements that a question is open or does not matter: 什么时候出发由领导决定.
OPEN = re.compile(
    rf"""(?:{_WORD}|{_WHETHER}|{_a_not_a("same")}){_ON}{{0,14}}?
        (?: 管不着|不重要|无所谓|没关系|都一样|才知道|就知道|自己(?:决定|定|选)|比.{{1,8}}?(?:重要|值得)|不关.{{1,3}}?事
          | (?:等|会后|回头|以后|之后|下次).{{0,8}}?再(?:说|商量|定|讨论|议|看|聊)
          | 我都会|都先|都差不多|随你|随他|随便|将(?:决定|影响)
          | [都得要先][写说讲弄搞想问](?:清楚|明白) )
    | 谁.{{2,8}}?我(?:会|来|单独|再|都)
    | (?<=把)(?:为)?{_WORD}.{{1,12}}?(?:清楚|明白)
    | (?:谁|(?<!为)什么|几|哪|多少|如何|{_WHETHER}|{_a_not_a("other")}){_ON}{{0,14}}?
        (?: [就要得全还只]看(?![过到了着不得完])
          | 看(?:业绩|情况|表现|预算|心情|天气|领导|客户|老板|结果|进度|具体|报价)
          | 取决于 | 由.{{1,6}}?(?:定|负责|说了算) | 都行|都可以
          | 不好说|说不[准好]|很难说 | 还不(?:一定|确定|清楚|知道)
          | 还没(?:有)?(?:定|确定|决定|想好|通知) | 待定|另说 )""",
    re.VERBOSE,
)

#: Introductory words, and final particles.
LEAD = re.compile(
    r"^(?:呃|额|嗯|啊|哦|哎|诶|喂|那个|就是说?|然后|所以|但是|不过|其实|还有|另外|对了|那么?|说到(?:这个|这里|这儿)|我?想起来了|顺便|好的|好吧|你好|您好|\s){0,8}"
)
TAIL = "啊呀呐哦噢哈嗯呃诶哇啦 "

#: Phrases with which the speaker asks, regardless of the rest of the clause.
ASKS = re.compile(
    _either(
        r"请问|请教|咨询一?下|打听一?下|问(?:大家|你们?|您)?个问题|冒昧|劳驾|贵姓|贵庚|^我(?:就|再|来)?问[你您]",
        r"(?:不太|没太|不大)(?:明白|懂|理解)[^他她]{0,10}?(?:为什么|怎么)",
        r"(?<![他她])问[你您]们?(?:个|件|一[个件])事|(?<![来又他她])问一[句声]|[跟向][你您]们?(?:确认|核实)",
        r"(?<![他她它正])(?<!客户)(?<!领导)(?<!老板)(?<!对方)(?<!他们)"
        r"想(?:要|再|先)?(?:知道|了解|问(?!题)|咨询|打听|确认一?下|查一?下)",
        r"不知道(?:[你您]们?|大家)?(?:能不能|可不可以|方不方便|有没有|可以)",
        r"(?<![去再他她让])(?<!回头)(?<!会后)(?<!帮你)(?<!帮他)(?<![跟找给].)问一?下",
    )
)

_TELL = _either(
    "介绍|解释|总结|说明|讲解|概括|归纳|描述|对比|比较|梳理|列举?|列出|汇总|回顾|统计",
    "查询?|搜|算|讲|说|推荐|翻译|确认",
)
#: Requests for information; requests for actions are no questions.
REQUEST = re.compile(
    _either(
        r"^(?:请|麻烦)?(?:[你您]们?)?(?:帮忙|帮我)?(?:再|先|简单|详细|大概|来|快|直接)?"
        rf"(?:告诉我|(?:[给跟]我们?)?(?:{_TELL}一?下(?!我)|{_TELL}(?:{_TELL}|出)(?!我)|列出|推荐))",
        r"(?:请|帮忙|帮我|[给跟替]我们?|麻烦[你您]?)(?:再|先|简单|详细|大概)?"
        rf"(?:{_TELL}(?:一?下|[讲说查算搜出])|告诉我|推荐|介绍|解释|说明|总结)",
        r"请.{1,5}?(?:介绍|解释|说明|讲|说|汇报)一下",
        r"^(?:大家|各位|各组|每个?人|你们).{0,4}?(?:说|讲|汇报|介绍|更新)一下",
    )
)

#: 能听见不, 收到没有, 传了没; 一个也没有 states.
ENDS_OR_NOT = re.compile(
    r"(?:[^都也还就从并又不][^都也还就从并又要可我岂绝不]不|[了过到好完见来出掉通齐].{0,8}(?<![都也还就从并又])没有|.[^还都也从][^还都也从]?没)$"
)
TAG = re.compile(r".{2}(?:[对是]吧|没错吧|行不|好不|[对是]不[对是])$")
#: Words with which 呢 marks an ongoing action.
GOING_ON = re.compile(r"[正在还着才可早挺真很蛮]")

#: Words before the alternatives of a choice with 还是.
EITHER = re.compile(r"(?<![但可就不还总])是|能|可以|用")
#: 还是 before these means "after all".
AFTER_ALL = re.compile(
    r"要|得|会|很|有|没|不|按|先|算|能|可以|应该|需要|挺|比较|一样|老|这样|觉得|建议|希望|想|蛮|太|把|让|等|那么|非常|麻烦"
)
#: Characters too common to make two alternatives similar.
COMMON = frozenset("的了我们你他在是不有这那个一")

_WHAT = r"(?:什么|啥)"
_HIM = r"(?:[你您我他她它咱]们?|大家|别人|人家)"
#: Verbs of things that can be done or obtained, after which 哪里 and 怎么 are real questions.
_ERRAND = (
    r"(?:免费|临时|先)?(?:复印|停|打印|充|买|吃|喝|换|借|领|办|租|寄|取|洗|找|查|看|下载|报|抽|坐|休息|兑|缴|交|联系|进|登"
    r"|拿|申请|收到|注册|加入|参加|用|改|连|设|做到|修|吸烟|抽烟|上网|开)"
)

_BY_ADVERB = _either(
    r"难道|难不成|岂|何[必苦尝况曾至来]|何乐|何足|谈何|与.{1,2}何干|成何体统|何用$|早干[嘛吗什啥]",
    r"凭(?:什么|啥)(?!证|票|卡|条件|材料|文件|手续|单|码|号)|又不是.{1,12}?(?:有什么|何|凭|干[嘛吗]|还|怕|急|谁|哪)",
    r"还.{1,10}不成$|总不(?:能|会|至于).{1,16}吧$|还不(?:都|就)?(?:是|得)(?:因为|为了|怪|靠|被|自己|[我你他她])",
    r"(?:好端端|好好)的.{0,3}?(?:什么|怎么|谁|改|换|干)|(?:什么|怎么|谁|哪|啥).{0,12}?(?<!干)嘛$",
)
_HOW = _either(
    r"怎么可能|怎么会(?:有?[这那不]|呢|$)|怎能|怎么就(?:成|变成|是)了?[我你他她]|怎么能(?:就|一走)|怎么(?:好意思|忍心|舍得|敢)|怎么行$|怎么可以[这那不随]",
    rf"怎么能(?:[这那不说怪算]|随便|光|只|让{_HIM}|让(?:客户|领导))|[他她这那]们?怎么能",
    rf"我们?怎么能(?!.{{0,6}}?{_ERRAND})|我们?怎么会(?:骗|害|不|忘|怪|丢下|知道|拿|说)",
    r"我(?:怎么|哪|哪里|咋|上哪)(?:知道|晓得)|我怎么觉得|能怎么(?:着|样|办(?!理))|还能(?:怎|咋|说什么|有什么)",
    r"[你他她]们?[让叫]我们?(?:怎么|咋|如何|拿什么).{0,6}?(?:交代|做人|想|活|信|面对|放心|开口|收场|选)",
    r"那又(?:怎|如何)|不然呢|又能(?:怎|如何|拿)|干(?:嘛|吗|什么)(?:那么|这么|非)",
    r"(?:那么|这么)(?:多|大|早|快|急|认真|凶|较真|拼|老远|复杂|麻烦).{0,6}?干(?:嘛|吗|什么|啥)(?!用)",
)
_WHERE = _either(
    r"哪(?:还|敢|会|是|用|想|懂|顾|比|配|知道|晓得|舍得|轮得到|行)(?!.{0,12}吗)|哪里(?:还|敢|用得着|比得|轮得到)",
    rf"哪能(?!{_ERRAND})(?!.{{0,12}}吗)|(?:世上|世界上|天底下|天下).{{0,2}}哪|[谁哪]知道呢?$",
    rf"哪有(?:什么|那么|这|那[样种]|时间|空(?![位的余闲])|功夫|心思|力气|钱|不|人|{_HIM}|.{{1,8}}?的(?:好事|道理|规矩|理))",
    r"哪有.{1,12}?[还能会要就].{1,10}?的$|哪来的?(?:这么|那么|时间|钱|工夫|功夫|心情|底气|勇气|脸|资格|精力|胆|自信|闲)",
    r"(?:[我他她]|别人)哪(?:儿|里)?有|我哪(?!里|儿|个|天|些|种|年|次|部|位|一|条|块|台|份|笔)",
    r"哪[个家].{0,4}?(?:不想|没有?几|没有?点)|哪一?[次回].{0,4}?(?:不是|少得了|离得开)|能(?:好|差|坏|贵|难|强|惨|糟|便宜)到哪",
    r"上哪[里儿]?(?:给[你您他她]|知道|变|说理)|去哪[里儿]?给[你您他她].{0,2}?[变找弄]",
)
_WHO = _either(
    r"谁.{0,3}?得[了住起]$|谁[受忍顶扛吃]得[了住消]|这谁|谁说(?:不|没|只|一定|非)|(?<![依信])[怪怨赖]谁(?!.{1,6}吗)|谁怕谁|招谁惹谁|咱.{0,2}谁跟谁",
    rf"谁[让叫]{_HIM}(?!.{{1,8}}的(?:..)?$)|谁(?:又|还)?能想|谁(?:料|曾想|承想|想到|能料|会料)",
    r"谁(?:还)?(?:不(?:[想爱盼愿怕烦累急懂馋是]|知道|喜欢|希望|着急|羡慕|清楚|明白|心疼|讨厌)|[信敢]|在乎|稀罕)|(?<![归由该])谁管",
    r"(?<!有)谁知道?(?:会(?!议)|竟|突然|[你我他她它咱这那].{0,6}?(?:会|竟|突然|居然|怎么想|是不是))",
    r"谁(?:还)?没(?:有)?(?:.{1,4}?过(?![这那])|个|点)|谁还(?:不是|敢|想|愿意|在乎)|谁(?:还)?会(?:想到|看|信|相信)",
    r"谁(?:会(?!用|写|开|修|说|唱|弹|画|做|讲|操|使|来|去|参|改|编|翻|打|装|弄|配|安|负|接|主|带|审|批|代|收|给|是|成|跟|处"
    r"|议|剪|拍|算)|能(?:不|受|忍|看上|料))",
    r"谁(?:会|能|愿意).{0,4}?(?:天天|整天|成天|大周末|大老远|大半夜|一辈子|白白|背锅|吃亏|白干|挨骂|得罪|.{0,4}脸色)",
    r"能有几个|(?:现在|如今|世上|真正).{0,6}?有几个|有几个人?(?:真|看得|做得)|鬼(?:才)?(?:知道|晓得)|(?:(?<![\u4e00-\u9fff])|只有)天(?:知道|晓得)",
)
_USELESS = _either(
    rf"(?:还|又|光|再|天天|只|[说讲急吵骂哭怨悔歉改催问怪]).{{0,8}}?有{_WHAT}用(?![途处法户])",
    rf"^(?:又|还)?有{_WHAT}(?:用|办法)呢?$|有{_WHAT}不(?!同|一样|懂|明白|清楚|足|良|对|舒服|满)",
    rf"有{_WHAT}好[怕说谈笑担奇抱争气急]|有{_WHAT}好(?![吃喝玩用听逛读追学去的办方处主推建介]).{{1,6}}?的(?![^\W呢啊嘛吗还又就])",
    rf"有{_WHAT}(?:可[^以能]|了不起|大不了|稀[奇罕]|必要|资格|两样)|(?<![功智性职])能有{_WHAT}(?:办法|用|问题|坏|出息|前途|好)",
    rf"还有{_WHAT}(?:脸|好说|意思|必要|理由|资格)|我.{{0,2}}?有{_WHAT}办法|能有多[难差坏糟惨]",
    r"这有什么(?!区别|问题|影响|好处|要求|规定|关系|办法|风险|说法|作用|优势|用|.{0,6}吗)",
    rf"这[么]?点(?:小)?.{{0,4}}[也还]?值得.{{0,6}}吗|[跟和与](?:没|抢|废话|白[干做说]).{{0,4}}?有{_WHAT}(?:区别|不同|差别)|[跟和与](?:我|你)(?:又|能)?有{_WHAT}关系$",
    rf"关.{{1,3}}?{_WHAT}事|(?<![张个构程截地草视线附原流片蓝意])图个?{_WHAT}呢?$",
)
_SCOLDS = _either(
    # V什么V, and nouns that are not objects of the verb.
    r"(?P<act>[^\W\d_a-zA-Z为])什么(?P=act)(?=$|[^\w]|[啊又还都赶快按也别我你大不再先就])|(?<!在)[怕急慌愁哭吵闹凶装嚷]什么(?!.{0,8}吗|呢)",
    r"(?:客气|激动|得意|神气|矫情|磨蹭)什么|(?:较|操|生|着|费|逞|添|捣|抽|摆|凑|扯|发)什么(?:劲|心|气|急|能|乱|风|谱|热闹|[火疯呆愁])",
    r"瞎.什么|开什么玩笑|搞什么[鬼名飞啊呀]|什么破|什么玩意|像什么[样话]|[这那]叫什么(?:事|话|人|玩|态度|道理)",
    r"[这那]都(?:是)?什么(?:人|事|玩|乱|破|鬼|态度|逻辑)|[这那]算什么|算什么$|算得了?什么|算老几|算哪[根门]",
    rf"什么叫(?:没|不(?![可良动定记])|{_HIM}|跟|差不多|随便|应该|可能|大概)|[你他她]们?又?(?:懂|知道)个?(?:什么|啥)$|我说什么来着|[说讲](?:过|了)?多少[遍次回]",
    r"我们?(?:什么时候|啥时候|几时|何时)(?:说|讲|答应|同意|承诺|骗|怪|嫌|拒绝|得罪)",
    r"(?:什么时候|啥时候|几时)(?:轮到[你他她]|.{0,2}?(?:准时|靠谱|认真|按时|主动|消停|满意|管|关心)过)",
    r"都(?:什么年代|什么时候|什么时代|几点)了|[你他她]们?烦不烦|有完没完|讲不讲(?:道理|理)|丢不丢人|要不要脸",
    r"要不要人?活|让不让人|多大[点的个]?事|我问谁$|我骗你|葫芦里|吃饱了撑|能不能有点(?:时间|自知|礼貌|责任|常识|担当)|你说.{0,2}?(?:气|烦|巧|怪|冤|惨|可笑|好笑|奇怪)不\w{1,3}",
)
#: Before 吗, 嘛 or 呢.
_PARTICLE = _either(
    r"还用[说问讲想教猜得]|用得着.{0,6}吗|管得着|犯得[着上]|至于(?:[吗嘛这那跟为气吵急动生闹哭骂]|发(?!票|布|货|放)).{0,10}$",
    r"像话吗|好意思吗|说得过去吗|容易吗|能怪.{1,3}?吗|还不够(?!用).{1,6}吗|还(?:少|嫌.{1,6})吗|见过(?:这么|这样|如此).{1,8}吗|还能(?:有[错假]|骗|害).{0,6}吗",
    r"[这那](?:不|不就|可不|还不|不都|不正)是.{0,16}?[吗嘛]|这不(?:就)?.{1,8}?[了着][吗嘛]|(?:^|[你您他她]们?|大家)就不能.{1,10}吗|不能好好.{1,4}吗|[你他她]们?就这[么样].{1,6}的吗|还能.{0,2}不.{0,3}吗|^[这那你他她].{0,2}像[个样].{1,8}吗|不(?:都|也)(?!是).{1,14}?吗",
    r"不就.{1,12}?[吗嘛]|不就(?:是|行|得|好).{0,12}?了|可不是?[吗嘛]|你们?不是说.{1,12}吗",
    r"不是(?:早|都|已经?|跟你|告诉|[说讲约]好|[说讲]过|答应).{0,12}?[吗嘛]",
    rf"有(?:{_HIM}(?:这么|这样|那么).{{1,6}}?|(?:这么|这样)[当做办说干管写欺对骗坑].{{1,4}}?)的[吗嘛]?$",
    r"能不.{0,2}?(?:累|急|生气|胖|难受|烦|火|紧张|担心|疼|饿|困|后悔|失望|激动|出事|出问题|怕|乱|崩|感冒|迟到|挨).{0,4}吗",
    r"[你他她]们?当(?:我们?|咱们?|大家|别人).{0,2}是|以为.{1,12}?呢|你们?以为(?:[我他她]|.{1,16}吗)|以为(?:你|自己)是谁",
    r"我们?(?:看起来|看上去)?(?:像|是)(?:那种|这种).{0,10}吗|像.{1,10}?的(?:人|样子)吗|也(?:能|配)?叫(?!什么|我|你).{1,8}$|这[能配]叫(?![外车醒]).{1,8}吗",
)
RHETORICAL = re.compile(_either(_BY_ADVERB, _HOW, _WHERE, _WHO, _USELESS, _SCOLDS, _PARTICLE))

#: Placeholder for removed text.
_GONE = "〇"
#: First characters of verbs that always introduce an indirect question: 忘了, 问, 搞清楚, 弄明白, 我看看,
#: 明确, 注意, 留意, find out.
_NEVER_ASKED_OF = "忘问搞弄我明注留fn"
_NO = frozenset("不没否")
_HOW_AND_WHY = ("为什么", "为何", "为啥", "怎么", "如何")


def is_rhetorical(clause: str) -> bool:
    """Return whether a clause is a rhetorical question, which states something."""
    return bool(RHETORICAL.search(clause.rstrip(TAIL))) and not ASKS.search(clause)


def confidence(clause: str, *, last: bool = True) -> float:
    """Return the confidence, 0 to 1, that a clause is a question; `last`: it is the last clause of its sentence."""
    body = LEAD.sub("", clause).rstrip(TAIL)
    if ASKS.search(body):
        return 0.9
    if RHETORICAL.search(body):
        return 0.2
    if body.endswith("来着") and QUESTION_WORD.search(body):
        return 0.85
    bare = _without_asides(body)
    return max(_by_end(bare, last=last), _by_words(bare), _by_request(body), _by_alternative(body))


def _without_asides(body: str) -> str:
    """Remove question words that ask nothing and indirect questions."""
    for aside in (OPEN, VAGUE, TOLD_WHETHER):
        body = aside.sub(_GONE, body)
    return TOLD.sub(_without_told, body)


def _without_told(told: re.Match[str]) -> str:
    """Remove an indirect question, except one that is put to the listener or asks what was said (他说了什么)."""
    if _is_for_listener(told) or _is_about_forgotten(told):
        return told[0]
    near = told.string[max(0, told.start() - 2) : told.start()] + told["verb"] + told["gap"] + told["word"]
    unfinished = told["verb"][0] in _NEVER_ASKED_OF or told["word"] in _HOW_AND_WHY or not _NO.isdisjoint(near)
    return _GONE + told["rest"] if unfinished or told["rest"] else told[0]


def _is_for_listener(told: re.Match[str]) -> bool:
    """Return True for 你知道…, 想知道… and 给我讲讲…, False for 有人问… and 给我讲了…."""
    asker, verb = told["asker"], told["verb"]
    if told["gap"][:1] == "得":
        return True
    if not asker or (verb == "问" and asker in ("谁", "有人")) or told["gap"].startswith("一下看"):
        return False
    return asker[0] not in "给跟" or verb[-1] not in "了过"


def _is_about_forgotten(told: re.Match[str]) -> bool:
    """Return True for 忘了密码怎么重置, False for 忘了怎么重置."""
    about = told["gap"].strip("了") or told["rest"][:1] == "办"
    return told["verb"][0] == "忘" and told["word"].startswith("怎么") and bool(about)


def _by_end(bare: str, *, last: bool) -> float:
    if bare.endswith("吗"):
        return 0.9
    if bare.endswith("呢"):
        return _by_ne(bare[:-1]) if last else 0.4
    if TAG.search(bare):
        return 0.75
    return 0.75 if ENDS_OR_NOT.search(bare) and _GONE not in bare[-4:] else 0.0


def _by_ne(bare: str) -> float:
    """Rate a clause that ended with 呢: 小李呢 and 定了没呢 ask, 他还在开会呢 states what is going on."""
    if ENDS_OR_NOT.search(bare):
        return 0.8
    if GOING_ON.search(bare) or _GONE in bare:
        return 0.1
    return 0.75 if len(bare) <= 8 else 0.4


def _by_words(bare: str) -> float:
    if CHOICE.search(bare):
        return 0.85
    return 0.8 if QUESTION_WORD.search(bare) or OR_NOT.search(bare) else 0.0


def _by_request(body: str) -> float:
    return 0.75 if REQUEST.search(body) else 0.0


def _by_alternative(body: str) -> float:
    """Rate 还是 by its neighbours: between two similar things it is a choice, otherwise it means "after all"."""
    left, _, right = body.partition("还是")
    if not left or not right or right.endswith("吧"):
        return 0.0
    alike = bool(set(left[-6:]) & set(right[:6]) - COMMON)
    either = bool(EITHER.search(left[-14:]))
    after_all = bool(AFTER_ALL.match(right))
    if (alike and either) or ((alike or either) and not after_all):
        return 0.8
    return (
        0.65
        if max(len(left), len(right)) <= 4 and not after_all and left[-1] not in "我们他你可果后在那这天家也都底"
        else 0.0
    )
