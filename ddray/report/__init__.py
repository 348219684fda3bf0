"""From measurements to what people read: one page per sweep. Nothing here computes a measurement.

    comparable.py        which points may be compared: blocks, rows and cells, and the refusal to mix others
    repeats.py           one number of several points whose images are partly the same
    leak_differences.py  which method leaks more, on the same images and seeds
    audits.py            membership inference as in the paper's Tables 1 and 2, across blocks
    table.py             a table made of columns, as Markdown, CSV, LaTeX and HTML
    page.py              headings, lines, lists, tables and pictures, one after the other; as Markdown
    words.py             names and numbers as people read them, in percent
    beside_paper.py      our cells with the paper's below them
    drawing.py           how figures look: colours, panels, files
    maps.py              t-SNE maps as figures
    figures/             the figures, each a record with its tidy rows and how they are drawn
    sections/            the parts of a report, each a record with its facts and what is printed of them
    report.py            the loop over them: as JSON types in fractions (``ddray report --json``), and as a page
    html.py              the page as one HTML file
    written.py           the files of a report in the results folder

This file imports nothing.
"""
