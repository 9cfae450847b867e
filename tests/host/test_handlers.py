"""A handler whose module surely has no such function is refused before anything runs; in doubt, nothing is said."""

from pathlib import Path

import pytest

from esm.errors import OperatorNeeded
from esm.host.handlers import check_handler
from tests.host.conftest import Here

FOUND = [
    "def handler(event, context): ...",
    "async def handler(event, context): ...",
    "handler = lambda event, context: None",
    "class handler: ...",
    "from elsewhere import handler",
    "from elsewhere import other as handler",
    "import handler",
    "try:\n    pass\nfinally:\n    def handler(event, context): ...",
    "def install():\n    global handler\n    handler = print",
    "[handler := print]",
]
UNDECIDED = [
    "from elsewhere import *",
    "def __getattr__(name): ...",
    "globals()['hand' + 'ler'] = print",
    "import sys\nsetattr(sys.modules[__name__], 'handler', print)",
    "exec('def handler(event, context): ...')",
    "type handler[T] = print +",
    "print 'another Python'",
    "\0",
    "x = " + "(" * 5000 + ")" * 5000,
    "def other(): ...\n" + "#" * 1024 * 1024,
]


@pytest.mark.parametrize("source", [*FOUND, *UNDECIDED], ids=lambda source: source[:30])
def test_a_handler_that_is_there_or_may_be_is_let_pass(source: str, here: Here) -> None:
    check_handler(here.function(source))


@pytest.mark.parametrize("source", ["def main(event, context): ...", "'\\d'\ndef main(event, context): ..."])
def test_a_handler_that_no_name_of_its_module_bears_is_refused_with_what_there_is(source: str, here: Here) -> None:
    with pytest.raises(OperatorNeeded, match=r"Handler 'app.handler' needs 'handler' in .*app.py, which defines main:"):
        check_handler(here.function(source))
    with pytest.raises(OperatorNeeded, match="which defines no function"):
        check_handler(here.function("raise SystemExit"))


def test_a_module_that_is_no_text_or_stands_twice_is_let_pass(here: Here) -> None:
    function = here.function("def main(): ...")
    folder = Path(function.code)
    (folder / "app").mkdir()
    (folder / "app" / "__init__.py").write_text("")
    check_handler(function)
    (folder / "app.py").unlink()
    with pytest.raises(OperatorNeeded, match="__init__"):
        check_handler(function)
    (folder / "app" / "__init__.py").unlink()
    check_handler(function)
    (folder / "app.so").write_bytes(b"")
    check_handler(function)
