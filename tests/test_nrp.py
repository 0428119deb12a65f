from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace

import pytest

import nrp
from model_store.errors import NrpError

ROOT = Path(nrp.__file__).parent
FAKE = nrp.Verb("fake_commands", "do what a test says", ("nrp fake --times 2",))


def configure_fake(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--times", type=int, default=1)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[argparse.Namespace], int]], None]:
    """Make ``nrp fake`` call a function."""

    def install(run: Callable[[argparse.Namespace], int]) -> None:
        monkeypatch.setattr(nrp, "VERBS", {"fake": FAKE})
        room = SimpleNamespace(configure_fake=configure_fake, run_fake=run)
        monkeypatch.setitem(sys.modules, "fake_commands", room)  # type: ignore[arg-type]

    return install


def python(*code: str, stdout: int | None = subprocess.PIPE) -> subprocess.CompletedProcess[str]:
    """Run Python in a process of its own, as the ``nrp`` script would be."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment.pop("PYTHONUNBUFFERED", None)
    return subprocess.run(  # noqa: S603 - our own interpreter and our own code
        [sys.executable, *code], stdout=stdout, stderr=subprocess.PIPE, text=True, env=environment, check=False
    )


def test_help_lists_every_verb_without_importing_what_is_slow() -> None:
    code = """
import sys, nrp
try:
    nrp.main(["--help"])
finally:
    slow = {"torch", "numpy", "fastapi", "pydantic", "PIL", "service", "training", "robustness"} & set(sys.modules)
    print("slow:", sorted(slow))
"""
    done = python("-c", code)
    assert done.returncode == 0, done.stderr
    assert "slow: []" in done.stdout
    for name, verb in nrp.VERBS.items():
        assert f"{name} " in done.stdout
        assert verb.summary in done.stdout


@pytest.mark.parametrize("name", sorted(nrp.VERBS))
def test_every_verb_has_its_two_functions(name: str) -> None:
    module = importlib.import_module(nrp.VERBS[name].module)
    assert callable(getattr(module, f"configure_{name}"))
    assert callable(getattr(module, f"run_{name}"))


@pytest.mark.parametrize("name", sorted(nrp.VERBS))
def test_every_verbs_help_gives_an_example(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        nrp.main([name, "--help"])
    assert left.value.code == 0
    said = capsys.readouterr().out
    assert f"usage: nrp {name}" in said
    assert f"examples:\n  nrp {name}" in said


@pytest.mark.parametrize("example", [example for verb in nrp.VERBS.values() for example in verb.examples])
def test_every_example_is_a_command_that_parses(example: str) -> None:
    command, verb, *argv = shlex.split(example)
    parser, _ = nrp.load_verb(verb)
    assert command == "nrp"
    assert parser.parse_args(argv)


def expanded(text: str, variables: Mapping[str, str]) -> str:
    """``text`` with the Makefile's variables in it; what it does not set is left to its user, and stands empty."""
    while (filled := re.sub(r"\$\((\w+)\)", lambda found: variables.get(found[1], ""), text)) != text:
        text = filled
    return text


def test_every_command_of_the_makefile_parses() -> None:
    makefile = (ROOT / "Makefile").read_text().replace("\\\n", "")
    variables = dict(re.findall(r"^(?:export )?(\w+) [:?]= (.*)$", makefile, re.MULTILINE))
    commands = re.findall(r"^\t(?:.*\s)?\$\(BIN\)/nrp (.+)$", makefile, re.MULTILINE)
    assert len(commands) > 5
    for command in commands:
        verb, *argv = shlex.split(expanded(command, variables).partition(">>")[0])
        parser, _ = nrp.load_verb(verb)
        assert parser.parse_args(argv)


@pytest.mark.parametrize("argv", [[], ["nonsense"], ["--nonsense"], ["models"], ["models", "nonsense"]])
def test_misuse_exits_with_2_and_says_how_to_use_it(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        nrp.main(argv)
    assert left.value.code == 2
    assert "usage: nrp" in capsys.readouterr().err


def test_a_verb_gets_its_arguments_and_gives_the_exit_status(
    fake: Callable[[Callable[[argparse.Namespace], int]], None],
) -> None:
    fake(lambda args: args.times + 3)
    assert nrp.main(["fake"]) == 4
    assert nrp.main(["fake", "--times", "2"]) == 5


def test_an_error_raised_on_purpose_is_one_line_on_stderr(
    fake: Callable[[Callable[[argparse.Namespace], int]], None], capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_: argparse.Namespace) -> int:
        raise NrpError("the disk is full; free some")

    fake(fail)
    assert nrp.main(["fake"]) == 1
    shown = capsys.readouterr()
    assert shown.err == "nrp: error: the disk is full; free some\n"
    assert shown.out == ""


def test_a_mistake_of_ours_is_not_hidden(fake: Callable[[Callable[[argparse.Namespace], int]], None]) -> None:
    fake(lambda _: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        nrp.main(["fake"])


def test_an_interrupted_verb_leaves_without_a_traceback(
    fake: Callable[[Callable[[argparse.Namespace], int]], None], capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(_: argparse.Namespace) -> int:
        raise KeyboardInterrupt

    fake(interrupted)
    assert nrp.main(["fake"]) == 130
    assert capsys.readouterr().err == "nrp: interrupted\n"


@pytest.mark.parametrize("argv", [["--help"], ["models", "list", "--json"]])
def test_a_reader_that_has_gone_is_no_traceback(argv: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = python("-m", "nrp", *argv, stdout=writer)
    finally:
        os.close(writer)
    assert done.returncode == 141
    assert done.stderr == ""


def test_the_version_is_the_installed_packages(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(importlib.metadata, "version", lambda name: {"nrp": "9.8.7"}[name])
    with pytest.raises(SystemExit) as left:
        nrp.main(["--version"])
    assert left.value.code == 0
    assert capsys.readouterr().out == "nrp 9.8.7\n"


def test_without_installation_there_is_no_version(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def missing(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    assert nrp.main(["--version"]) == 1
    assert "not installed" in capsys.readouterr().err
