"""From files of a result folder to checked contents.

escaping  text fit to show, in HTML, Markdown and CSV
files     JSON, tables, arrays and pictures, read with bounds
schema    what must stand in each file
runs     one folder -> a checked run
means     their means again, from per-query values
comparable  which runs may share a table
pictures  small pictures of queries and photos
measured  one number over seeds, and paired differences
suite     all folders -> a suite and its measured values
joined    several output folders -> one suite
bundles     runs that somebody else sent in one file
"""
