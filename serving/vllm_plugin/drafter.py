"""The drafter that vLLM loads. It proposes the forced tokens of our answers, and likely choices.

vLLM 0.32's ``custom_class`` proposer interface (vllm/v1/spec_decode/custom_class_proposer.py)
passes token ids but no request ids, so requests are identified by their tokens. The prompt text
determines task and output; each later step costs a few dictionary lookups per token. For requests
without one of our prompts, the drafter proposes nothing.
"""

import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import vllm
from numpy.typing import NDArray
from transformers import AutoTokenizer, PreTrainedTokenizerBase
from vllm.config import VllmConfig
from vllm.v1.worker import gpu_model_runner
from vllm.v1.worker.gpu_model_runner import GPUModelRunner

from serving.language.output import Output
from serving.tasks.registry import TASKS, parse_prompt
from serving.vllm_plugin import is_tested
from serving.vllm_plugin.follower import Follower, token_bytes
from serving.vllm_plugin.memory import Memory, Progress
from serving.vllm_plugin.metrics import Counts, DrafterMetrics
from serving.vllm_plugin.patches import biases, first
from serving.vllm_plugin.patches.drafting import input_fits_in_drafter

MAX_KNOWN = 8192
"""Maximum cached steps of all requests; an evicted request is parsed from its prompt again."""
MAX_CHOICES = 200_000
"""Maximum remembered choices, one per context (about 40 MB)."""

Found = TypeVar("Found")
log = logging.getLogger(__name__)


class Drafts:
    """Drafts tokens for rows of token ids; independent of vLLM.

    Args:
        tokenizer: the engine's tokenizer.
        limit: maximum tokens per draft.
        remembered: maximum remembered choices.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, limit: int, remembered: int = MAX_CHOICES
    ) -> None:
        self._table, self._limit = token_bytes(tokenizer), limit
        self._memory = Memory(remembered)
        self.counts = {name: Counts() for name in TASKS}
        """Draft statistics by task. The reader may reset them."""
        self._followers: dict[Output, Follower] = {}
        self._counts_of: dict[Follower, Counts] = {}
        for task in TASKS.values():
            for output in task.outputs():
                follower = Follower(output, tokenizer, self._table)
                self._followers[output] = follower
                self._counts_of[follower] = self.counts[task.name]
        self._known: OrderedDict[int, Progress | None] = OrderedDict()

    def draft(self, tokens: NDArray[np.int32], new: int) -> list[int]:
        """Return the tokens to propose after ``tokens``.

        Args:
            tokens: prompt and answer so far, int32 of shape (length,).
            new: number of trailing tokens that the engine has just sampled, at least 1.
        """
        before = tokens[: len(tokens) - new]
        progress = self._known.get(hash(before.tobytes()), _UNREAD)
        if progress is _UNREAD:
            progress = self._read(before.tolist())
        found: list[int] = []
        if progress is not None:
            counts, chosen = self._counts_of[progress.follower], -progress.chosen
            progress = self._memory.follow(progress, tuple(tokens[len(tokens) - new :].tolist()))
            chosen += progress.chosen
            counts.passes += 1
            counts.chosen += chosen
            counts.forced += new - chosen
            counts.accepted += new - 1
            if progress.node is progress.follower.nowhere:
                progress = None
            else:
                found = self._guess(progress)
        self._keep(tokens, progress)
        return found

    def first(self, prompt: NDArray[np.int32]) -> list[int]:
        """Return the tokens to propose after a prompt, int32 of shape (length,)."""
        progress = self._read(prompt.tolist())
        self._keep(prompt, progress)
        if progress is None:
            return []
        return self._guess(progress)

    def _guess(self, progress: Progress) -> list[int]:
        found = self._memory.guess(progress, self._limit)
        self._counts_of[progress.follower].drafted += len(found)
        return found

    def _keep(self, tokens: NDArray[np.int32], progress: Progress | None) -> None:
        self._known[hash(tokens.tobytes())] = progress
        if len(self._known) > MAX_KNOWN:
            self._known.popitem(last=False)

    def _read(self, tokens: list[int]) -> Progress | None:
        """Parse the position of a new request from its tokens; None if the prompt is not ours."""
        text = b"".join(self._table.get(token, b"") for token in tokens)
        asked = parse_prompt(text.decode(errors="replace"))
        if asked is None:
            return None
        follower = self._followers[asked.output]
        self._counts_of[follower].requests += 1
        question = hash((asked.task.name, *asked.facts.values()))
        return Progress(follower, follower.start(asked.answer), question)


_UNREAD: Any = object()


class Drafter:
    """vLLM proposer: validates its arguments and never raises into the engine."""

    def __init__(self, config: VllmConfig) -> None:
        speculative = config.speculative_config
        assert speculative is not None
        self._max_tokens = config.model_config.max_model_len
        self._tokenizer = config.model_config.tokenizer
        self._limit = speculative.num_speculative_tokens
        self._drafts: Drafts | None = None
        self._checked = False
        self._failures = 0
        self.metrics = DrafterMetrics(TASKS)
        if is_tested(vllm.__version__):  # the runner makes its drafter before its batch
            setattr(gpu_model_runner, "build_logitsprocs", biases.build)  # noqa: B010
            setattr(GPUModelRunner, "_input_fits_in_drafter", input_fits_in_drafter)  # noqa: B010

    def load_model(self, *_: Any, **__: Any) -> None:
        """Prepare the drafts. vLLM calls this once, before the first request."""
        tokenizer = AutoTokenizer.from_pretrained(self._tokenizer)
        self._drafts = Drafts(tokenizer, self._limit)
        first.drafters[:] = [self]

    def first(self, prompt: list[int]) -> list[int]:
        """Return a draft of what follows a prompt; empty if there is none."""
        drafts = self._drafts
        assert drafts is not None
        return self._guarded(lambda: drafts.first(np.array(prompt, np.int32))) or []

    def _guarded(self, draft: Callable[[], Found]) -> Found | None:
        """Return what ``draft`` returns, and measure it; None if it fails."""
        start = time.perf_counter()
        try:
            return draft()
        except Exception:  # the engine core must survive any drafter error
            self._failures += 1
            self.metrics.failures.inc()
            if self._failures & (self._failures - 1) == 0:  # 1, 2, 4, 8 ...
                log.exception("the drafter failed, %d times so far", self._failures)
            return None
        finally:
            self.metrics.seconds.inc(time.perf_counter() - start)

    def propose(
        self,
        sampled_token_ids: list[list[int]],
        num_tokens_no_spec: NDArray[np.int32],
        token_ids_cpu: NDArray[np.int32],
        slot_mappings: Any = None,
    ) -> list[list[int]]:
        """Return a draft for each row; a row with an empty draft is decoded normally.

        Args:
            sampled_token_ids: tokens just accepted, by row; empty during a prefill.
            num_tokens_no_spec: total tokens by row; int32 of shape (at least rows,).
            token_ids_cpu: all tokens; int32 of shape (at least rows, longest).
            slot_mappings: unused.
        """
        found = self._guarded(
            lambda: self._propose(sampled_token_ids, num_tokens_no_spec, token_ids_cpu)
        )
        return [[] for _ in sampled_token_ids] if found is None else found

    def _propose(
        self,
        sampled_token_ids: list[list[int]],
        num_tokens_no_spec: NDArray[np.int32],
        token_ids_cpu: NDArray[np.int32],
    ) -> list[list[int]]:
        assert self._drafts is not None
        if not self._checked:
            _check(sampled_token_ids, num_tokens_no_spec, token_ids_cpu)
            self._checked = True
        found: list[list[int]] = []
        undrafted = biases.undrafted()
        for row, sampled in enumerate(sampled_token_ids):
            length = int(num_tokens_no_spec[row])
            room = self._max_tokens - length - 1
            if sampled and room > 0 and row not in undrafted:
                found.append(self._drafts.draft(token_ids_cpu[row, :length], len(sampled))[:room])
            else:
                found.append([])
        self.metrics.publish(self._drafts.counts)
        return found


def _check(sampled: Any, lengths: Any, tokens: Any) -> None:
    """Check vLLM's arguments against the tested types, because the interface is experimental.

    Raises:
        TypeError: a type differs; the message shows the actual types.
    """
    is_list = isinstance(sampled, list) and all(isinstance(row, list) for row in sampled)
    arrays = [(array.ndim, array.dtype) for array in (lengths, tokens)]
    if not is_list or arrays != [(1, np.int32), (2, np.int32)] or len(lengths) < len(sampled):
        raise TypeError(f"vLLM's proposer arguments are {type(sampled)}, {arrays}")
