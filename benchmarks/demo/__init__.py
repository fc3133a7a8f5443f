"""Draw and search: a page on this machine's loopback address that shows what finished runs find.

drawing   strokes -> a picture as training sketches look
pictures  what may be shown and searched: lists of files, asked for by number; a folder of one's own
answers   finished runs, reopened -> ranked photos for a drawing or a query sketch
server    the same over HTTP; the page lies in page/
command   the command
found     how often drawings of others find their class: a measurement without a page
"""
