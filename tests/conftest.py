"""Shapes are checked while the tests run; tests of a real checkpoint are counted."""

import os
from pathlib import Path

# Workers share the processors: a thread that waits must not keep one busy. Read by OpenMP once.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import pytest
from jaxtyping import install_import_hook

# Every annotated function of the package checks its shapes, for the whole session. The
# configuration is left out: it checks its fields itself, and its errors are what is tested.
PACKAGE = Path(__file__).parent.parent / "qwen2_book"
MODULES = [file.relative_to(PACKAGE.parent).with_suffix("") for file in PACKAGE.rglob("*.py")]
CHECKED = [
    ".".join(module.parts)
    for module in MODULES
    if module.stem not in ("config", "config_checks", "gguf_file", "__init__")
]
_shapes = install_import_hook(CHECKED, "beartype.beartype")
_shapes.__enter__()

import site_builder  # noqa: E402
import torch  # noqa: E402
from browser import browser, served  # noqa: E402, F401  (one Chromium for all tests)

torch.set_num_threads(1)  # the runner starts one process a core

VARIABLE = "QWEN2_BOOK_CHECKPOINT"
REAL = {"real_checkpoint", "real_gguf"}


@pytest.hookimpl(tryfirst=True)  # before the runner reads the groups
def pytest_collection_modifyitems(items):
    for item in items:
        if REAL & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.real_checkpoint)
            item.add_marker(pytest.mark.xdist_group("real"))  # one process loads it, once


@pytest.fixture(scope="session")
def real_checkpoint() -> Path:
    """The folder of the real checkpoint."""
    value = os.environ.get(VARIABLE)
    if not value:
        pytest.skip(f"set {VARIABLE} to a checkpoint's folder (see checkpoints.md)")
    path = Path(value).expanduser()
    assert path.exists(), f"{VARIABLE}={value}: no such file or folder"
    folder = path if path.is_dir() else path.parent
    assert (folder / "config.json").is_file(), f"{VARIABLE}={value}: no config.json in {folder}"
    return folder


@pytest.fixture(scope="session")
def real_gguf(real_checkpoint: Path) -> Path:
    """The GGUF file of the same checkpoint: the variable's own, else the only one in the folder."""
    named = Path(os.environ[VARIABLE]).expanduser()
    files = [named] if named.suffix == ".gguf" else sorted(real_checkpoint.glob("*.gguf"))
    found = [file.name for file in files]
    assert len(files) == 1, f"{real_checkpoint}: found {found}, expected one .gguf file"
    return files[0]


@pytest.fixture(scope="session")
def site(tmp_path_factory) -> Path:
    """What `make site` builds; it fails on any warning, outside request or heavy page."""
    out = tmp_path_factory.mktemp("site")
    site_builder.build(out)
    return out / "_build" / "html"


@pytest.fixture(scope="session")
def home(site):
    with served(site) as address:
        yield address


def pytest_terminal_summary(terminalreporter, exitstatus, config):
    counts = _real(terminalreporter)
    where = os.environ.get(VARIABLE)
    name = Path(where).name if where else f"{VARIABLE} is not set"
    terminalreporter.write_line(
        f"real-checkpoint tests: {counts['passed'] + counts['failed']} ran, "
        f"{counts['skipped']} skipped ({name})"
    )


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session, exitstatus):
    """With the variable set, a skipped real-checkpoint test is a failure."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None or hasattr(session.config, "workerinput"):
        return
    if os.environ.get(VARIABLE) and _real(reporter)["skipped"] and exitstatus == 0:
        reporter.write_line(f"FAILED: {VARIABLE} is set, but tests that need it were skipped")
        session.exitstatus = 1


def _real(reporter) -> dict[str, int]:
    return {
        kind: sum("real_checkpoint" in report.keywords for report in reporter.stats.get(kind, ()))
        for kind in ("passed", "failed", "skipped")
    }
