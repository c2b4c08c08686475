"""The response to a question, as training teaches it and as examples in a prompt show it."""

from data_pipeline.records import Question
from reward.thought import join_thought


def answer_text(question: Question) -> str:
    """Returns the rationale inside <think></think>, then the answer; the answer alone where there is no rationale,
    since an empty thought teaches nothing.
    """
    return join_thought(question.rationale, f"答案：{question.answer}")
