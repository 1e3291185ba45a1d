"""Every relative link of a document leads to a file that is there, and every chapter of the book is in its table."""

import re
import subprocess
import sys
from pathlib import Path

TOP = Path(__file__).resolve().parents[1]
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)(?:\s+\"[^\"]*\")?\)")


def documents() -> list[Path]:
    skipped = {"target", ".git", "node_modules"}
    return sorted(path for path in TOP.rglob("*.md") if not skipped & set(path.relative_to(TOP).parts))


def headings(path: Path) -> set[str]:
    """The anchors that GitHub and mdBook make of headings."""
    found: set[str] = set()
    for line in prose(path.read_text()).splitlines():
        if heading := re.match(r"#+ +(.*)", line):
            text = re.sub(r"[^\w\- ]", "", heading[1].strip().lower()).replace(" ", "-")
            found.add(text)
    return found


def prose(text: str) -> str:
    """Without blocks and spans of code."""
    text = re.sub(r"^( *)(```|~~~).*?^ *\2", "", text, flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"`[^`\n]*`", "", text)


def broken(path: Path) -> list[str]:
    wrong = []
    for link in LINK.findall(prose(path.read_text())):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        goal = (path.parent / name) if name else path
        # The forge's own pages, such as a private report of a fault.
        if name.startswith("../../security"):
            continue
        if not goal.exists():
            wrong.append(f"{path.relative_to(TOP)}: {link}: there is no such file")
        elif anchor and goal.suffix == ".md" and anchor not in headings(goal):
            wrong.append(f"{path.relative_to(TOP)}: {link}: {goal.name} has no such heading")
    return wrong


def not_in_the_book() -> list[str]:
    summary = TOP / "docs" / "SUMMARY.md"
    chapters = {(summary.parent / link).resolve() for link in LINK.findall(summary.read_text())}
    return [
        f"docs/{path.name} is not in docs/SUMMARY.md"
        for path in sorted(summary.parent.glob("*.md"))
        if path != summary and path.resolve() not in chapters
    ]


def check(name: str, wrong: list[str]) -> bool:
    print(f"test {name} ... {'FAILED' if wrong else 'ok'}")
    print(*wrong, sep="\n", end="\n" if wrong else "")
    return not wrong


def main() -> int:
    files = documents()
    assert len(files) > 10, "too few documents were found: is this the right directory?"
    answers = [
        check("relative_links_lead_to_files", [line for path in files for line in broken(path)]),
        check("every_document_is_a_chapter_of_the_book", not_in_the_book()),
    ]
    passed = sum(answers)
    print(f"test result: {'ok' if all(answers) else 'FAILED'}. {passed} passed; {len(answers) - passed} failed; 0 ignored")
    return 0 if all(answers) else 1


if __name__ == "__main__":
    sys.exit(main())
