"""Print how many mutants of each module the tests killed, after `mutmut run`; and with `--survivors`, the others.

A mutant that makes a test run into mutmut's time limit counts as killed: it loops forever.
"""

import json
import sys
from pathlib import Path

from mutmut.stats import status_by_exit_code

KILLED = {"killed", "timeout", "caught by type check"}
MUTANTS = Path("mutants")


def main() -> None:
    """Print a table in Markdown, with a row for each module, and the score of all of them."""
    counts: dict[str, tuple[int, int]] = {}
    survivors: list[str] = []
    for path in sorted(MUTANTS.rglob("*.py.meta")):
        results = json.loads(path.read_text())["exit_code_by_key"]
        statuses = {mutant: status_by_exit_code[code] for mutant, code in results.items() if code is not None}
        if statuses:
            alive = [mutant for mutant, status in statuses.items() if status not in KILLED]
            module = ".".join(path.relative_to(MUTANTS / "heksher_client" / "_core").parts).removesuffix(".py.meta")
            counts[module] = len(statuses) - len(alive), len(statuses)
            survivors += alive
    if "--survivors" in sys.argv:
        sys.stdout.writelines(f"{mutant}\n" for mutant in survivors)
        return
    counts["all"] = sum(killed for killed, _ in counts.values()), sum(total for _, total in counts.values())
    sys.stdout.write("| module | mutants | killed |\n| --- | --- | --- |\n")
    for module, (killed, total) in counts.items():
        sys.stdout.write(f"| {module} | {total} | {killed / max(total, 1):.1%} |\n")


if __name__ == "__main__":
    main()
