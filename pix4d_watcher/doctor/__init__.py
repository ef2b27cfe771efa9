"""Looks at all that a service needs, one finding per check, each with what to do; changes nothing unless asked to.

May look into every room below it; decides about the outcome of a check, never about how it is shown.
"""
