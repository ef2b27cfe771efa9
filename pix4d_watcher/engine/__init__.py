"""The engine: takes each project one step further at a time, and makes sure that nothing happens twice.

`effects` guards the remote calls, `steps`, `registering`, `starting` and `fetching` hold one function per state,
`transfer` is the shared upload pool, `watch` is one scanner per drop directory, `loop` picks due projects, `world`
tells a broken link from a broken project. Only `service` wires them.
"""
