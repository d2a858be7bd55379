"""Where rows are sent, to a server or into files, by what the study and this machine say; and whether that works."""

from __future__ import annotations

import netrc
import os
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import get_args
from urllib.parse import urlsplit

from rung.errors import RungError
from rung.results.parts import storage_error
from rung.tracking import Mode, WandbChoice

DEFAULT_SERVER = "https://api.wandb.ai"

REACHABLE_SECONDS = 10.0
"""How long a server may take to answer at all."""

PROBE_BYTES = 2**16
"""What must fit onto the disk yet."""

_OTHER_WORDS: Mapping[str, Mode] = {"run": "online", "shared": "online", "dryrun": "offline"}
"""What WANDB_MODE may say, too."""


@dataclass(frozen=True)
class Destination:
    """A W&B project on a server, or in files."""

    mode: Mode
    project: str
    entity: str | None
    server: str
    root: Path
    """Where wandb keeps its own files, in a folder `wandb`."""

    @property
    def is_online(self) -> bool:
        return self.mode == "online"

    @property
    def folder(self) -> Path:
        """Holds one folder for each W&B run."""
        return self.root / "wandb"

    @property
    def name(self) -> str:
        """Tells destinations apart."""
        parts = urlsplit(self.server)  # without a password that may be in it
        place = f"{parts.scheme}://{parts.hostname}:{parts.port or ''}{parts.path}" if self.is_online else self.folder
        return f"{place} {self.entity or ''}/{self.project}"


def destination_of(
    choice: WandbChoice, project: str, directory: Path, environment: Mapping[str, str] = os.environ
) -> Destination:
    """The destination of a study.

    Args:
        choice: what the study says.
        project: of a study that names none, where WANDB_PROJECT does not either.
        directory: the study's.
        environment: of the process.

    Raises:
        RungError: WANDB_MODE is no mode, or there is no key for a server.
    """
    server = environment.get("WANDB_BASE_URL") or DEFAULT_SERVER
    mode = _mode(choice, server, environment)
    if mode == "online" and not _has_key(server, environment):  # wandb would ask for one, and wait
        raise RungError(f"there is no key for {server}: `wandb login`, or set WANDB_API_KEY")
    return Destination(
        mode=mode,
        project=choice.project or environment.get("WANDB_PROJECT") or project,
        entity=choice.entity or environment.get("WANDB_ENTITY") or None,
        server=server.rstrip("/"),
        root=Path(environment.get("WANDB_DIR") or directory).absolute(),
    )


def _mode(choice: WandbChoice, server: str, environment: Mapping[str, str]) -> Mode:
    if environment.get("WANDB_DISABLED", "").lower() in ("1", "true", "yes"):
        return "disabled"
    word = environment.get("WANDB_MODE")
    if word:
        found = next((mode for mode in get_args(Mode) if mode == word), _OTHER_WORDS.get(word))
        if found is None:
            raise RungError(f"WANDB_MODE is {word!r}: expected {', '.join(get_args(Mode))}")
        return found
    return choice.mode or ("online" if _has_key(server, environment) else "offline")


def _has_key(server: str, environment: Mapping[str, str]) -> bool:
    """Whether wandb will find a key without asking for one: in the environment, or where `wandb login` puts it."""
    if environment.get("WANDB_API_KEY") or environment.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    named = environment.get("NETRC")
    home = Path(environment.get("HOME") or Path.home())
    for path in [Path(named)] if named else [home / ".netrc", home / "_netrc"]:
        try:
            return netrc.netrc(path).authenticators(urlsplit(server).netloc) is not None
        except FileNotFoundError:
            continue
        except (OSError, netrc.NetrcParseError):
            return False
    return False


def check_reachable(server: str) -> None:
    """wandb would try for half a minute; this goes by the same proxies, and any answer will do.

    Raises:
        RungError: there is none.
    """
    try:
        urllib.request.urlopen(f"{server}/healthz", timeout=REACHABLE_SECONDS).close()
    except urllib.error.HTTPError:
        return
    except OSError as error:
        raise RungError(f"{server} does not answer: {getattr(error, 'reason', error)}") from error


def check_space(folder: Path) -> None:
    """wandb does not say that it could not write its file.

    Raises:
        StorageError: the folder is on a disk that is full.
    """
    probe = folder / ".probe"
    try:
        probe.write_bytes(bytes(PROBE_BYTES))
    except OSError as error:
        raise storage_error("cannot write to", folder, error) from error
    finally:
        probe.unlink(missing_ok=True)
