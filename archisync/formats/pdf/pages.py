"""The ruled table of each page of a PDF, as rows of cell texts. Only the child process of `archisync.formats.pdf.table` imports this."""

from collections.abc import Iterator
from contextlib import closing

from archisync.base.errors import ExportError
from archisync.formats.pdf.cells import Cells, Rows
from archisync.formats.pdf.grid import find_grid
from archisync.formats.pdf.pdfium import Document


def read_pages(path: str) -> Iterator[Rows]:
    """The rows of each page's table, the header row first. Raises ExportError when the file or a page can't be read.

    PDFium keeps each page's compressed contents until the end, so memory grows up to the size of the file.
    """
    with closing(Document(path)) as document:
        if not len(document):
            raise ExportError("the PDF has no pages", hint="print the report again")
        for number in range(len(document)):
            yield _rows(document, number)


def _rows(document: Document, number: int) -> Rows:
    with document.page(number) as page:
        xs, ys = find_grid(page.size, tuple(page.boxes), tuple(page.paths))
        if len(xs) > 1 and len(ys) > 1:
            return Cells(xs, ys, page.characters).rows(page.texts)
    raise ExportError(
        f"page {number + 1} of the PDF has no ruled table",
        hint="print the report as a grid, with lines between its cells and as text, not as an image",
    )
