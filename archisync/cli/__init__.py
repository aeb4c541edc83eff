"""The command line: `archisync NOUN VERB`, and a few verbs that people type all day. One noun a module.

A command parses its arguments, connects, calls one function of a lower wing and shows the result; it decides nothing. At the top, these
modules import only typer and the standard library (a test guards it); psycopg, redis, rq and rich are imported where they are used.
"""
