"""Draw and search: a page on this machine's loopback address that shows what finished runs find.

drawing   strokes -> a picture that looks like the training sketches
pictures  lists of picture files that may be shown and searched, addressed by number; a folder of the user's own photos
answers   finished runs, reopened -> ranked photos for a drawing or a query sketch
server    the answers over HTTP; the page lies in page/
command   the command
found     how often other people's drawings find their class: a measurement without the page
strip     a drawing as it grows and what is found for it, as a picture for the README
"""
