"""What is installed is what is pinned, in the environment that ``make`` builds and in the image alike."""

from __future__ import annotations

import fnmatch
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import distribution
from importlib.metadata import version as installed_version
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from ruamel.yaml import YAML

import nrp

ROOT = Path(nrp.__file__).parent
REQUIREMENTS = ROOT / "requirements"
RUNTIME, ONNX, EVALUATE, DEV = (REQUIREMENTS / f"{name}.txt" for name in ("runtime", "onnx", "evaluate", "dev"))
PEERS = REQUIREMENTS / "peers.txt"
BENCH = REQUIREMENTS / "bench.txt"
NETWORKS = REQUIREMENTS / "networks.txt"
ON_TOP_OF = MappingProxyType({ONNX: RUNTIME, EVALUATE: ONNX, DEV: EVALUATE})
PIN = re.compile(r'[a-z0-9-]+(\.[a-z0-9-]+)*==[0-9][0-9a-z.]*( ; platform_system == "Linux")?')
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
SETUPTOOLS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
DOCKERFILE = (ROOT / "docker" / "service.Dockerfile").read_text().replace("\\\n", " ")


def lines(path: Path) -> list[str]:
    return [line for line in path.read_text().splitlines() if line and not line.startswith("#")]


def pins(*paths: Path) -> dict[str, Requirement]:
    found = [Requirement(line) for path in paths for line in lines(path) if not line.startswith("-r ")]
    return {canonicalize_name(pin.name): pin for pin in found}


def here(requirement: Requirement, extras: tuple[str, ...] = ("",)) -> bool:
    return requirement.marker is None or any(requirement.marker.evaluate({"extra": extra}) for extra in extras)


def pulled_in(requirements: list[str]) -> set[str]:
    """Names of everything that installing these would install on this machine."""
    todo, done = [Requirement(line) for line in requirements], set()
    while todo:
        requirement = todo.pop()
        wanted = (canonicalize_name(requirement.name), *sorted(requirement.extras))
        if wanted not in done:
            done.add(wanted)
            needs = map(Requirement, distribution(requirement.name).requires or ())
            todo += [need for need in needs if here(need, ("", *requirement.extras))]
    return {name for name, *_ in done}


def asked_for(extra: str) -> list[str]:
    """What pyproject asks for; an extra's mention of the project itself stands for other extras."""
    wanted = PROJECT["optional-dependencies"][extra] if extra else PROJECT["dependencies"]
    return [line for line in wanted if Requirement(line).name != PROJECT["name"]]


@pytest.mark.parametrize("path", [RUNTIME, ONNX, EVALUATE, DEV, PEERS, BENCH, NETWORKS], ids=lambda path: path.name)
def test_requirements_are_exact_pins_and_nothing_else(path: Path) -> None:
    pinned = lines(path)
    if path in ON_TOP_OF:
        assert pinned.pop(0) == f"-r {ON_TOP_OF[path].name}"
    assert pinned == sorted(pinned, key=lambda line: line.split("==")[0])
    assert [line for line in pinned if not PIN.fullmatch(line)] == []


@pytest.mark.parametrize(
    "line", ["--index-url https://x/simple", "torch>=2", "torch @ file:///x.whl", "./x.whl", "torch"]
)
def test_what_is_no_pin_would_be_seen(line: str) -> None:
    assert not PIN.fullmatch(line)


def test_no_package_is_pinned_twice() -> None:
    names = [
        canonicalize_name(Requirement(line).name)
        for path in (RUNTIME, ONNX, EVALUATE, DEV, PEERS, NETWORKS)
        for line in lines(path)
        if "==" in line
    ]
    assert len(names) == len(set(names))


def test_the_pins_satisfy_what_the_project_asks_for() -> None:
    for extra, paths in (
        ("", (RUNTIME,)),
        ("onnx", (RUNTIME, ONNX)),
        ("evaluate", (RUNTIME, EVALUATE)),
        ("art", (RUNTIME, ONNX, EVALUATE, DEV)),
        ("train", (RUNTIME, ONNX, EVALUATE, DEV)),
        ("dev", (RUNTIME, ONNX, EVALUATE, DEV)),
        ("bench", (RUNTIME, EVALUATE, BENCH)),
    ):
        wanted = asked_for(extra)
        for requirement in map(Requirement, wanted):
            pin = pins(*paths)[canonicalize_name(requirement.name)]
            (exact,) = pin.specifier
            assert requirement.specifier.contains(exact.version), f"{pin} is not {requirement}"


def test_every_package_that_these_pull_in_is_pinned_too() -> None:
    assert pulled_in(PROJECT["dependencies"]) <= set(pins(RUNTIME))
    assert pulled_in(asked_for("onnx")) <= set(pins(RUNTIME, ONNX))
    assert pulled_in(asked_for("evaluate")) <= set(pins(RUNTIME, EVALUATE))
    everything = [*asked_for("art"), *asked_for("train"), *asked_for("dev")]
    assert pulled_in(everything) <= set(pins(RUNTIME, ONNX, EVALUATE, DEV))


def test_nothing_is_pinned_for_the_service_that_it_does_not_need() -> None:
    needed = pulled_in([*PROJECT["dependencies"], "setuptools"])
    assert {name for name, pin in pins(RUNTIME).items() if here(pin)} <= needed
    assert {name for name, pin in pins(ONNX).items() if here(pin)} <= pulled_in(asked_for("onnx"))


def test_the_packages_under_test_are_the_pinned_ones() -> None:
    differing = {
        name: installed_version(name)
        for name, pin in pins(RUNTIME, ONNX, EVALUATE, DEV, PEERS, NETWORKS).items()
        if here(pin) and not pin.specifier.contains(installed_version(name))
    }
    assert not differing


def test_every_package_folder_is_installed() -> None:
    rooms = {path.name for path in ROOT.iterdir() if (path / "__init__.py").is_file()}
    folders = {init.parent.relative_to(ROOT) for room in rooms for init in (ROOT / room).rglob("__init__.py")}
    assert sorted(SETUPTOOLS["packages"]) == sorted(".".join(folder.parts) for folder in folders)


def test_the_changelog_begins_with_this_version() -> None:
    first = re.search(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert first
    assert first[1] == PROJECT["version"]


def pip_lines(text: str) -> list[str]:
    found = re.findall(r"pip install (.*)", text)
    beyond = ("evaluate.txt", "dev.txt", "peers.txt", "bench.txt", "networks.txt")
    return [line.replace("--editable ", "") for line in found if not line.endswith(beyond)]


def test_the_image_is_installed_as_make_installs() -> None:
    made = pip_lines((ROOT / "Makefile").read_text())
    assert len(made) == 2
    assert pip_lines(DOCKERFILE) == made


def copied() -> list[str]:
    return [name for line in re.findall(r"^COPY (.*)$", DOCKERFILE, re.MULTILINE) for name in line.split()[:-1]]


def test_the_image_gets_every_file_it_is_made_of() -> None:
    allowed = {line[1:] for line in lines(ROOT / ".dockerignore") if line.startswith("!")}
    for name in copied():
        assert (ROOT / name).exists(), name
        assert name.split("/")[0] in allowed, f"{name} is ignored"
    assert {package.split(".")[0] for package in SETUPTOOLS["packages"]} <= set(copied())
    assert {f"{module}.py" for module in SETUPTOOLS["py-modules"]} <= set(copied())


def test_the_image_leaves_out_what_it_is_not_made_of() -> None:
    first = lines(ROOT / ".dockerignore")[0]
    assert all(fnmatch.fnmatch(name, first) for name in (".git", ".venv", "runs", "tests"))


def instruction(name: str) -> str:
    found = re.findall(rf"^{name} (.*)$", DOCKERFILE, re.MULTILINE)
    assert len(found) == 1
    return str(found[0])


def test_the_image_serves_without_root_and_says_how_it_is() -> None:
    assert json.loads(instruction("CMD")) == ["nrp", "serve", "--host", "0.0.0.0"]  # noqa: S104 - inside a container
    assert instruction("USER") == "nrp"
    assert instruction("EXPOSE") == "8000"
    assert "/health/live" in instruction("HEALTHCHECK")


def compose() -> dict[str, Any]:
    content: dict[str, Any] = YAML(typ="safe").load((ROOT / "docker-compose.yml").read_text())
    return content


def refused_by_schema(path: Path) -> str:
    done = subprocess.run(  # noqa: S603 - our own interpreter
        [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(path)],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout + done.stderr if done.returncode else ""


def test_the_compose_file_fits_the_compose_specification() -> None:
    assert refused_by_schema(ROOT / "docker-compose.yml") == ""


def test_a_compose_file_with_a_mistake_would_be_seen(tmp_path: Path) -> None:
    mistaken = (ROOT / "docker-compose.yml").read_text().replace("read_only:", "readonly:")
    (tmp_path / "docker-compose.yml").write_text(mistaken)
    assert "readonly" in refused_by_schema(tmp_path / "docker-compose.yml")


def test_docker_itself_reads_the_compose_file() -> None:
    docker = shutil.which("docker")
    if not docker or subprocess.run([docker, "compose", "version"], capture_output=True, check=False).returncode:  # noqa: S603
        pytest.skip("docker compose is not installed; the schema above is checked without it")
    command = [docker, "compose", "--file", str(ROOT / "docker-compose.yml"), "config", "-q"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    assert done.returncode == 0, done.stderr


def test_compose_starts_the_cpu_service_alone_and_keeps_it_small() -> None:
    services = compose()["services"]
    assert [name for name, service in services.items() if "profiles" not in service] == ["service"]
    assert services["service"]["ports"] == ["8000:8000"]
    assert services["service"]["environment"] == {"NRP_DEVICE": "cpu"}
    assert services["service-gpu"]["profiles"] == ["gpu"]
    for service in services.values():
        assert (ROOT / service["build"]["dockerfile"]).is_file()
        assert "/health/ready" in service["healthcheck"]["test"][-1]
        assert service["read_only"]
        assert service["tmpfs"] == ["/tmp"]  # noqa: S108 - a path in the container
        assert service["mem_limit"]
        assert service["restart"] == "unless-stopped"


def test_no_two_services_want_one_port() -> None:
    ports = [port.split(":")[0] for service in compose()["services"].values() for port in service["ports"]]
    assert len(ports) == len(set(ports))


def test_make_refuses_an_old_python_in_one_line(tmp_path: Path) -> None:
    make = shutil.which("make")
    if not make:
        pytest.skip("make is not installed")
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "requirements", tmp_path / "requirements")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    done = subprocess.run(  # noqa: S603
        [make, "serve", "PYTHON=false"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert done.stderr.splitlines()[0].startswith("nrp needs Python 3.11 or newer")
    assert not (tmp_path / ".venv").exists()


def test_ci_runs_make_test_and_nothing_cleverer() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert script.read_text().splitlines()[-1] == "exec make test"
