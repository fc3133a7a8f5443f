"""From result folders to a report: tables, figures, one self-contained HTML file, Markdown and LaTeX.

In reading order: `escaping` (text fit to show), `reading` (files -> checked contents), `results` (folders -> checked cells),
`paper` (names, published facts, what each table needs), `verdicts` (sentences that follow from the numbers), `uncertainty`
(intervals and tests on arrays), `tables`, `ablations`, `protocols`, `ledger`, `extension` (tables by subject), `claims` (the
paper's claims, judged), `figure_kinds`, `figure_data`, `feature_data` (tidy frames), `figure_style`, `figures`,
`feature_figures` (frames -> drawings), `provenance`, `lint`, `story` (what is told, in which order), `page` (HTML), `documents`
and `latex` (Markdown, LaTeX), `writing` (whole files or none), `render` (the command). Nothing here imports torch, MLflow or
the method itself.
"""
