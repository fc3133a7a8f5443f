"""From files of a result folder to checked contents.

escaping  text fit to show, in HTML, Markdown and CSV
files     JSON, tables, arrays and pictures, read with bounds
suite     result folders -> cells, measured values, a suite
"""
