"""What a tuning reads at every step, token by token, and what it holds out."""

from __future__ import annotations

import torch

from toolchain.model.sentences import Sentences
from toolchain.tuning.batch_sampler import PieceSampler, SentenceSampler, StreamSampler, held_out_tokens


def test_streams_carry_on_from_window_to_window_and_begin_again() -> None:
    """Ten tokens in two streams of five, windows of three: 3, 2, and once more from the start."""
    reading = StreamSampler(torch.arange(10).view(2, 5), 3)
    seen = [reading.at(step) for step in range(3)]
    assert [tokens.tolist() for tokens, _ in seen] == [
        [[0, 1, 2], [5, 6, 7]], [[3, 4], [8, 9]], [[0, 1, 2], [5, 6, 7]],
    ]  # fmt: skip
    assert [fresh for _, fresh in seen] == [True, False, True]


def test_every_pass_over_pieces_reads_each_once_in_another_order() -> None:
    reading = PieceSampler(torch.arange(24).view(8, 3), 2)
    passes = [[reading.at(turn * 4 + i) for i in range(4)] for turn in range(2)]
    for some in passes:
        assert all(fresh and tokens.shape == (2, 3) for tokens, fresh in some)
        assert sorted(row[0] for tokens, _ in some for row in tokens.tolist()) == [0, 3, 6, 9, 12, 15, 18, 21]
    first, second = ([tokens.tolist() for tokens, _ in some] for some in passes)
    assert first != second
    assert reading.at(5)[0].tolist() == second[1]  # of the step alone, so that a run can go on anywhere


def test_fewer_pieces_than_a_step_asks_for() -> None:
    tokens, _ = PieceSampler(torch.arange(6).view(2, 3), 5).at(7)
    assert sorted(tokens[:, 0].tolist()) == [0, 3]


def test_sentences_of_one_length_side_by_side() -> None:
    """Lengths 2, 1, 2, 1, 2, two at most: every sentence once in a pass."""
    batches = SentenceSampler(Sentences(torch.arange(8), (2, 3, 5, 6, 8)), 2)
    seen = [batches.at(step) for step in range(3)]
    assert all(fresh for _, fresh in seen)
    assert sorted(tokens.tolist() for tokens, _ in seen) == [[[0, 1], [3, 4]], [[2], [5]], [[6, 7]]]


def test_what_is_held_out() -> None:
    assert held_out_tokens(16_000, 0) == 1000
    assert held_out_tokens(16_000, 256) == 768  # three whole pieces of the sixteenth
    assert held_out_tokens(10**6, 0) == 8192
    assert held_out_tokens(2000, 0) == 0  # 125 tokens say nothing
    assert held_out_tokens(3000, 256) == 0
