"""The cache by itself: every key a query may see is there once, and is the right one."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from layouts import DENSE, random_ids, random_model, replace

from qwen2_book.cache import ROLLBACK, KVCache
from qwen2_book.config import FULL, SLIDING

BATCH = 2
CONFIG = replace(DENSE, num_hidden_layers=2, num_key_value_heads=1, head_dim=2)


def mixed(window: int):
    """A full layer and a sliding one."""
    return replace(CONFIG.with_window(window), layer_types=(FULL, SLIDING))


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.data())
def test_any_order_of_chunks_and_truncations(data):
    """Each column's key holds (column, stamp of writing): a stale one would be noticed."""
    window = data.draw(st.sampled_from([1, 2, 5, 33, 70]), "window")
    ring = data.draw(st.booleans(), "ring")
    padding = [data.draw(st.sampled_from([0, 0, 3, 50]), "padding") for _ in range(BATCH)]
    cache = KVCache(mixed(window), BATCH, 300, ring=ring)
    stamps: list[int] = []  # of each column that is kept
    high = 0
    for step in range(data.draw(st.integers(1, 12), "steps")):
        if data.draw(st.booleans(), "truncate"):
            length = max(0, len(stamps) - data.draw(st.integers(0, ROLLBACK + 4), "back"))
            lost = ring and high > max(window + ROLLBACK, length + ROLLBACK)
            if lost:
                with pytest.raises(ValueError, match="tokens back is more than the 32"):
                    cache.truncate(length)
                assert cache.length == len(stamps)
            else:
                cache.truncate(length)
                del stamps[length:]
        new = data.draw(st.sampled_from([1, 1, 2, 32, 33, 34, 60]), "new")
        if len(stamps) + new > cache.capacity:
            continue
        columns = torch.arange(len(stamps), len(stamps) + new)
        positions = torch.stack([(columns - p).clamp(min=-1) for p in padding])
        padded = any(padding)
        cache.append(positions if padded else columns[None], padded)
        stamps += [step] * new
        high = max(high, len(stamps))
        fresh = torch.stack((columns, torch.full_like(columns, step)), -1).float()
        fresh = fresh.expand(BATCH, 1, new, 2)
        for layer, seen in ((0, cache.capacity), (1, window)):
            keys, values = cache.update(layer, fresh, -fresh)
            assert torch.equal(keys, -values)
            found = cache.key_positions(layer, new).expand(BATCH, -1)
            assert found.shape == (BATCH, keys.shape[2])
            for row in range(BATCH):
                queries = positions[row][positions[row] >= 0]
                if not len(queries):
                    continue
                low, high_query = max(0, int(queries[0]) - seen + 1), int(queries[-1])
                where = ((found[row] >= low) & (found[row] <= high_query)).nonzero()[:, 0]
                where = where[found[row, where].argsort()]
                assert found[row, where].tolist() == [*range(low, high_query + 1)]  # each once
                wanted = range(low + padding[row], high_query + padding[row] + 1)
                assert keys[row, 0, where].tolist() == [[c, stamps[c]] for c in wanted]
    held = [max(0, len(stamps) - p) for p in padding]
    assert cache.next_positions.tolist() == (held if stamps else [0] * BATCH)


@pytest.mark.parametrize("window", [1, 8, 100, 500])
def test_a_ring_takes_no_more_memory_than_it_must(window):
    ring, plain = (KVCache(mixed(window), BATCH, 200, ring=ring) for ring in (True, False))
    slots = min(200, window + ROLLBACK)
    assert [key.shape[2] for key in ring.keys] == [200, slots]
    assert ring.nbytes == (200 + slots) * BATCH * 2 * 2 * 4
    assert plain.nbytes == 400 * BATCH * 2 * 2 * 4
    half = KVCache(mixed(window), BATCH, 200, dtype=torch.bfloat16)
    assert half.nbytes * 2 == ring.nbytes
    sinks = KVCache(replace(mixed(window), sink_tokens=2), BATCH, 200)
    pinned = 2 if slots < 200 else 0  # the sinks stay, in front of the ring
    assert [key.shape[2] for key in sinks.keys] == [200, slots + pinned]


def test_nothing_is_allocated_while_it_fills():
    cache = KVCache(mixed(4), 1, 100)
    before = [tensor.data_ptr() for tensor in cache.keys + cache.values]
    model = random_model(replace(mixed(4), hidden_size=8))
    with torch.no_grad():
        for part in random_ids(1, 100, model.config).split([40] + [1] * 60, 1):
            model(part, cache)
    assert [tensor.data_ptr() for tensor in cache.keys + cache.values] == before
    assert cache.length == 100


def test_on_meta_it_takes_no_memory():
    cache = KVCache(DENSE, 64, 1 << 24, device="meta")
    assert all(key.is_meta for key in cache.keys)


@pytest.mark.parametrize("window", [None, 5])
def test_overflow_is_refused_and_changes_nothing(window):
    model = random_model(DENSE.with_window(window))
    ids, cache = random_ids(1, 12, DENSE), KVCache(model.config, 1, 10)
    with torch.no_grad():
        whole = model(ids[:, :10])
        first = model(ids[:, :7], cache)
        with pytest.raises(ValueError, match=r"room for 10 tokens and holds 7; 5 more do not fit"):
            model(ids[:, 7:12], cache)
        assert cache.length == 7
        rest = model(ids[:, 7:10], cache)
    torch.testing.assert_close(torch.cat((first, rest), 1), whole, atol=1e-4, rtol=0)


def test_exactly_32_tokens_can_be_taken_back_from_a_ring():
    cache = KVCache(DENSE.with_window(4), 1, 100)
    cache.append(torch.arange(80)[None])
    with pytest.raises(ValueError, match="33 tokens back is more than the 32"):
        cache.truncate(47)
    cache.truncate(60)
    cache.append(torch.arange(60, 70)[None])
    with pytest.raises(ValueError, match="33 tokens back"):  # 80 columns have been written
        cache.truncate(47)
    cache.truncate(48)
    for bad in (-1, 49):
        with pytest.raises(ValueError, match=f"found {bad}, expected 0 to 48"):
            cache.truncate(bad)
    KVCache(DENSE, 1, 100).truncate(0)


def test_a_reset_forgets_padding():
    model, ids = random_model(DENSE), random_ids(2, 6, DENSE)
    cache = KVCache(DENSE, 2, 10)
    with torch.no_grad():
        mask = torch.tensor([[False] * 3 + [True] * 3, [True] * 6])
        model(ids, cache, mask)
        assert cache.next_positions.tolist() == [3, 6] and cache.padded
        cache.reset()
        assert cache.next_positions.tolist() == [0, 0] and not cache.padded
        assert torch.equal(model(ids, cache), model(ids))


@torch.no_grad()
def test_padded_rows_can_be_taken_back_too():
    """Wrong tokens appended and forgotten again, several times over, leave no trace."""
    model = random_model(DENSE.with_window(5))
    ids, cache = random_ids(2, 90, DENSE), KVCache(model.config, 2, 200)
    mask = torch.ones(2, 60, dtype=torch.bool)
    mask[0, :41] = False
    model(ids[:, :60], cache, mask)
    for start in (60, 66, 73):
        model(torch.ones_like(ids[:, :25]), cache)
        cache.truncate(start)
        logits = model(ids[:, start : start + 7], cache)
        cache.truncate(start + 6 if start == 60 else start + 7)
        for row, padding in ((0, 41), (1, 0)):
            alone = model(ids[row : row + 1, padding : start + 7])
            torch.testing.assert_close(logits[row], alone[0, -7:], atol=1e-4, rtol=0)


@pytest.mark.parametrize(("batch", "capacity"), [(0, 5), (1, 0), (-1, 5), (1, -3)])
def test_sizes_below_one_are_refused(batch, capacity):
    with pytest.raises(ValueError, match="expected 1 or more"):
        KVCache(DENSE, batch, capacity)


def test_a_cache_with_shorter_rings_is_refused():
    """A ring made for another window has forgotten what this model may see."""
    model, ids = random_model(DENSE), random_ids(1, 3, DENSE)
    short = KVCache(DENSE.with_window(4), 1, 100)
    other = (model, model.with_window(5), model.with_window(4, sink_tokens=1))
    for wrong in (*other, model.with_window(4, full_layers=2)):
        with pytest.raises(ValueError, match="its rings are shorter than this model's windows"):
            wrong(ids, short)
    layers = KVCache(replace(DENSE, num_hidden_layers=3), 1, 100)
    with pytest.raises(ValueError, match="cache: its rings"):
        model(ids, layers)
    for right in (model.with_window(4), model.with_window(2)):
        right(ids, KVCache(DENSE.with_window(4), 1, 100))
        right(ids, KVCache(DENSE, 1, 100))  # all positions kept: good for any window
