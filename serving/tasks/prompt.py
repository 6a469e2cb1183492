"""The prompt format: the only place that turns facts into prompt text.

Training uses the same function, so its prompts cannot differ from serving. A change here changes
the fingerprint, so adapters trained before it no longer start (serving.engine.preflight).
"""

import re
from collections.abc import Mapping

ANSWER = "\n## 답변\n"
"""Separator between question and answer."""

QUESTION = "## 질문\n-"
Fact = str | int
Facts = Mapping[str, Fact | Mapping[str, Fact]]
_FACT = re.compile(r"^- \*\*(.+?)\*\*: (.+)$", re.MULTILINE)


def question(title: str, facts: Facts) -> str:
    """Build a prompt that ends right before the first byte of the answer.

    Args:
        title: first line of the question; identifies the task.
        facts: model input, one line per fact; a mapping becomes a nested list.
    """
    lines = [QUESTION + title]
    for name, fact in facts.items():
        if isinstance(fact, Mapping):
            lines.append(f"- **{name}**:")
            lines += [f"  - {part}: {value}" for part, value in fact.items()]
        else:
            lines.append(f"- **{name}**: {fact}")
    return "\n".join(lines) + "\n" + ANSWER


def read_question(text: str) -> tuple[str, dict[str, str], str] | None:
    """Parse title, single-line facts and partial answer from a text that begins with a question.
    Return None if it does not."""
    asked, found, answer = text.partition(ANSWER)
    if not found or not asked.startswith(QUESTION):
        return None
    title, _, facts = asked.removeprefix(QUESTION).partition("\n")
    return title, dict(_FACT.findall(facts)), answer
