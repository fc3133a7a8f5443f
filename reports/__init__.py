"""From result folders to a page: tables, figures and one self-contained HTML file.

In reading order: `results` (folders -> checked cells), `paper` (names, published facts, what each table needs),
`verdicts` (sentences that follow from the numbers), `tables`, `figure_data` (tidy frames), `figures` (frames ->
drawings), `page` (HTML), `render` (the command). Nothing here imports torch, MLflow or the method itself.
"""
