"""Keys and values of the tokens seen so far: all of them, or a ring of the last W."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from qwen2_book.config import Qwen2Config

ROLLBACK = 32  # spare slots of a ring, so that the last tokens can be taken back


class KVCache:
    """Room for `capacity` tokens a row. Full layers keep every token; sliding layers keep a ring.

    Column c of a ring of R slots stands in slot c mod R, so the newest token takes the place of
    one that no later query can see. In front of the ring stand slots for the sink tokens, which
    stay. `ring=False` keeps every token in sliding layers too. Positions count real tokens, and are
    -1 for padding.

    A forward pass calls `append` once, then `update` once a layer; `length` is the number of
    columns filled, padding included. Bytes in all: `nbytes`.
    """

    def __init__(
        self,
        config: Qwen2Config,
        batch: int = 1,
        capacity: int = 4096,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
        ring: bool = True,
    ) -> None:
        if batch < 1 or capacity < 1:
            raise ValueError(f"found batch {batch} and capacity {capacity}, expected 1 or more.")
        self.batch, self.capacity, self.sinks = batch, capacity, config.sink_tokens
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []
        self.slots: list[int] = []
        for window in config.layer_windows:
            slots = min(capacity, window + ROLLBACK) if window and ring else capacity
            room = slots + (self.sinks if slots < capacity else 0)
            shape = (batch, config.num_key_value_heads, room, config.head_dim)
            self.keys.append(torch.zeros(shape, device=device, dtype=dtype))
            self.values.append(torch.zeros(shape, device=device, dtype=dtype))
            self.slots.append(slots)
        self.positions = torch.full((batch, capacity), -1, device=device)
        self.reset()

    @property
    def nbytes(self) -> int:
        """Bytes of all keys and values."""
        return sum(tensor.nbytes for tensor in self.keys + self.values)

    @property
    def next_positions(self) -> Int[Tensor, "batch"]:
        """How many real tokens each row holds."""
        if self.length == 0:
            return self.positions.new_zeros(self.batch)
        return self.positions[:, : self.length].amax(1) + 1

    def serves(self, config: Qwen2Config) -> bool:
        """Whether a model of this configuration finds here all keys that it may see."""
        if len(config.layer_windows) != len(self.slots):
            return False
        rings = any(slots < self.capacity for slots in self.slots)
        return not (rings and config.sink_tokens > self.sinks) and all(
            slots == self.capacity or (window is not None and window + ROLLBACK <= slots)
            for slots, window in zip(self.slots, config.layer_windows, strict=True)
        )

    def reset(self) -> None:
        """Forget everything; the memory stays."""
        self.length = self.written = 0
        self.padded = False

    def truncate(self, length: int) -> None:
        """Forget the columns from `length` on. A ring can take back its last 32 tokens only."""
        if not 0 <= length <= self.length:
            raise ValueError(f"truncate: found {length}, expected 0 to {self.length}.")
        for slots in set(self.slots):
            if slots < self.capacity and self.written > max(slots, length + ROLLBACK):
                raise ValueError(
                    f"truncate: {self.written - length} tokens back is more than the {ROLLBACK} "
                    "that a sliding layer's ring can give back. Use KVCache(..., ring=False)."
                )
        self.length = length

    def append(self, positions: Int[Tensor, "#batch new"], padded: bool = False) -> None:
        """Make room for new columns with these positions; ValueError if they do not fit."""
        end = self.length + positions.shape[1]
        if end > self.capacity:
            raise ValueError(
                f"the cache has room for {self.capacity} tokens and holds {self.length}; "
                f"{positions.shape[1]} more do not fit. Make one with a larger capacity."
            )
        self.positions[:, self.length : end] = positions
        self.padded |= padded
        self.length, self.written = end, max(self.written, end)

    def update(
        self,
        layer: int,
        key: Float[Tensor, "batch kv_heads new head_dim"],
        value: Float[Tensor, "batch kv_heads new head_dim"],
    ) -> tuple[Float[Tensor, "batch kv_heads all _"], Float[Tensor, "batch kv_heads all _"]]:
        """Store the appended columns' keys and values; return all that their queries may need."""
        slots, new, end = self.slots[layer], key.shape[2], self.length
        found = []
        for kept, fresh in ((self.keys[layer], key), (self.values[layer], value)):
            if slots == self.capacity:
                kept[:, :, end - new : end] = fresh
                found.append(kept[:, :, :end])
            else:
                found.append(self._store(kept, fresh, end - new))
        return found[0], found[1]

    def _store(self, kept: Tensor, fresh: Tensor, start: int) -> Tensor:
        """Write new columns into a ring, and the sinks among them into their own slots."""
        slots, new, end = kept.shape[2] - self.sinks, fresh.shape[2], start + fresh.shape[2]
        whole = kept[:, :, self._lead(slots, start) : self.sinks + min(slots, start)]
        if new > ROLLBACK + 1:  # writing first would overwrite keys that the first queries see
            whole = torch.cat((whole, fresh), dim=2)
        columns = torch.arange(max(start, end - slots), end, device=kept.device)
        kept.index_copy_(2, self.sinks + columns % slots, fresh[:, :, -slots:])
        positions = self.positions[:, start:end]
        for sink in range(self.sinks if self.padded or start < self.sinks else 0):
            rows, at = (positions == sink).nonzero(as_tuple=True)
            kept[rows, :, sink] = fresh[rows, :, at]
        if new > ROLLBACK + 1:
            return whole
        return kept[:, :, self._lead(slots, end) : self.sinks + min(slots, end)]

    def _lead(self, slots: int, held: int) -> int:
        """Where a layer's keys begin: at the sinks once the ring has dropped columns."""
        return 0 if held > slots else self.sinks

    def key_positions(self, layer: int, new: int) -> Int[Tensor, "#batch all"]:
        """Positions of the keys that `update` returns in this layer, in their order."""
        slots, end, device = self.slots[layer], self.length, self.positions.device
        if slots == self.capacity:
            columns = torch.arange(end, device=device)
        else:
            held = end if new <= ROLLBACK + 1 else end - new
            columns = _ring_columns(slots, held, device)
            dropped = held - slots  # columns below are in the ring no more
            columns = torch.cat((columns, torch.arange(held, end, device=device)))
            if self.sinks and dropped > 0:
                found = self.positions[:, columns] if self.padded else columns[None]
                return torch.cat((self._sinks(dropped), found), 1)
        return self.positions[:, columns] if self.padded else columns[None]

    def _sinks(self, dropped: int) -> Tensor:
        """Positions of the sink slots; -1 for a sink that still stands in the ring."""
        sinks = torch.arange(self.sinks, device=self.positions.device)[None]
        if not self.padded:
            return torch.where(sinks < dropped, sinks, -1)
        first = (self.positions[:, : self.length] < 0).sum(1, keepdim=True)  # padding of each row
        return torch.where(first + sinks < dropped, sinks, -1)


def _ring_columns(slots: int, end: int, device: torch.device) -> Tensor:
    """Which column stands in each filled slot: the last one below `end` that falls there."""
    slot = torch.arange(min(slots, end), device=device)
    return end - 1 - (end - 1 - slot) % slots
