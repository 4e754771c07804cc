"""The project's own promises: one set of dependencies, links that lead somewhere, module order."""

import ast
import re
import tomllib
from pathlib import Path

import checks
import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "qwen2_book"
PAGES = [
    p for p in ROOT.rglob("*.md") if not {".venv", ".git", "text"} & set(p.relative_to(ROOT).parts)
]
# From the ground floor up: a module imports only from those before it.
ORDER = """
    errors config_checks released config gguf_file sandbox chat bpe tokenizer_files tokenizer
    norm rope window cache attention feedforward moe model dual_chunk passkey checkpoint.files
    checkpoint.layout checkpoint.safetensors_file checkpoint.blocks checkpoint.gguf_weights
    checkpoint.hub checkpoint.source sampling generate speculative progress
    rounding packed fused quantize graph loading saving trace neurons heads costs parity style plots
    training.data training.loss training.run_folder training.loop
    training.sft training.dpo training.reward training.lora training.online training.curve
    training.scaling world.words world.sentences world.story world.facts world.talk
    world.documents world.lessons
    world.score widgets.base widgets.chat_bytes widgets.chunk_distances widgets.dpo_margin
    widgets.dpo_plane widgets.gate_neurons widgets.head_data
    widgets.head_browser widgets.head_window widgets.heads_bill widgets.logit_lens
    widgets.loss_mask widgets.merge_table widgets.merge_stepper widgets.model_map
    widgets.parity_ladder
    widgets.stream_data widgets.residual_stream widgets.ring_buffer widgets.rope_clocks
    widgets.roofline widgets.router_flow widgets.weight_block widgets.sampling_knobs
    widgets.training_budget
    widgets.window_explorer
    exercises.base exercises.meet_checks exercises.meet exercises.tokenizer_checks
    exercises.tokenizer exercises.stream_checks exercises.stream exercises.rope_checks
    exercises.rope exercises.attention_checks exercises.attention exercises.swiglu_checks
    exercises.swiglu exercises.window_checks exercises.window exercises.experts_checks
    exercises.experts exercises.whole_checks exercises.whole exercises.checkpoints_checks
    exercises.checkpoints exercises.generation_checks exercises.generation
    exercises.chatml_checks exercises.chatml exercises.long_context_checks
    exercises.long_context exercises.seeing_checks exercises.seeing
    exercises.speed_checks exercises.speed exercises.tuning_checks exercises.tuning
    exercises.preferences_checks exercises.preferences exercises.pretraining_checks
    exercises.pretraining cli
""".split()


def name_of(requirement: str) -> str:
    return re.split(r"[<>=!~\[; ]", requirement)[0].lower().replace("_", "-")


def wanted() -> dict[str, list[str]]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return {"": project["dependencies"], **project["optional-dependencies"]}


def test_every_dependency_is_pinned_once():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", pin) for pin in pins)
    names = {name_of(r) for group in wanted().values() for r in group}
    assert sorted(map(name_of, pins)) == sorted(names)


def test_the_conda_environment_has_the_same():
    text = (ROOT / "environment.yml").read_text()
    listed = [line.strip()[2:] for line in text.split("- pip:")[1].splitlines() if "- " in line]
    expected = {requirement for group in wanted().values() for requirement in group}
    assert set(listed) == expected | {"--constraint constraints.txt", "--editable ."}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert f"python{project['requires-python']}" in text


def test_the_version_stands_once():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    version = project["version"]
    assert f'__version__ = "{version}"' in (PACKAGE / "__init__.py").read_text()
    assert f"version: {version}" in (ROOT / "CITATION.cff").read_text()
    assert f"## {version}" in (ROOT / "CHANGELOG.md").read_text()


def test_links_pictures_numbers_and_contents():
    assert checks.findings() == []


def test_the_table_of_checkpoints_is_computed():
    from qwen2_book.config import Qwen2Config
    from qwen2_book.costs import parameters

    text = (ROOT / "checkpoints.md").read_text()
    for name in Qwen2Config.names()[::2]:
        total = parameters(Qwen2Config.named(name))["total"]
        assert f"| {name}, -Instruct | {total:,} | {2 * total / 1e9:.2f} GB |" in text


def test_every_module_is_in_the_order_and_keeps_it():
    modules = {
        ".".join(f.relative_to(PACKAGE).with_suffix("").parts) for f in PACKAGE.rglob("*.py")
    }
    assert modules == {
        *ORDER,
        "__init__",
        "checkpoint.__init__",
        "widgets.__init__",
        "exercises.__init__",
        "training.__init__",
        "world.__init__",
    }
    for module in ORDER:
        tree = ast.parse((PACKAGE / f"{module.replace('.', '/')}.py").read_text())
        for node in ast.walk(tree):
            names = []
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("qwen2_book"):
                inner = node.module.removeprefix("qwen2_book").lstrip(".")
                whole = [f"{inner}.{a.name}".lstrip(".") for a in node.names]
                names = [n for n in whole if n in ORDER] or [inner]
            for name in names:
                assert name in ORDER[: ORDER.index(module)], f"{module} imports {name}"


@pytest.mark.parametrize("module", ORDER)
def test_modules_are_short_and_quiet(module):
    text = (PACKAGE / f"{module.replace('.', '/')}.py").read_text()
    assert len(text.splitlines()) <= 270
    tree = ast.parse(text)
    assert ast.get_docstring(tree)
    calls = [n.func for n in ast.walk(tree) if isinstance(n, ast.Call)]
    assert not any(isinstance(f, ast.Name) and f.id == "print" for f in calls)
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            assert ast.get_docstring(node), f"{module}.{node.name}"


def test_the_model_alone_fits_on_two_screens():
    assert len((PACKAGE / "model.py").read_text().splitlines()) <= 220
