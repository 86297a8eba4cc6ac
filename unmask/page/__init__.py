"""The page: a folder of runs in one HTML file that opens from the disk and asks no server for anything.

    build      records -> index.html
    boards     the board of each task
    data       one JSON of plain data for charts, settings and answers
    tables     a section: a DataFrame as cells, and as CSV
    answers    answers as the page replays them
    pieces     the text of each token
    colours    the figures' colours on a dark page

Reads records alone, and of a model its tokenizer at most. Numbers, intervals and colours are those of the
figures.
"""
