"""The chunk figure: its row is the package's, its sizes stay possible."""

import pytest
import torch

from qwen2_book.dual_chunk import relative_positions
from qwen2_book.widgets import ChunkDistances


@pytest.mark.parametrize("state", [(29, 40, 14, 4), (47, 48, 2, 24), (5, 4, 48, 0), (30, 31, 9, 9)])
def test_the_row_is_the_packages(state):
    query, length, chunk, local = state
    figure = ChunkDistances(query=query, length=length, chunk=chunk, local=local)
    query, local = min(query, length - 1), min(local, chunk // 2)
    assert figure.sizes() == (query, chunk, local)
    assert torch.equal(figure.row(), relative_positions(length, chunk, local)[query, : query + 1])
    assert f"row of query {query}" in figure.description()
