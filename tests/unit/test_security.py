"""The threat model's tests exist."""

import ast
import re

from loadtests.service import ROOT


def test_the_threat_model_names_tests_that_there_are() -> None:
    text = (ROOT / "SECURITY.md").read_text()
    found, file = 0, ""
    for name in re.findall(r"`(tests/[\w/.]+(?:::\w+)?|::\w+)`", text):
        path, _, test = name.partition("::")
        file = path or file
        tree = ast.parse((ROOT / file).read_text())
        tests = {n.name for n in tree.body if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)}
        assert not test or test in tests, name
        found += 1
    assert found > 30
