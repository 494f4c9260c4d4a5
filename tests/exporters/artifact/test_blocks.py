"""A data file made of one block: each repetition holds the same tensors, rotated a little more."""

from __future__ import annotations

from exporters.artifact.blocks import BlockTensor, expand


def test_rows_and_columns_move_on(tmp_path):
    """Worked by hand: bytes 0 to 5 are three rows of two bytes, 6 to 9 two rows of two columns; 10 and 11 stay."""
    (tmp_path / "block").write_bytes(bytes(range(12)))
    rows, columns = BlockTensor(0, 6, 6, 2), BlockTensor(6, 4, 2, 1)
    expand(tmp_path / "block", (rows, columns), 4, tmp_path / "data")
    assert list((tmp_path / "data").read_bytes()) == [
        0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11,
        4, 5, 0, 1, 2, 3, 7, 6, 9, 8, 10, 11,
        2, 3, 4, 5, 0, 1, 6, 7, 8, 9, 10, 11,
        0, 1, 2, 3, 4, 5, 7, 6, 9, 8, 10, 11,
    ]  # fmt: skip


def test_nothing_in_a_block(tmp_path):
    (tmp_path / "block").touch()
    expand(tmp_path / "block", (), 3, tmp_path / "data")
    assert (tmp_path / "data").read_bytes() == b""
