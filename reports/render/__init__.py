"""The report's files.

provenance  runs, recomputed and described
story       what is told, in which order
page        the HTML page
documents   Markdown and LaTeX
command     `python reports/render.py`
"""
