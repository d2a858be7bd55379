"""The folder `platform/` must never shadow Python's own module, and light verbs must stay light."""

from __future__ import annotations

import platform
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def python(code: str, cwd: Path = ROOT) -> str:
    done = subprocess.run([sys.executable, "-c", code], cwd=cwd, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_platform_is_a_plain_folder() -> None:
    assert not (ROOT / "platform" / "__init__.py").exists()


def test_python_s_own_platform_wins_from_the_root_and_under_pytest() -> None:
    assert platform.python_version() == sys.version.split()[0]
    assert python("import platform, uuid; print(platform.python_version())") == sys.version.split()[0]
    # The root itself on the path, as a script in it or `python -m` would have it.
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import platform; print(platform.system())"
    assert python(code) == platform.system()


def test_rung_trainables_and_search_spaces_are_where_they_should_be() -> None:
    code = "import rung, trainables, pathlib; print(pathlib.Path(rung.__file__).parent, trainables.__path__[0])"
    assert python(code, cwd=Path("/")) == f"{ROOT / 'platform' / 'rung'} {ROOT / 'trainables'}"


def test_the_platform_never_imports_trainables() -> None:
    for path in (ROOT / "platform").rglob("*.py"):
        for line in path.read_text().splitlines():
            assert not line.lstrip().startswith(("import trainables", "from trainables")), f"{path}: {line}"


def test_results_know_nothing_of_ray_or_torch() -> None:
    for path in (ROOT / "platform" / "rung" / "results").rglob("*.py"):
        text = path.read_text()
        for package in ("ray", "torch"):
            assert f"import {package}" not in text, path
            assert f"from {package}" not in text, path


def test_no_global_random_numbers() -> None:
    forbidden = (
        "np.random.seed(",
        "np.random.rand",
        "np.random.normal(",
        "from random import",
        "torch.manual_seed(",
    )
    global_generator = re.compile(r"(?<![\w.])random\.(?!Random\b)\w+")  # generators of one's own are passed around
    for folder in ("platform", "trainables"):
        for path in (ROOT / folder).rglob("*.py"):
            text = path.read_text()
            assert not [word for word in forbidden if word in text], path
            assert not global_generator.findall(text), path


def test_the_driver_of_a_sweep_imports_no_torch() -> None:
    modules = "rung.tuning.search, rung.tuning.trial, rung.tuning.tune_scheduler"
    code = f"import sys, {modules}; print('torch' in sys.modules)"
    assert python(code) == "False"


LIGHT = {
    "plan": ["plan", "search_spaces/modular_arithmetic/demo.yaml"],
    "schema": ["schema", "modular_arithmetic"],
    "help": ["--help"],
}


@pytest.mark.parametrize("verb", LIGHT)
def test_light_verbs_import_neither_ray_nor_torch(verb: str) -> None:
    code = f"""
import sys
from rung import cli
sys.argv = ["rung", *{LIGHT[verb]!r}]
try:
    cli.main()
except SystemExit as end:
    assert not end.code, end.code
print("HEAVY:", [name for name in ("ray", "torch", "matplotlib", "pandas") if name in sys.modules])
"""
    assert python(code).splitlines()[-1] == "HEAVY: []"
