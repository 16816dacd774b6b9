"""The report that an export writes beside its bundle: the page alone, as the bundle holds its data. Torch-free."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ...exporter.core.bounds import SHOWN
from ...exporter.core.errors import VitrimError
from ...exporter.core.files import atomic_write
from ...exporter.runtime.bundles.place import refuse_inside
from ...exporter.runtime.outputs import check_output
from .write import PAGE, page_of, refuse_no_page

_INSTEAD = "move it, or give --no-report (in Python: report=False)"


@dataclass(frozen=True)
class PageBeside:
    """A page of a bundle that is still to be made.

    Attributes:
        path: of the file.
        folder: of the bundle.
        inputs: by what they are, files and folders that the export reads.
    """

    path: Path
    folder: Path
    inputs: Mapping[str, Path]

    def check(self) -> None:
        """Refuse a place that is not the export's to write; a report there is replaced.

        Raises:
            InputError: something else is there, the name is no page's, or it lies in a bundle.
            EnvironmentLackError: the folder cannot be written.
        """
        refuse_no_page(self.path)
        refuse_inside(self.path, self.folder)
        check_output(self.path, PAGE, inputs=self.inputs, instead=_INSTEAD)

    def write(self) -> str | None:
        """Write the page of the bundle that was published.

        Returns:
            why that cannot be, and what to do: the bundle is whole all the same. None: it is written.
        """
        try:
            text = page_of(self.folder, SHOWN)
            self.check()  # much may have happened meanwhile
            atomic_write(self.path, text)
        except VitrimError as error:
            return f"not written: {error}; later: vitrim report {self.folder} -o {self.path}"
        return None


def page_beside(
    folder: Path, report: str | os.PathLike[str] | bool | None, inputs: Mapping[str, Path]
) -> PageBeside | None:
    """The page that an export is asked for.

    Args:
        folder: of the bundle, from the root on.
        report: True: the folder's name with .html, beside it; False or None: none; else the file.
        inputs: see `PageBeside`.

    Raises:
        InputError, EnvironmentLackError: see `PageBeside.check`.
    """
    if report is None or report is False:
        return None
    page = folder.with_name(f"{folder.name}.html") if report is True else Path(os.path.abspath(report))
    found = PageBeside(page, folder, inputs)
    found.check()
    return found
