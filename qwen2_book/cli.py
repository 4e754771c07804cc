"""The command line: chat, generate, windows, info, read."""

import subprocess
import sys
import time
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from qwen2_book import costs
from qwen2_book.config import Qwen2Config
from qwen2_book.generate import stream
from qwen2_book.loading import config_of, load
from qwen2_book.model import Qwen2
from qwen2_book.sampling import GREEDY, Sampler
from qwen2_book.tokenizer import Tokenizer

app = typer.Typer(
    help="Run a Qwen2 checkpoint: talk to it, and see what its attention looks at.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
console, errors = Console(highlight=False), Console(stderr=True, highlight=False)

SOURCE = "A folder, a .gguf file or a hub id. Left out: the small checkpoint inside the package."
Source = Annotated[
    str | None, typer.Option("--model", "-m", help=SOURCE, envvar="QWEN2_BOOK_CHECKPOINT")
]
Device = Annotated[str, typer.Option(help="cpu, mps, cuda, or auto: the best there is.")]
Dtype = Annotated[str, typer.Option(help="float32, bfloat16, float16, or auto: as stored.")]
Quantize = Annotated[str | None, typer.Option(help="int8 or int4: packed weights, on the CPU.")]
Tokens = Annotated[int, typer.Option("--max-new-tokens", "-n", min=1, help="Stop after so many.")]
Window = Annotated[
    int | None, typer.Option(min=1, help="Switch the sliding window on: W tokens a query.")
]
Sinks = Annotated[int, typer.Option(min=0, help="So many first tokens stay visible to a window.")]
Seed = Annotated[int | None, typer.Option(help="The same seed draws the same text.")]
Greedy = Annotated[bool, typer.Option("--greedy", help="Always take the likeliest token.")]


def command(function: Callable[..., None]) -> Callable[..., None]:
    """A command whose mistakes end in one clear line, and which Ctrl-C leaves cleanly."""

    @wraps(function)
    def run(*args: Any, **kwargs: Any) -> None:
        try:
            function(*args, **kwargs)
        except KeyboardInterrupt:
            errors.print("\nstopped")
            raise typer.Exit(130) from None
        except (ValueError, OSError) as error:
            errors.print(f"[bold red]error:[/] {escape(str(error))}")
            raise typer.Exit(1) from None

    app.command()(run)
    return run


def start(
    source: str | None,
    device: str,
    dtype: str,
    window: int | None = None,
    sinks: int = 0,
    quantize: str | None = None,
) -> tuple[Qwen2, Tokenizer]:
    """Load, say in one line what was loaded, and switch the window on if asked to."""
    began = time.perf_counter()
    model, tokenizer = load(source, device, dtype, quantize)
    if tokenizer is None:
        raise ValueError(f"{source} has no tokenizer; put its tokenizer.json into the folder.")
    seconds = time.perf_counter() - began
    size, kind = costs.parameters(model.config)["total"], quantize or str(model.dtype)[6:]
    errors.print(
        f"[dim]{escape(model.name_or_path)}: {size:,} parameters, {kind} on {model.device}, loaded "
        f"in {seconds:.1f} s[/]"
    )
    return (model if window is None else model.with_window(window, sinks)), tokenizer


def sampler_of(model: Qwen2, greedy: bool, seed: int | None) -> Sampler:
    """Greedy, or as the checkpoint's own generation settings say."""
    return GREEDY if greedy else Sampler.from_settings(model.generation, seed)


@command
def chat(
    model: Source = None,
    system: Annotated[str | None, typer.Option(help="What the model should be.")] = None,
    max_new_tokens: Tokens = 512,
    greedy: Greedy = False,
    seed: Seed = None,
    window: Window = None,
    sinks: Sinks = 0,
    device: Device = "auto",
    dtype: Dtype = "auto",
    quantize: Quantize = None,
) -> None:
    """Talk with the model. An empty line, Ctrl-C or Ctrl-D ends the conversation."""
    network, tokenizer = start(model, device, dtype, window, sinks, quantize)
    messages = [{"role": "system", "content": system}] if system else []
    sampler = sampler_of(network, greedy, seed)
    while True:
        try:
            question = console.input("[bold]you:[/] ").strip()
        except EOFError:
            question = ""
        if not question:
            return
        messages.append({"role": "user", "content": question})
        console.print("[bold]qwen2:[/] ", end="")
        answer = ""
        for piece in stream(network, tokenizer, messages, max_new_tokens, sampler):
            answer += piece
            console.print(piece, end="", markup=False, soft_wrap=True)
        console.print()
        messages.append({"role": "assistant", "content": answer})


@command
def generate(
    prompt: Annotated[str, typer.Argument(help="The text to answer, or with --raw to continue.")],
    model: Source = None,
    raw: Annotated[
        bool, typer.Option("--raw", help="Continue the text; no chat template.")
    ] = False,
    max_new_tokens: Tokens = 256,
    greedy: Greedy = False,
    seed: Seed = None,
    window: Window = None,
    sinks: Sinks = 0,
    device: Device = "auto",
    dtype: Dtype = "auto",
    quantize: Quantize = None,
) -> None:
    """Answer one prompt, and print the answer as it comes."""
    network, tokenizer = start(model, device, dtype, window, sinks, quantize)
    prompts = prompt if raw else [{"role": "user", "content": prompt}]
    sampler = sampler_of(network, greedy, seed)
    for piece in stream(network, tokenizer, prompts, max_new_tokens, sampler):
        sys.stdout.write(piece)
        sys.stdout.flush()
    sys.stdout.write("\n")


@command
def windows(
    prompt: Annotated[str, typer.Argument(help="The text whose attention is drawn, raw.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="An .svg or .png file.")] = Path(
        "attention_windows.svg"
    ),
    model: Source = None,
    heads: Annotated[
        str, typer.Option(help="layer:head pairs, such as 0:3,2:1. Left out: one head a layer.")
    ] = "",
    window: Window = 8,
    sinks: Sinks = 0,
    device: Device = "auto",
    dtype: Dtype = "auto",
) -> None:
    """Draw what heads look at over a prompt, and the share of it that a window would keep."""
    from qwen2_book.plots import attention_windows, save_figure
    from qwen2_book.trace import trace

    if output.suffix not in (".svg", ".png"):
        raise ValueError(f"--output: found {output.name}, expected a name ending in .svg or .png.")
    network, tokenizer = start(model, device, dtype)
    ids = tokenizer.encode(prompt)
    config = network.config
    shown = parse_heads(heads) or [
        (layer, layer % config.num_attention_heads)
        for layer in range(0, config.num_hidden_layers, -(-config.num_hidden_layers // 8))
    ]
    seen = trace(
        network, ids, sorted({layer for layer, _ in shown}), sorted({head for _, head in shown})
    )
    figure = attention_windows(seen, tokenizer.pieces(ids), shown, window, sinks)
    beside = output.with_name(f".{output.name}.part")
    save_figure(figure, beside, output.suffix[1:])
    beside.replace(output)
    console.print(f"{output}: {len(shown)} heads over {len(ids)} tokens, window {window}")


def parse_heads(text: str) -> list[tuple[int, int]]:
    """`0:3,2:1` as [(0, 3), (2, 1)]."""
    try:
        pairs = [tuple(map(int, pair.split(":"))) for pair in text.split(",") if pair.strip()]
        return [(layer, head) for layer, head in pairs]
    except ValueError:
        raise ValueError(
            f"--heads: found {text!r}, expected layer:head pairs such as 0:3,2:1."
        ) from None


@command
def info(
    model: Annotated[
        str | None, typer.Argument(help=SOURCE + " Or a released name, such as Qwen2-72B.")
    ] = None,
) -> None:
    """Show a checkpoint's configuration and what it costs. No weights are read."""
    if model in Qwen2Config.names():
        config, where = Qwen2Config.named(model), f"{model}, as released"
    else:
        config, where = config_of(model)
    counts = costs.parameters(config)
    table = Table(title=escape(where), show_header=False)
    windows_on = sum(w is not None for w in config.layer_windows)
    rows = {
        "model type": config.model_type,
        "layers": str(config.num_hidden_layers),
        "hidden size": f"{config.hidden_size:,}",
        "query heads, key-value heads": (
            f"{config.num_attention_heads}, {config.num_key_value_heads}"
        ),
        "head size": str(config.head_dim),
        "vocabulary rows": f"{config.vocab_size:,}",
        "head tied to embedding": "yes" if config.tie_word_embeddings else "no",
        "rotary base": f"{config.rope_theta:,.0f}",
        "YaRN factor": f"{config.rope_scaling.factor:g}" if config.rope_scaling else "none",
        "sliding layers": f"{windows_on} of window {config.sliding_window}"
        if windows_on
        else "none",
        "experts": f"{config.num_experts}, {config.num_experts_per_tok} a token"
        if config.num_experts
        else "none",
        "parameters": f"{counts['total']:,}",
        "parameters a token runs through": f"{counts['active']:,}",
        "weights in bfloat16": _size(costs.weight_bytes(config)),
        "cache per token": _size(costs.cache_bytes(config, 1)),
        "cache at 32,768 tokens": _size(costs.cache_bytes(config, 32_768)),
    }
    for name, value in rows.items():
        table.add_row(name, value)
    console.print(table)


@command
def read() -> None:
    """Open the book in JupyterLab."""
    here = [Path.cwd(), *Path.cwd().parents, *Path(__file__).resolve().parents]
    books = [folder / "notebooks" / "capstone.ipynb" for folder in here]
    book = next((file for file in books if file.is_file()), None)
    if book is None:
        raise ValueError(
            "the notebooks are not here: the installed package holds the model only. Get the "
            "book's repository and run `make read` in it."
        )
    root = f"--ServerApp.root_dir={book.parent.parent}"  # so that its links to other pages work
    raise typer.Exit(subprocess.call([sys.executable, "-m", "jupyter", "lab", root, str(book)]))


def _size(count: float | int) -> str:
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if count < 1024 or unit == "GiB":
            return f"{count:,.1f} {unit}" if count % 1 else f"{count:,.0f} {unit}"
        count /= 1024
    raise AssertionError


if __name__ == "__main__":
    app()
