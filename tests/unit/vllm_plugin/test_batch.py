"""Batches without CUDA graphs come in few sizes."""

from typing import Any

import pytest
from vllm.config import CUDAGraphMode, VllmConfig
from vllm.forward_context import BatchDescriptor
from vllm.v1.cudagraph_dispatcher import CudagraphDispatcher

from serving.vllm_plugin.patches import batch as batch_cpu
from serving.vllm_plugin.patches.batch import dispatch, padded


@pytest.fixture
def dispatcher() -> CudagraphDispatcher:
    return CudagraphDispatcher(VllmConfig())


def test_a_batch_gets_at_most_an_eighth_longer_and_small_ones_stay_as_they_are() -> None:
    assert [padded(rows) for rows in range(1, 17)] == list(range(1, 17))
    for rows in range(1, 9000):
        assert rows <= padded(rows) <= rows * 9 / 8
        assert padded(padded(rows)) == padded(rows)


def test_there_are_eight_sizes_between_two_powers_of_two() -> None:
    assert sorted({padded(rows) for rows in range(65, 129)}) == [*range(72, 129, 8)]
    assert len({padded(rows) for rows in range(1, 8193)}) < 90


def test_vllm_s_batches_are_padded(dispatcher: CudagraphDispatcher) -> None:
    most = dispatcher.vllm_config.scheduler_config.max_num_batched_tokens
    assert dispatch(dispatcher, 130) == (CUDAGraphMode.NONE, BatchDescriptor(144))
    assert dispatch(dispatcher, most - 1) == (CUDAGraphMode.NONE, BatchDescriptor(most))


def test_no_batch_gets_longer_than_vllm_has_room_for(dispatcher: CudagraphDispatcher) -> None:
    dispatcher.vllm_config.scheduler_config.max_num_batched_tokens = 131
    assert dispatch(dispatcher, 131) == (CUDAGraphMode.NONE, BatchDescriptor(131))


def test_a_batch_for_a_cuda_graph_is_left_as_it_is(
    dispatcher: CudagraphDispatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = (CUDAGraphMode.FULL, BatchDescriptor(133))

    def full(*_: Any, **__: Any) -> tuple[CUDAGraphMode, BatchDescriptor]:
        return graph

    monkeypatch.setattr(batch_cpu, "vllm_dispatch", full)
    assert dispatch(dispatcher, 130) == graph
