"""From result folders to a report: tables, figures, one self-contained HTML file, Markdown and LaTeX.

In reading order; each file and folder imports only what is listed above it. Of the rest of this project the report imports
tcn.files alone, and nothing here loads torch or MLflow.

read          files -> checked contents -> the runs of a suite
wording       lists, counts and signed numbers in sentences
naming        names for people
published     published numbers with their sources
paper         what each of the paper's tables needs, and the variants that stand for its rows
lint          published numbers that contradict their own rules
figure_kinds  names and order of the figures
stats         intervals, tests, and sentences that follow from the numbers
tables        tables by subject; the paper's claims, judged
figures       tidy frames and their drawings
render        what is told in which order, and the files it is written to
"""
