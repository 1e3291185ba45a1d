"""A report for a notebook: in Jupyter, a cell that ends with `r` shows this table; here it is written to a file."""

import sys

import sandcell


def main(file: str) -> None:
    r = sandcell.run(["sh", "-c", "echo a line; id; exit 3"], capture_output=True, text=True, timeout="10s")
    with open(file, "w", encoding="utf-8") as page:
        page.write(f"<!doctype html><meta charset=utf-8><title>{r.outcome}</title>{r._repr_html_()}")
    print(f"{file}: {r.outcome}")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "report.html")
