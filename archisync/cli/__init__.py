"""The command line: `archisync NOUN VERB`, plus the few verbs that people type all day. One module a noun.

A command parses its arguments, connects, calls one function of the core and shows the result; it decides nothing. Only typer and the
standard library are imported at the top of these modules (a test guards it): psycopg, redis, rq and rich load where they are used.
"""
