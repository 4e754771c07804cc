"""The gate figure in Python: what it stores and what it counts."""

import math

import numpy as np
import torch
import torch.nn.functional as F

from qwen2_book.neurons import gates
from qwen2_book.widgets import GateNeurons, gate_neurons


def test_the_stored_neurons_are_small_and_whole():
    data = gate_neurons.stored()
    assert gate_neurons.STORED.stat().st_size < 150_000
    tokens = [token for part in data["passages"] for token in part["tokens"]]
    assert len(data["neurons"]) == 12
    for part in ("gates", "ups"):
        assert gate_neurons.unpack(data[part], 12).shape == (12, len(tokens))
    assert all(0 <= i < len(tokens) for found in data["labels"].values() for i in found)
    assert {neuron["label"] for neuron in data["neurons"]} <= set(data["labels"])
    digits = {tokens[i] for i in data["labels"]["digit"]}
    assert digits <= set("0123456789")


def test_packing_keeps_hundredths():
    values = np.array([[0.0, -1.234, 7.5], [300.0, -0.004, 0.006]])
    again = gate_neurons.unpack(gate_neurons.pack(values), 2)
    assert np.allclose(again, values, atol=0.00501)


def test_product_is_the_layers():
    figure = GateNeurons(neuron=4)
    gate, up, product = (GateNeurons(neuron=4, show=s).values() for s in ("gate", "up", "product"))
    expected = F.silu(torch.tensor(gate)) * torch.tensor(up)
    assert np.allclose(product, expected.numpy(), atol=1e-6)
    assert np.array_equal(figure.values(), gate)


def test_precision_and_recall_by_hand():
    for neuron in range(12):
        for threshold in (0, 17, 60, 100):
            figure = GateNeurons(neuron=neuron, threshold=threshold)
            values, marked = figure.values(), set(np.flatnonzero(figure.labelled()))
            low, high = values.min(), values.max()
            above = {i for i, v in enumerate(values) if v > low + (high - low) * threshold / 100}
            assert figure.counts() == (len(above & marked), len(above), len(marked))
            assert figure.recall() == len(above & marked) / len(marked)
            assert not above or math.isclose(figure.precision(), len(above & marked) / len(above))
    assert GateNeurons(threshold=100).counts()[1] == 0 == GateNeurons(threshold=100).precision()


def test_the_country_neuron_has_a_threshold_that_is_right():
    best = max(
        min(GateNeurons(neuron=1, threshold=t).precision(), GateNeurons(threshold=t).recall())
        for t in range(101)
    )
    assert best > 0.9


def test_bad_numbers_are_clamped():
    figure = GateNeurons(neuron=99, threshold=-5)
    assert (figure.neuron, figure.threshold) == (11, 0)
    assert "neuron 99" in figure.note


def test_stored_values_are_the_models(real_checkpoint):
    from qwen2_book import load

    model, tokenizer = load(real_checkpoint, dtype="float32")
    data = gate_neurons.stored()
    tokens = [token for part in data["passages"] for token in part["tokens"]][:40]
    ids = tokenizer.encode("Every" + "".join(tokens))
    assert tokenizer.pieces(ids)[1:] == tokens
    found = gates(model, ids)
    kept = gate_neurons.unpack(data["gates"], 12)
    for row, each in enumerate(data["neurons"]):
        live = found[each["layer"], 1:, each["neuron"]].numpy()
        assert np.allclose(live, kept[row, : len(live)], atol=0.02)
