"""From result folders to a report: tables, figures, one self-contained HTML file, Markdown and LaTeX.

In reading order; each file and room imports only those listed above it. Of
this project it imports only tcn.files; nothing here loads torch or MLflow.

read          files -> checked contents -> the cells of a suite
paper         names, published facts, and what each of the paper's tables needs
lint          published numbers that contradict their own rules
figure_kinds  names and order of the figures
stats         intervals, tests, and sentences that follow from the numbers
tables        tables by subject; the paper's claims, judged
figures       tidy frames and their drawings
render        what is told in which order, and the files it is written to
"""
