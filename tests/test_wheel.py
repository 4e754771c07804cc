"""The wheel: built, installed in a clean environment, and used from there."""

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
    source = folder / "source"
    command = ["git", "-C", str(ROOT), "ls-files", "-co", "--exclude-standard", "-z"]
    listed = subprocess.run(command, check=True, capture_output=True).stdout.decode().split("\0")
    for name in filter(None, listed):  # a copy, so that building leaves nothing behind
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    command = [sys.executable, "-m", "build", "--wheel", "--outdir", str(folder), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    (file,) = folder.glob("*.whl")
    return file


def test_what_is_in_it(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    for needed in ("__init__.py", "checkpoint/hub.py", "py.typed", "assets/tiny/model.safetensors"):
        assert f"qwen2_book/{needed}" in names
    assert all(name.startswith(("qwen2_book/", "qwen2_book-")) for name in names)
    assert wheel.stat().st_size < 5_000_000


def test_it_works_from_a_clean_environment(wheel, tmp_path):
    """The dependencies, gigabytes of them, are borrowed by a path file; the package is not."""
    venv.create(tmp_path / "env", with_pip=True)
    python = tmp_path / "env" / "bin" / "python"
    install = [python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", wheel]
    subprocess.run(install, check=True)
    (site,) = (tmp_path / "env" / "lib").glob("python*/site-packages")
    # A plain path line: path files inside the borrowed folder, such as that of an editable
    # install of this package, are not followed.
    (site / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    out = subprocess.run(
        [python, "-I", "-c", CODE], cwd=tmp_path, check=True, capture_output=True, text=True
    ).stdout
    assert out.strip()
    command = [tmp_path / "env" / "bin" / "qwen2-book", "info"]
    shown = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True)
    assert "parameters" in shown.stdout
