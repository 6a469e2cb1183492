"""Tries constraints where they can hurt nobody: ``python -m serving.vllm_plugin.trial TOKENIZER``.

llguidance bounds most of what a grammar may cost, but not all: an integer that must be a multiple
of 9999991 takes minutes and gigabytes to compile. Each constraint is therefore compiled and
followed for a few tokens in a process of its own, with limits on its time and memory.

Reads a JSON object per line, {"id": number, "grammar": text}, and writes one per line when a trial
ends, {"id": number, "error": text}; the error is empty if the constraint may be used. This process
imports little and has one thread, so that forking it takes two milliseconds.
"""

import json
import os
import resource
import signal
import sys
import time
from ctypes import addressof, create_string_buffer
from pathlib import Path

from llguidance import LLMatcher, LLParserLimits, LLTokenizer

LIMITS = LLParserLimits(
    initial_lexer_fuel=200_000,
    step_lexer_fuel=50_000,
    step_max_items=10_000,
    max_lexer_states=20_000,
    max_grammar_size=50_000,
)
"""A quarter of llguidance's own limits or less: a few milliseconds a step. The engine must use the
same, or a trial would prove nothing."""
TRIAL_SECONDS = 0.3
"""Processor time of one trial."""
STEP_SECONDS = 0.03
"""Processor time of one step: the engine's other requests wait for it."""
TRIAL_BYTES = 2**28
"""Memory of one trial beyond this process's own."""
STEPS = 32
"""Tokens a constraint is followed for, unless it ends before."""
SPREAD = 7919
"""A prime: the token taken at each step, of those allowed, is neither the first nor the same."""
REASON = "error: "
"""Begins that line, in errors of regular expressions."""
LONGEST_ERROR = 300
"""Characters; a line must be written at once (PIPE_BUF)."""
STATM = Path("/proc/self/statm")
ENDED: dict[int, str] = {
    signal.SIGPROF: f"it takes more than {TRIAL_SECONDS:g} s to compile",
    signal.SIGABRT: f"it takes more than {TRIAL_BYTES >> 20} MiB to compile",
}


def problem(tokenizer: LLTokenizer, grammar: str) -> str:
    """Return why the engine should not use ``grammar``; empty if it may.

    Args:
        tokenizer: the engine's.
        grammar: as llguidance serializes it.
    """
    matcher = LLMatcher(tokenizer, grammar, log_level=0, limits=LIMITS)
    mask = create_string_buffer((tokenizer.vocab_size + 31) // 32 * 4)
    for step in range(STEPS):
        start = time.process_time()
        matcher.unsafe_compute_mask_ptr(addressof(mask), len(mask))
        if time.process_time() - start > STEP_SECONDS:
            return f"a token takes more than {STEP_SECONDS * 1000:g} ms to constrain"
        if matcher.is_error() or matcher.is_stopped():
            break
        allowed = [
            8 * place + bit
            for place, byte in enumerate(mask.raw)
            if byte
            for bit in range(8)
            if byte >> bit & 1
        ]
        matcher.consume_token(allowed[step * SPREAD % len(allowed)])
    return _reason(matcher.get_error())


def _reason(error: str) -> str:
    """Return the line of llguidance's error that says why; others show where."""
    first, *rest = error.split("\n")
    told = [line.removeprefix(REASON) for line in rest if line.startswith(REASON)]
    return f"{first.rstrip(':')}: {told[0]}" if told else first


def _try(tokenizer: LLTokenizer, grammar: str) -> str:
    """Run ``problem`` in a process with limits."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())  # panics say so themselves
        own = int(STATM.read_text(encoding="ascii").split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (own + TRIAL_BYTES, own + TRIAL_BYTES))
        signal.setitimer(signal.ITIMER_PROF, TRIAL_SECONDS)
        os.write(write, problem(tokenizer, grammar).encode()[:LONGEST_ERROR] or b"\0")
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        said = pipe.read()
    number = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if said:
        return said.strip(b"\0").decode(errors="ignore")
    return ENDED.get(-number, "it cannot be compiled")


def main() -> None:
    tokenizer = LLTokenizer(sys.argv[1])
    os.nice(5)  # those who are known must not wait for those who are not
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the processes below
    for line in sys.stdin.buffer:
        if os.fork():
            continue
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        asked = json.loads(line)
        answer = {"id": asked["id"], "error": _try(tokenizer, asked["grammar"])}
        os.write(sys.stdout.fileno(), json.dumps(answer).encode() + b"\n")
        os._exit(0)


if __name__ == "__main__":
    main()
