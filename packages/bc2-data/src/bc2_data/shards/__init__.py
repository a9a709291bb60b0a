"""One job in parts that any process can encode, in any order, and that a later run can take up.

`plan` cuts the inputs, `tasks` is the work on one shard, `columns` the files that it leaves,
`joining` puts the shards together in order, `workspace` is the folder where all of it stands until
the outputs are whole.
"""
