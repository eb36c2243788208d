"""The command as a whole."""

from __future__ import annotations

import subprocess
import sys

HEAVY = ("torch", "optuna", "ray", "sqlalchemy", "numpy", "pydantic")


def test_a_command_that_opens_no_store_imports_next_to_nothing() -> None:
    code = (
        "import sys; from rank_search.cli.main import app\n"
        "app(['--help'], standalone_mode=False)\n"
        f"print([name for name in {HEAVY} if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "front" in result.stdout
    assert result.stdout.splitlines()[-1] == "[]"
