"""``python -m slurm_gov.cli.manual man FOLDER`` writes the manual pages, ``docs FOLDER`` the reference pages."""

from __future__ import annotations

from pathlib import Path

import click

from slurm_gov.cli.install import folder_of
from slurm_gov.cli.manual.man import manual_pages
from slurm_gov.cli.manual.markdown import reference_pages


@click.command()
@click.argument("what", type=click.Choice(["man", "docs"]))
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
def main(what: str, folder: Path) -> None:
    """Write the manual pages, or the reference pages of the documentation, into FOLDER."""
    if what == "man":
        pages = manual_pages((folder_of("etc") / "job_submit_gov.conf").read_text())
    else:
        pages = reference_pages()
    for name, text in pages.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    click.echo(f"{len(pages)} pages in {folder}")


if __name__ == "__main__":
    main()
