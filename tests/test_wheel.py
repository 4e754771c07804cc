"""The wheel: built, installed in a clean environment, and used from there."""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CODE = """
import sys, pathlib, qwen2_book as q
assert pathlib.Path(q.__file__).is_relative_to(sys.prefix), q.__file__
model, tokenizer = q.load()
print("".join(q.stream(model, tokenizer, [{"role": "user", "content": "Hello!"}], 20)))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"  # a copy, so that building leaves nothing behind
    shutil.copytree(
        ROOT / "qwen2_book", source / "qwen2_book", ignore=shutil.ignore_patterns("__pycache__")
    )
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    command = [sys.executable, "-m", "build", "--wheel", "--outdir", str(folder), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    (file,) = folder.glob("*.whl")
    return file


def test_what_is_in_it(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    package = ROOT / "qwen2_book"
    wanted = [*package.rglob("*.py"), package / "py.typed", *package.glob("assets/*/*")]
    wanted += [
        file for kind in ("js", "css", "json", "svg") for file in package.glob(f"widgets/*.{kind}")
    ]
    assert {file.relative_to(ROOT).as_posix() for file in wanted} == {
        name for name in names if name.startswith("qwen2_book/")
    }
    assert all(name.startswith(("qwen2_book/", "qwen2_book-")) for name in names)
    with zipfile.ZipFile(wheel) as file:  # the checkpoints have a bound of their own, in test_tiny
        sizes = {i.filename: i.compress_size for i in file.infolist()}
    rest = {n: size for n, size in sizes.items() if not n.startswith("qwen2_book/assets/")}
    data = {n: size for n, size in rest.items() if n.endswith((".json", ".svg"))}  # of figures
    assert len(data) < len(rest) < len(sizes)
    assert sum(data.values()) < 1_350_000
    assert sum(rest.values()) - sum(data.values()) < 350_000


def test_it_works_from_a_clean_environment(wheel, tmp_path):
    """The dependencies, gigabytes of them, are borrowed by a path file; the package is not."""
    venv.create(tmp_path / "env", with_pip=True)
    python = tmp_path / "env" / "bin" / "python"
    # No network, no checkpoint, nothing of this folder on the path.
    left_out = ("PYTHONPATH", "QWEN2_BOOK_CHECKPOINT")
    environment = {k: v for k, v in os.environ.items() if k not in left_out}
    environment["HF_HUB_OFFLINE"] = "1"
    install = [python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", wheel]
    subprocess.run(install, check=True, env=environment)
    (site,) = (tmp_path / "env" / "lib").glob("python*/site-packages")
    # A plain path line: path files inside the borrowed folder, such as that of an editable
    # install of this package, are not followed.
    (site / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")

    def output(*command) -> str:
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    assert output(python, "-I", "-c", CODE).strip()
    script = tmp_path / "env" / "bin" / "qwen2-book"
    assert "chat" in output(script, "--help")
    assert "parameters" in output(script, "info")
