"""The report's files.

provenance  runs, recomputed and described
explorer    every query of every run, to be looked at
story       what is told, in which order
page        the HTML page, from the templates and the style in templates/
leaderboard  sortable tables on a page of their own
documents   Markdown and LaTeX
staging     files are written aside, and put in place together
command     `python reports/render.py`
"""
