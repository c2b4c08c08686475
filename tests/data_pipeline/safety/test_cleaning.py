"""What a site writes around a text goes whole, authors' names with it; a model's reply passes what people's pass."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipeline.records import Fault
from data_pipeline.safety.cleaning import _repeating, checked_reply, clean_many, clean_text
from data_pipeline.safety.page_furniture import find_page_furniture, furniture_rules

TEXT = "我觉得自己像一个旁观者，看着自己的生活。"


def test_the_rules_of_page_furniture_do_what_their_examples_say():
    for text in furniture_rules()["hits"]:
        assert [span.text for span in find_page_furniture(text)] == [text]
    for text in furniture_rules()["misses"]:
        assert find_page_furniture(text) == [] and clean_text(text).text in (text, "作者：[姓名已隐去]"), text


@pytest.mark.parametrize(
    "page",
    [
        "作者：李小草\n链接：https://www.zhihu.com/question/1/answer/4\n来源：知乎\n版权属于原作者，转载请先取得同意。\n\n"
        f"{TEXT}\n\n发布于 2023-05-01 12:30 · IP 属地北京\n赞同 123 添加评论 分享 收藏",
        f"{TEXT}\n编辑于 2021-03-04 08:00\n\u200b赞同 1.2 万\n\u200b\n56 条评论\n分享\n收藏\n喜欢\n收起",
        f"作者：李小草 链接：https://www.jianshu.com/p/ab12 来源：简书 著作权归作者所有。 {TEXT}",
        f"{TEXT}[图片][视频] 发布于 2023-05-01 12:30 · IP 属地北京",
        f"5分钟前 来自 iPhone客户端\n{TEXT}\n转发 12 评论 3 赞 45",
        f"知乎用户 李小草\n128 人赞同了该回答\n{TEXT}\n发布于 昨天 12:30・IP 属地上海",
        f"李小草\n情感话题下的优秀答主\n关注\n{TEXT}\n采纳率 72%",
        f"{TEXT}\n文 | 李小草\n编辑 | 王一\n来源：豆瓣小组",
        f"李小草\n2021-10-02 09:12 · 来自厦门\n{TEXT}\n——选自李小草的简书",
        f"简单心理 | 李小草 · 咨询师\n{TEXT}\n知乎著作权归作者所有，任何形式的转载都请联系作者获得授权并注明出处。",
        f"Author: Mina Zhao\n{TEXT}\n#内耗[话题]# #失眠[话题]#\n说点什么...",
    ],
)
def test_a_copied_page_leaves_its_text_alone(page):
    assert clean_text(page).text == TEXT


@pytest.mark.parametrize(
    "text",
    [
        "来源：邻居每天半夜放音乐，我整夜睡不着。",
        "编辑于 2021-03-04 08:00\n来源：考试的压力和妈妈的唠叨",
        "编辑于 2021-03-04 08:00\n题主：每天都哭，停不下来",
        "来自华为的前同事在背后说我坏话",
        "发自我的肺腑",
        "未经本人同意就公开了照片",
        "失恋\n我睡不着\n来自家庭的压力",
    ],
)
def test_words_of_a_client_that_begin_as_furniture_does_stay(text):
    assert clean_text(text).text == text.removeprefix("编辑于 2021-03-04 08:00\n")


def test_the_name_of_an_author_is_masked_where_it_stands_alone():
    assert clean_text(f"昵称：小草\n{TEXT}").text == f"昵称：[姓名已隐去]\n{TEXT}"
    removed = clean_text(f"作者：李小草\n{TEXT}").removed
    assert [(span.kind, span.rule, span.text) for span in removed] == [("contact", "author", "李••")]


def test_long_lines_of_numbers_take_no_time():
    started = time.process_time()
    for line in ("1" * 190 + "x", "赞 1 " * 45 + "x", "收起评论" * 45 + "x", ("作者：" + "某" * 60 + "\n") * 300):
        find_page_furniture(line)
    assert time.process_time() - started < 1


REPLY = "听起来你这段时间很不容易，夜里睡不着，白天又要撑着上课。"


@pytest.mark.parametrize(
    ("wrong", "rule"),
    [
        ("可以看 https://example.test/a?b=1 。", "link"),
        ("写信到 zhang.san@example.com 。", "email"),
        ("wx: evil-123", "wechat_mixed"),
        ("加V：abc_12345", "wechat_mixed"),
        ("<script>alert(1)</script>", "script"),
        ("&lt;b&gt;你好", "inline"),
        ("关注公众号心灵小屋领取课程！", "follow"),
        ("本店诚招代理，限时优惠，全国包邮，有意者私聊。", "advertisement"),
        ("\n赞同 123 添加评论 分享 收藏", "page_furniture"),
    ],
)
def test_a_models_reply_passes_what_peoples_texts_pass(wrong, rule):
    fault = checked_reply(REPLY + wrong)
    assert isinstance(fault, Fault) and rule in fault.detail and "evil-123" not in fault.detail


def test_a_models_reply_loses_what_is_not_seen_and_nothing_else():
    assert checked_reply(f"{REPLY}\x00\x1b[31m\u202e\u2067\x9b") == REPLY
    for reply in (
        REPLY,
        "可以拨打12356，24小时有人接听...",
        "I hear you — that sounds hard!!",
        "第一，<休息>；3 < 5。",
    ):
        assert checked_reply(reply) == reply


_TEXTS = st.lists(st.text(alphabet="好烦a1。\n\0😭 T_[]关注公众号加微信abc12345", max_size=40), max_size=6)


@given(_TEXTS)
@settings(max_examples=300, deadline=None)
def test_texts_together_are_cleaned_as_each_alone(texts):
    assert clean_many(texts) == [clean_text(text) for text in texts]


@given(_TEXTS)
@settings(max_examples=300, deadline=None)
def test_no_repetition_is_passed_over(texts):
    for text, repeats in zip(texts, _repeating(texts), strict=True):
        units = text.encode("utf-16-le")
        places = range(0, len(units), 2)
        runs = [(2, 8), (4, 12), (6, 18), (8, 24)]  # bytes of what is repeated, and of all
        if any(
            units[at : at + whole] == units[at : at + size] * (whole // size) for at in places for size, whole in runs
        ):
            assert repeats
        elif len(texts) == 1:
            assert not repeats
