"""Interactive figures: one ES module each, alive in JupyterLab and, without a kernel, on the web.

In JupyterLab a figure is an anywidget. Its stored output also carries HTML: a place that names the
module and its state, around a static picture. The website's host script mounts the same module
there; GitHub, print and notebooks that were not run show the picture.
"""

from qwen2_book.widgets.base import STYLE, Figure, names, source
from qwen2_book.widgets.chat_bytes import ChatBytes
from qwen2_book.widgets.chunk_distances import ChunkDistances
from qwen2_book.widgets.dpo_margin import DpoMargin
from qwen2_book.widgets.dpo_plane import DpoPlane
from qwen2_book.widgets.gate_neurons import GateNeurons
from qwen2_book.widgets.head_browser import HeadBrowser
from qwen2_book.widgets.head_window import HeadWindow
from qwen2_book.widgets.heads_bill import HeadsBill
from qwen2_book.widgets.logit_lens import LogitLens
from qwen2_book.widgets.loss_mask import LossMask
from qwen2_book.widgets.merge_stepper import MergeStepper
from qwen2_book.widgets.model_map import ModelMap
from qwen2_book.widgets.parity_ladder import ParityLadder
from qwen2_book.widgets.residual_stream import ResidualStream
from qwen2_book.widgets.ring_buffer import RingBuffer
from qwen2_book.widgets.roofline import Roofline
from qwen2_book.widgets.rope_clocks import RopeClocks
from qwen2_book.widgets.router_flow import RouterFlow
from qwen2_book.widgets.sampling_knobs import SamplingKnobs
from qwen2_book.widgets.training_budget import TrainingBudget
from qwen2_book.widgets.weight_block import WeightBlock
from qwen2_book.widgets.window_explorer import WindowExplorer

__all__ = [
    "STYLE",
    "ChatBytes",
    "ChunkDistances",
    "DpoMargin",
    "DpoPlane",
    "Figure",
    "GateNeurons",
    "HeadBrowser",
    "HeadWindow",
    "HeadsBill",
    "LogitLens",
    "LossMask",
    "MergeStepper",
    "ModelMap",
    "ParityLadder",
    "ResidualStream",
    "RingBuffer",
    "Roofline",
    "RopeClocks",
    "RouterFlow",
    "SamplingKnobs",
    "TrainingBudget",
    "WeightBlock",
    "WindowExplorer",
    "names",
    "source",
]
