"""Builds a Dockerfile in a directory, where there is no Docker.

This differs from an image: the base is a virtual environment of this Python, next to this machine's
programs. Absolute paths are below the directory. The user who runs the build owns all files and
runs the program, root without its capabilities.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from string import Template
from typing import Any

_PROGRAMS = "/usr/local/bin:/usr/bin:/bin"
_WITHOUT_CAPABILITIES = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"]

_ABSOLUTE = re.compile(r"(?<![\w./-])/(?=\w)")
_CACHE = re.compile(r"--mount=\S+")
_NEW_USER = re.compile(r"useradd [^&]*")
_OWNER = re.compile(r"--(owner|group)=\d+")


class Image:
    """The last stage of a project's Dockerfile, below `root`. Only the volume is writable."""

    def __init__(self, project: Path, folder: Path) -> None:
        self._context = folder / "context"
        self._stages = folder / "stages"
        # Every stage is built in the same place, because installed programs contain their own path.
        self.root = folder / "root"
        self.settings: dict[str, str] = {}
        """The last stage's instructions as written: USER, STOPSIGNAL, ENTRYPOINT, ..."""
        self._stage = ""
        self._directory = self.root
        self._variables: dict[str, str] = {}
        self._stages.mkdir()
        _copy_context(project, self._context)
        for instruction, rest in _instructions(project / "Dockerfile"):
            self._carry_out(instruction, rest)
        shutil.rmtree(self._stages)
        self._protect()

    def remove(self) -> None:
        self._protect(is_protected=False)
        shutil.rmtree(self.root)

    @property
    def entrypoint(self) -> list[str]:
        command: list[str] = json.loads(self.settings["ENTRYPOINT"])
        return command

    @property
    def start(self) -> list[str]:
        return [*self.entrypoint, *json.loads(self.settings["CMD"])]

    @property
    def health_check(self) -> list[str]:
        command: list[str] = json.loads(self.settings["HEALTHCHECK"].partition(" CMD ")[2])
        return command

    def popen(
        self, command: list[str], environment: Mapping[str, str], **named: Any
    ) -> "subprocess.Popen[str]":
        """Runs a command as a container would: without the environment of this process."""
        if hasattr(os, "geteuid") and os.geteuid() == 0:
            command = [*_WITHOUT_CAPABILITIES, *command]
        variables = {**self._variables, **environment}
        program = shutil.which(command[0], path=variables["PATH"])
        assert program is not None, command
        return subprocess.Popen(
            [program, *command[1:]], env=variables, cwd=self.root, text=True, **named
        )

    def _carry_out(self, instruction: str, rest: str) -> None:
        match instruction:
            case "FROM":
                self._begin(rest)
            case "ENV":
                for setting in shlex.split(self._inside(rest)):
                    name, _, value = setting.partition("=")
                    self._variables[name] = Template(value).substitute(self._variables)
            case "WORKDIR":
                self._directory = Path(self._inside(rest))
                self._directory.mkdir(parents=True)
            case "COPY":
                self._copy(rest.split())
            case "RUN":
                self._run(rest)
            case "USER" | "VOLUME" | "STOPSIGNAL" | "HEALTHCHECK" | "ENTRYPOINT" | "CMD":
                self.settings[instruction] = rest
            case "EXPOSE":
                pass
            case _:
                raise ValueError(f"{instruction} cannot be carried out here")

    def _begin(self, rest: str) -> None:
        if self.root.exists():
            self.root.rename(self._stages / self._stage)
        self._stage = rest.partition(" AS ")[2]
        base = self.root / "usr" / "local"
        subprocess.run([sys.executable, "-m", "venv", base], check=True)
        self._directory = self.root
        self._variables = {"PATH": f"{base / 'bin'}:{_PROGRAMS}"}
        self.settings = {}

    def _copy(self, words: list[str]) -> None:
        *sources, target = (word for word in words if not word.startswith("--"))
        stage = next((word[7:] for word in words if word.startswith("--from=")), None)
        destination = self._directory / self._inside(target)
        for source in sources:
            if stage is not None:
                copied = self._stages / stage / source.lstrip("/")
                shutil.copytree(copied, destination, symlinks=True)
            elif (self._context / source).is_dir():
                shutil.copytree(self._context / source, destination)
            else:
                shutil.copy(self._context / source, destination)

    def _run(self, rest: str) -> None:
        script = _OWNER.sub("", _NEW_USER.sub("true ", _CACHE.sub("", rest)))
        subprocess.run(
            ["/bin/sh", "-ec", self._inside(script)],
            env=os.environ | self._variables,
            cwd=self._directory,
            check=True,
        )

    def _protect(self, *, is_protected: bool = True) -> None:
        volume = Path(self._inside(self.settings["VOLUME"]))
        for path in [self.root, *self.root.rglob("*")]:
            if not path.is_symlink() and path != volume and volume not in path.parents:
                mode = path.stat().st_mode
                path.chmod(mode & ~0o222 if is_protected else mode | 0o200)

    def _inside(self, text: str) -> str:
        return _ABSOLUTE.sub(f"{self.root}/", text)


def _copy_context(project: Path, folder: Path) -> None:
    """Copies the files that .dockerignore does not exclude."""
    rules = (project / ".dockerignore").read_text().splitlines()
    everywhere = [rule.removeprefix("**/") for rule in rules if rule.startswith("**/")]
    folder.mkdir()
    for path in project.iterdir():
        matching = [rule for rule in rules if fnmatchcase(path.name, rule.removeprefix("!"))]
        if matching and not matching[-1].startswith("!"):
            continue
        if path.is_dir():
            shutil.copytree(path, folder / path.name, ignore=shutil.ignore_patterns(*everywhere))
        else:
            shutil.copy(path, folder)


def _instructions(dockerfile: Path) -> Iterator[tuple[str, str]]:
    lines = [line for line in dockerfile.read_text().splitlines() if not line.startswith("#")]
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        if line:
            instruction, _, rest = line.partition(" ")
            yield instruction, rest.strip()
