"""The command line, on the tiny checkpoint."""

import re
import signal
import subprocess
import sys
import time

import pytest
from typer.testing import CliRunner

from qwen2_book.cli import app, parse_heads

runner = CliRunner(env={"QWEN2_BOOK_CHECKPOINT": "", "COLUMNS": "120"})


def run(*words: str, **more):
    return runner.invoke(app, [*words], **more)


@pytest.mark.parametrize("name", ["chat", "generate", "windows", "info", "read"])
def test_every_command_has_a_help_text(name):
    assert name in run("--help").output
    result = run(name, "--help")
    assert result.exit_code == 0
    assert len(result.output) > 200


def test_generate_is_repeatable():
    first, again = (run("generate", "Hello!", "--seed", "3", "-n", "20") for _ in range(2))
    assert first.exit_code == 0, first.output
    assert first.stdout == again.stdout
    assert first.stdout.strip()


def test_generate_raw_and_with_a_window():
    for more in (["--raw", "--greedy"], ["--window", "4", "--sinks", "1"]):
        result = run("generate", "The dog", "-n", "5", *more)
        assert result.exit_code == 0, result.output


def test_generate_with_packed_weights():
    result = run("generate", "The dog", "-n", "5", "--greedy", "--quantize", "int8")
    assert result.exit_code == 0, result.output
    assert "parameters, int8 on cpu" in result.stderr
    refused = run("generate", "The dog", "--quantize", "int3")
    assert refused.exit_code == 1 and "expected None, int8 or int4" in refused.output


def test_chat_ends_with_an_empty_line_and_at_the_end_of_the_input():
    for lines in ("Hello!\n\n", "Hello!\n"):
        result = run("chat", "--greedy", "-n", "10", input=lines)
        assert result.exit_code == 0, result.output
        assert result.stdout.count("qwen2:") == 1


@pytest.mark.parametrize(("name", "magic"), [("a.svg", b"<?xml"), ("b.png", b"\x89PNG")])
def test_windows_writes_a_picture(tmp_path, name, magic):
    file = tmp_path / name
    result = run(
        "windows", "猫 sees <the> $dog & 'x'", "-o", str(file), "--window", "3", "--heads", "0:1"
    )
    assert result.exit_code == 0, result.output
    assert file.read_bytes().startswith(magic)
    assert list(tmp_path.iterdir()) == [file]


def test_info_of_a_released_model_and_of_the_tiny_one():
    assert "72,706,203,648" in run("info", "Qwen2-72B").output
    result = run("info")
    assert result.exit_code == 0, result.output
    assert re.search(r"parameters\s+│ [\d,]+", result.output)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["generate", "x", "-m", "/no/such/folder"], "error:"),
        (["info", "/no/such/folder"], "error:"),
        (["generate", "x", "--dtype", "int3"], "int3"),
        (["windows", "x", "-o", "a.pdf"], "ending in .svg or .png"),
        (["windows", "x", "--heads", "1-2"], "layer:head pairs"),
        (["windows", "x", "--heads", "99:0"], "expected 0 to"),
        (["generate", ""], "empty prompt"),
    ],
)
def test_mistakes_end_in_one_clear_line(words, message):
    words = words + ["--raw"] * (words == ["generate", ""])
    result = run(*words)
    assert result.exit_code == 1
    assert message in " ".join(result.output.split())
    assert "Traceback" not in result.output


def test_parse_heads():
    assert parse_heads("0:3, 2:1") == [(0, 3), (2, 1)]
    assert parse_heads("") == []


def test_ctrl_c_leaves_cleanly():
    command = [sys.executable, "-m", "qwen2_book.cli", "chat"]
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # a test run started in the background ignores Ctrl-C, and so would its children
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    seen = process.stderr.readline()  # "…parameters…": it is loaded and waits for a question
    assert "parameters" in seen
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "Traceback" not in out + err
