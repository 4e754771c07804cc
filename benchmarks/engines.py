"""This book's engine in four weights beside transformers and llama.cpp, in one interleaved run.

    QWEN2_BOOK_CHECKPOINT=folder python -m benchmarks.engines [--rounds 5] [--threads 2]

Every round takes all engines in turn, on prompts of three lengths, alone and eight at a time (up
to 8,192 tokens in all): a pass over the prompt, then some tokens one by one. Each engine is a
process of its own that waits while others run: in one process their threads count together, and
where they are more than processors, OpenMP sends them to sleep between two products. Loading is a
fresh process each time, tokenizer included. llama.cpp takes part where `xllamacpp` is installed
(pip install --no-deps xllamacpp: built wheels, 34 MB) and the folder holds one .gguf file; it takes
one prompt at a time. Machines are noisy, so what counts is the ratio within a round; the tables
give medians and ranges. Writes benchmarks/engines.json and benchmarks/engines.md.

Where PyTorch finds a GPU, all of it runs there, without the packed weights and llama.cpp, which are
for CPUs, and with steps recorded as CUDA graphs, whose cache is kept from one run to the next.
Random weights serve as well: `qwen2_book.save` writes them into a folder.
"""

import argparse
import importlib.metadata
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.machine import machine, resident
from qwen2_book import Qwen2Config, costs

HERE = Path(__file__).parent
ANSWER = "took "
OURS = ("as stored", "float32", "bfloat16", "int8", "int4")  # the first is not optimised
THEIRS = ("float32", "bfloat16")
GRAPH = "bfloat16, CUDA graph"
NAMES = [f"qwen2_book {w}" for w in (*OURS, GRAPH)]
NAMES += [f"transformers {w}" for w in THEIRS] + ["llama.cpp"]
KERNELS = ("pack_mm", "linear_with_input_q_dq")  # of packed products
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
MOST, SPARE = 8192, 256  # tokens of all prompts of a batch; room for new ones
Run = Callable[[torch.Tensor, int], tuple[float, float]]


def engine(name: str, folder: Path) -> Run:
    """A loaded engine: prompts and a number of steps in, seconds of the prompt and of the steps."""
    kind, _, weights = name.partition(" ")
    return {"qwen2_book": ours, "transformers": theirs}.get(kind, llama)(folder, weights)


def now() -> float:
    """The time once all work that was handed out is done: a GPU's calls return before it is."""
    if DEVICE == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def stepped(first: Callable[[torch.Tensor], Any], step: Callable[[torch.Tensor, Any], Any]) -> Run:
    """Time a pass and some steps of functions that give logits and what the next step needs."""

    @torch.no_grad()
    def run(ids: torch.Tensor, new: int) -> tuple[float, float]:
        ids, began = ids.to(DEVICE), now()
        logits, state = first(ids)
        token = logits[:, -1].argmax(-1, keepdim=True)
        started = now()
        for _ in range(new):
            logits, state = step(token, state)
            token = logits[:, -1].argmax(-1, keepdim=True)
        return started - began, now() - started

    return run


def ours(folder: Path, weights: str) -> Run:
    from qwen2_book import KVCache, load, optimize
    from qwen2_book.graph import FixedStep

    recorded, weights = weights == GRAPH, weights.removesuffix(", CUDA graph")
    dtype = weights if "float" in weights else "auto"
    model, _ = load(folder, device=DEVICE, dtype=dtype)
    if weights != "as stored":
        model = optimize(model, weights)
    kept: dict[torch.Size, tuple[KVCache, Callable]] = {}  # recorded in the round that warms up

    def made(batch: int, length: int) -> tuple[KVCache, Callable]:
        room = batch, length + SPARE, DEVICE, model.dtype
        cache = KVCache(model.config, *room, ring=not recorded)
        return cache, FixedStep(model, cache) if recorded else partial(model, cache=cache)

    def first(ids):
        cache, step = kept.get(ids.shape) or made(*ids.shape)
        cache.reset()
        if recorded:
            kept[ids.shape] = cache, step
        return model(ids, cache, last_only=True), step

    return stepped(first, lambda token, step: (step(token), step))


def theirs(folder: Path, weights: str) -> Run:
    from transformers import Qwen2ForCausalLM, Qwen2TokenizerFast

    Qwen2TokenizerFast.from_pretrained(folder)  # the other engines load theirs, too
    model = Qwen2ForCausalLM.from_pretrained(folder, dtype=getattr(torch, weights))
    model = model.eval().to(DEVICE)

    def call(ids, past):
        out = model(ids, past_key_values=past, use_cache=True, logits_to_keep=1)
        return out.logits, out.past_key_values

    return stepped(lambda ids: call(ids, None), call)


def llama(folder: Path, weights: str) -> Run:
    import xllamacpp

    settings = xllamacpp.CommonParams()
    (file,) = folder.glob("*.gguf")
    settings.model.path, settings.n_ctx, settings.n_parallel = str(file), MOST + SPARE, 1
    threads = torch.get_num_threads()
    settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = threads
    server = xllamacpp.Server(settings)

    def run(ids: torch.Tensor, new: int) -> tuple[float, float]:
        asked = {"prompt": ids[0].tolist(), "n_predict": new + 1, "temperature": 0}
        found = server.handle_completions(asked | {"ignore_eos": True, "cache_prompt": False})
        timings = (found if isinstance(found, dict) else json.loads(found))["timings"]
        steps = timings["predicted_n"] - 1  # the first token comes with the prompt
        return timings["prompt_ms"] / 1000, timings["predicted_ms"] / 1000 * new / max(steps, 1)

    return run


def there(folder: Path) -> list[str]:
    """The engines that can run here."""
    if DEVICE == "cuda":
        experts = Qwen2Config.from_file(folder).num_experts  # no one step to record
        names = [name for name in NAMES if "int" not in name and name != "llama.cpp"]
        return [name for name in names if not (experts and name.endswith(GRAPH))]
    llama_too = importlib.util.find_spec("xllamacpp") and len(list(folder.glob("*.gguf"))) == 1
    return [n for n in NAMES if "CUDA" not in n and (llama_too or n != "llama.cpp")]


def prompts(batch: int, length: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 150_000, (batch, length), generator=generator)


def serve(name: str, folder: Path) -> None:
    """Load one engine and time what stdin asks for, a line of batch, length and steps each."""
    run = engine(name, folder)
    for line in sys.stdin:
        batch, length, new = map(int, line.split())
        print(ANSWER + json.dumps(run(prompts(batch, length), new)), flush=True)


def ask(process: subprocess.Popen, batch: int, length: int, new: int) -> tuple[float, float]:
    """Seconds of the prompt and of the steps, from an engine's process."""
    assert process.stdin and process.stdout
    process.stdin.write(f"{batch} {length} {new}\n")
    process.stdin.flush()
    for line in process.stdout:
        if line.startswith(ANSWER):
            prefill, decode = json.loads(line.removeprefix(ANSWER))
            return prefill, decode
    raise RuntimeError(f"{process.args!r} ended with {process.wait()}")


def speeds(names: list[str], options: argparse.Namespace) -> list[dict]:
    """For each batch and prompt, each engine's tokens a second in each round."""
    command = [sys.executable, "-m", "benchmarks.engines", "--threads", str(options.threads)]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    running = {name: subprocess.Popen([*command, "--serve", name], **pipes) for name in names}
    cells = [(b, n) for n in options.prompts for b in options.batches if b * n <= options.most]
    found = []
    for batch, length in cells:
        able = [name for name in names if batch == 1 or name != "llama.cpp"]
        cell: dict[str, Any] = {"batch": batch, "prompt": length, "prefill": {}, "decode": {}}
        for step in range(options.rounds + 1):
            for name in able if step % 2 else able[::-1]:  # fair order
                took = ask(running[name], batch, length, options.new)
                if step:  # the first round warms up
                    for what, seconds in zip(("prefill", "decode"), took, strict=True):
                        tokens = batch * (length if what == "prefill" else options.new)
                        cell[what].setdefault(name, []).append(tokens / seconds)
        found.append(cell)
    for process in running.values():
        process.communicate()  # closes its input, which ends it
    return found


def loads(names: list[str], rounds: int, threads: int) -> dict[str, dict[str, list[float]]]:
    """Seconds to load, seconds to the first token, peak bytes: each time in a fresh process."""
    found: dict[str, dict[str, list[float]]] = {name: {} for name in names}
    for step in range(rounds + 1):
        for name in names if step % 2 else names[::-1]:
            command = [sys.executable, "-m", "benchmarks.engines", "--load", name]
            command += ["--threads", str(threads)]
            out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            if step:
                for key, value in json.loads(out.splitlines()[-1]).items():
                    found[name].setdefault(key, []).append(value)
    return found


def load_once(name: str, folder: Path) -> None:
    """Load one engine and give its first token; imports are not timed. Prints a line of JSON."""
    if name.startswith("transformers"):
        from transformers import Qwen2ForCausalLM, Qwen2TokenizerFast  # noqa: F401  (lazy)
    elif name == "llama.cpp":
        import xllamacpp  # noqa: F401
    else:
        import qwen2_book
    began = time.perf_counter()
    run = engine(name, folder)
    loaded = time.perf_counter() - began
    run(prompts(1, 16), 0)
    first = time.perf_counter() - began
    found = {"load": loaded, "first token": first, "peak": resident()}
    if name.startswith("qwen2_book"):
        began = time.perf_counter()
        qwen2_book.Tokenizer.from_file(folder)
        found["tokenizer alone"] = time.perf_counter() - began
    print(json.dumps(found))


@torch.no_grad()
def limits() -> dict[str, float]:
    """The machine's own: operations a second of a large product, bytes a second of a long one."""
    found, times = {}, 1 if DEVICE == "cpu" else 50
    for dtype in (torch.float32, torch.bfloat16):
        name = str(dtype).removeprefix("torch.")
        square = torch.randn(1024 if DEVICE == "cpu" else 8192, 1024).to(DEVICE, dtype)
        long, vector = (torch.randn(*size).to(DEVICE, dtype) for size in ((2**14, 2**13), (2**13,)))
        works: list[tuple[str, Callable[[], object], float]] = [
            (f"{name} operations/s", lambda: square @ square.T, 2 * len(square) * square.numel()),  # noqa: B023
            (f"{name} bytes/s", lambda: long @ vector, long.nbytes),  # noqa: B023
        ]
        for what, work, amount in works:
            took = []
            for _ in range(6):
                began = now()
                for _ in range(times):
                    work()
                took.append((now() - began) / times)
            found[what] = amount / min(took[1:])
    return found


def packed_share(folder: Path) -> float:
    """How much of the time of int4 decoding goes into the packed products."""
    run = ours(folder, "int4")
    run(prompts(1, 128), 1)
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        run(prompts(1, 1), 16)  # the prompt of one token is a step, too
    took = {event.key: event.self_cpu_time_total for event in seen.key_averages()}
    packed = sum(t for key, t in took.items() if any(kernel in key for kernel in KERNELS))
    return packed / sum(took.values())


def ratio(mine: list[float], others: list[list[float]]) -> str:
    """Median and range, over the rounds, of mine to the best of the others in that round."""
    found = sorted(a / max(rest) for a, *rest in zip(mine, *others, strict=True))
    return f"{statistics.median(found):.2f} ({found[0]:.2f}–{found[-1]:.2f})"


def short(results: dict) -> str:
    """The ratios that the READMEs show: ours over each peer's best, within a round."""
    cells = [cell for cell in results["speeds"] if cell["batch"] == 1]
    decode = next(cell for cell in cells if cell["prompt"] == 128)
    prefill = max(cells, key=lambda cell: cell["prompt"])
    lines = ["| | over the best of transformers | over llama.cpp |", "|---|---:|---:|"]
    for what, cell in (("decode", decode), ("prefill", prefill)):
        for weights in ("bfloat16", "int8", "int4"):
            if f"qwen2_book {weights}" not in cell[what]:
                continue
            texts = []
            for peer in ("transformers", "llama.cpp"):
                others = [f for n, f in cell[what].items() if n.startswith(peer)]
                mine = cell[what][f"qwen2_book {weights}"]
                texts.append(ratio(mine, others) if others else "")
            lines.append(f"| {what}, {weights} | {' | '.join(texts)} |")
    loads, texts = results["loads"], []
    for peer in ("transformers", "llama.cpp"):
        theirs = [
            [1 / t for t in cell["first token"]]
            for name, cell in loads.items()
            if name.startswith(peer)
        ]
        mine = [1 / t for t in loads["qwen2_book as stored"]["first token"]]
        texts.append(ratio(mine, theirs) if theirs else "")
    lines.append(f"| load to first token, as stored | {' | '.join(texts)} |")
    about = ", ".join(f"{key} {value}" for key, value in results["machine"].items())
    return "\n".join(lines) + (
        f"\n\n{results['checkpoint']}; {about}. Medians and ranges of the ratios within "
        f"{results['rounds']} interleaved rounds, above 1 where this engine is faster; one text, "
        f"decoding {results['new']} tokens after 128, prefill of {prefill['prompt']:,}. llama.cpp "
        f"with Q4_K_M weights. Load average before and after: {results['load average']}."
    )


def bandwidth(results: dict) -> str:
    """How fast decoding one text reads the bfloat16 weights, beside what the machine can read."""
    cells = [cell["decode"] for cell in results["speeds"] if cell["batch"] == 1]
    runs = [f for n, f in (cells or [{}])[0].items() if n.startswith("qwen2_book bfloat16")]
    if not runs:
        return ""
    read = max(map(statistics.median, runs)) * results["bfloat16 bytes a token"]
    share = read / max(v for what, v in results["limits"].items() if what.endswith("bytes/s"))
    return (
        f" Decoding one text in bfloat16 reads {read / 1e9:.1f} G bytes/s of weights, {share:.0%} "
        "of the most of these."
    )


def page(results: dict) -> str:
    """The results as a page."""
    about = ", ".join(f"{key} {value}" for key, value in results["machine"].items())
    limit = ", ".join(f"{value / 1e9:.1f} G {what}" for what, value in results["limits"].items())
    share = results.get("packed share")
    parts = [
        "# Engines side by side\n\nThis page is written by `make bench`; the single runs are in "
        f"[engines.json](engines.json).\n\n{results['checkpoint']}; {about}. "
        f"{results['rounds']} interleaved rounds, medians and ranges; {results['new']} tokens one "
        f"by one; columns are prompts × their tokens. The machine's own limits: {limit}."
        f"{bandwidth(results)} "
        f"Load average before and after: {results['load average']}."
        + (f" Packed products take {share:.0%} of the time of int4 decoding." if share else ""),
    ]
    for what in ("prefill", "decode"):
        cells = results["speeds"]
        title = [f"{cell['batch']} × {cell['prompt']:,}" for cell in cells]
        lines = [f"| {what}, tokens/s | {' | '.join(title)} |", "|---|" + "---:|" * len(cells)]
        for name in results["engines"]:
            found = [cell[what].get(name) for cell in cells]
            texts = [f"{statistics.median(f):.3g}" if f else "" for f in found]
            lines.append(f"| {name} | {' | '.join(texts)} |")
        for name in (n for n in results["engines"] if n.startswith("qwen2_book")):
            for peer in ("transformers", "llama.cpp"):
                texts = []
                for cell in cells:
                    others = [f for n, f in cell[what].items() if n.startswith(peer)]
                    texts.append(ratio(cell[what][name], others) if others else "")
                if any(texts):
                    best = "the best of transformers" if peer == "transformers" else peer
                    lines.append(f"| {name} over {best} | {' | '.join(texts)} |")
        parts.append("\n".join(lines))
    lines = ["| | load, s | and first token, s | peak, GB |", "|---|---:|---:|---:|"]
    for name, cell in results["loads"].items():
        load, first, peak = (statistics.median(cell[k]) for k in ("load", "first token", "peak"))
        lines.append(f"| {name} | {load:.2f} | {first:.2f} | {peak / 1e9:.2f} |")
    alone = results["loads"].get("qwen2_book as stored", {}).get("tokenizer alone")
    if alone:
        lines.append(f"\nOur tokenizer alone loads in {statistics.median(alone):.2f} s.")
    return "\n\n".join([*parts, "\n".join(lines)]) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--new", type=int, default=32, help="tokens one by one")
    parser.add_argument("--prompts", type=int, nargs="+", default=[128, 1024, 4096])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--most", type=int, default=MOST, help="tokens of a batch's prompts")
    parser.add_argument("--out", type=Path, default=HERE, help="where the two files go")
    parser.add_argument("--engines", choices=NAMES, nargs="+", default=NAMES, help="only these")
    parser.add_argument("--serve", choices=NAMES, help="only answer for this one")
    parser.add_argument("--load", choices=NAMES, help="only load this one, and say what it took")
    options = parser.parse_args()
    source = os.environ.get("QWEN2_BOOK_CHECKPOINT")
    if not source:
        sys.exit("Set QWEN2_BOOK_CHECKPOINT to a Hugging Face folder (see checkpoints.md).")
    folder = Path(source)
    torch.set_num_threads(options.threads)
    if options.load:
        load_once(options.load, folder)
        return
    if options.serve:
        serve(options.serve, folder)
        return
    names, busy = [n for n in there(folder) if n in options.engines], os.getloadavg()[0]
    results: dict[str, Any] = {"machine": machine(), "checkpoint": folder.name, "engines": names}
    amx = " and AMX" if torch.cpu._is_amx_tile_supported() else ""
    results["machine"]["instructions"] = torch.backends.cpu.get_cpu_capability() + amx
    if "llama.cpp" in names:
        results["machine"]["xllamacpp"] = importlib.metadata.version("xllamacpp")
    results |= {"rounds": options.rounds, "new": options.new, "limits": limits()}
    results["bfloat16 bytes a token"] = costs.matmul_flops(Qwen2Config.from_file(folder))
    if "qwen2_book int4" in names:
        results["packed share"] = packed_share(folder)
    results["loads"] = loads(names, min(options.rounds, 3), options.threads)
    results["speeds"] = speeds(names, options)
    results["load average"] = f"{busy:.1f}, {os.getloadavg()[0]:.1f}"
    (options.out / "engines.json").write_text(json.dumps(results, indent=1) + "\n")
    (options.out / "engines.md").write_text(page(results))
    print(page(results))


if __name__ == "__main__":
    main()
