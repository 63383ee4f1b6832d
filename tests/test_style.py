"""The style rules that a machine can hold: sizes as a ratchet, banned calls, light imports, honest docs.

Sizes are a ratchet: the exceptions below may shrink, never grow, and no new one is added.
"""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = sorted((ROOT / "p2pfed").rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))
TEXTS = [
    path
    for pattern in (
        "*.md",
        "*.toml",
        "*.py",
        "Makefile",
        "docs/**/*.md",
        "p2pfed/**/*",
        "tests/**/*.py",
        "node/*",
        "bootstrap/*",
        "examples/*",
    )
    for path in ROOT.glob(pattern)
    if path.is_file() and path.suffix not in {".pyc", ".typed"}
]

FILE_LINES_MAX = 400
FUNCTION_LINES_MAX = 60
LARGER_FILES: dict[str, int] = {}
LARGER_FUNCTIONS: dict[str, int] = {}

BANNED = {
    "pickle": "bytes of strangers are never unpickled: use wire.codec or wire.tensors",
    "torch.load": "it unpickles: use safetensors",
    "eval": "no code from text",
    "exec": "no code from text",
    "print": "commands print through the console of cli.output, all else reports events",
    "time.sleep": "wait for what you wait for",
    "os.system": "subprocess.run with a list",
}
PRINT_ALLOWED = ("p2pfed/cli/", "p2pfed/demo/")
CLOCK_OWNERS = (
    "p2pfed/runtime.py",
    "p2pfed/node.py",
    "p2pfed/bootstrap.py",
    "p2pfed/api.py",
    "p2pfed/doctor.py",
    "p2pfed/snapshot/collect.py",
    "p2pfed/net/",
    "p2pfed/cli/",
    "p2pfed/demo/",
    "p2pfed/doctor/",
)
"""Who may read clocks, draw global chance or look at the environment: composition roots and edges."""
GLOBAL_STATE = re.compile(
    r"^(time\.(time|monotonic|perf_counter)|random\.(random|choice|shuffle|randint|sample)|"
    r"os\.(environ|getenv)|secrets\.\w+)$"
)


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def dotted(node: ast.AST) -> str:
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


@pytest.mark.parametrize("path", PACKAGE, ids=relative)
def test_sizes(path: Path) -> None:
    source = path.read_text()
    lines = source.count("\n")
    allowed = LARGER_FILES.get(relative(path), FILE_LINES_MAX)
    assert lines <= allowed, f"{relative(path)} has {lines} lines, more than {allowed}: which noun wants out?"
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            most = LARGER_FUNCTIONS.get(f"{relative(path)}:{node.name}", FUNCTION_LINES_MAX)
            assert length <= most, f"{relative(path)}:{node.lineno} {node.name} has {length} lines, more than {most}"


@pytest.mark.parametrize("path", PACKAGE, ids=relative)
def test_banned_calls_and_module_docstring(path: Path) -> None:
    tree = ast.parse(path.read_text())
    where = relative(path)
    assert ast.get_docstring(tree), f"{where} does not say what it is"
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            for name in names:
                assert name.split(".")[0] != "pickle", f"{where}:{node.lineno}: {BANNED['pickle']}"
        if not isinstance(node, ast.Call | ast.Attribute):
            continue
        name = dotted(node.func if isinstance(node, ast.Call) else node)
        if name in BANNED and isinstance(node, ast.Call) and not (name == "print" and where.startswith(PRINT_ALLOWED)):
            raise AssertionError(f"{where}:{node.lineno}: {name}: {BANNED[name]}")
        if GLOBAL_STATE.match(name) and not where.startswith(CLOCK_OWNERS):
            raise AssertionError(f"{where}:{node.lineno}: {name} is a parameter here, not a global")


@pytest.mark.parametrize("path", PACKAGE, ids=relative)
def test_no_mutable_state_in_modules(path: Path) -> None:
    for node in ast.parse(path.read_text()).body:
        value = node.value if isinstance(node, ast.Assign | ast.AnnAssign) else None
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        if isinstance(value, ast.List | ast.Set) and dotted(target or ast.Name("")) != "__all__":
            raise AssertionError(f"{relative(path)}:{node.lineno}: mutable module state; a tuple or frozenset will do")


def test_core_draws_no_sets_in_order() -> None:
    """Sets of str iterate differently in every process: none is built in the core."""
    for path in (ROOT / "p2pfed" / "core").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            named_set = isinstance(node, ast.Call) and dotted(node.func) in {"set", "frozenset"}
            assert not named_set and not isinstance(node, ast.SetComp), f"{relative(path)}:{node.lineno}: a set"


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("p2pfed", ("trio", "libp2p", "torch", "numpy", "pydantic")),
        ("p2pfed.core.peer", ("trio", "libp2p", "torch", "numpy", "msgpack", "pydantic", "asyncio", "socket")),
        ("p2pfed.bootstrap", ("torch", "transformers", "peft", "bitsandbytes", "flask", "datasets", "pandas", "numpy")),
        ("p2pfed.api", ("torch", "transformers", "peft", "bitsandbytes", "flask", "datasets", "pandas", "numpy")),
        ("p2pfed.cli.main", ("torch", "transformers", "peft", "bitsandbytes", "flask", "libp2p", "trio", "numpy")),
        ("p2pfed.sim", ("torch", "libp2p", "trio")),
    ],
)
def test_imports_are_light(module: str, heavy: tuple[str, ...]) -> None:
    code = f"import sys, {module}; print(*[name for name in {heavy!r} if name in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert run.stdout.split() == [], f"import {module} loads {run.stdout.strip()}"


def test_no_machine_paths_or_registry_hosts() -> None:
    private = re.compile(r"(/wor[k]/|/far[m]/|/\.librar[y]|index-ur[l]|https?://[^ )]*/simpl[e]|/roo[t]/)")
    for path in TEXTS:
        text = path.read_text(errors="ignore")
        found = private.search(text)
        assert found is None, f"{relative(path)} names {found.group(0) if found else ''}"


def test_docs_links_lead_somewhere() -> None:
    for path in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *ROOT.glob("*/README.md")]:
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", path.read_text()):
            if not target.startswith(("http://", "https://", "mailto:")):
                assert (path.parent / target).exists(), f"{relative(path)} links to {target}, which is not there"
