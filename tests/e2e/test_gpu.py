"""On a machine with a GPU, the service uses it and answers as right."""

import json

import pytest

from serving.tasks.profile import PUBLISHED
from tests.kit.asking import ask_all
from tests.kit.oracle import faults
from tests.kit.stack import Stack

pytestmark = pytest.mark.gpu


async def test_the_published_requests_are_answered_right_on_the_gpu(stack: Stack) -> None:
    assert " on GPU, in " in stack.log.read_text(encoding="utf-8")
    for text in await ask_all(stack.url, PUBLISHED, 4):
        assert faults(json.loads(text)) == []
