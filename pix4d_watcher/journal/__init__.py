"""The journal: every durable fact, changed only by verbs of one transaction each.

`database` opens it, `tables` says what is kept, the verbs stand in `folders`, `projects`, `effects`, `uploads`,
`results`, `people` and `service`, and `views` only reads. Nothing here touches the network or a drop directory.
"""
