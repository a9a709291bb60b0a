"""Whether a run goes on, is about to, has ended well, or needs somebody.

`evidence` reads what there is to know, `verdict` judges it without looking anywhere else,
`describe` puts it into words, `alert` tells of changes, `install` sets up the regular check.
"""
