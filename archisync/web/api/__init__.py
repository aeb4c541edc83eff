"""`/api/v1`: what the command line shows and does, as JSON. One table of routes (`table`) makes the routing, the checks of what is sent,
and the OpenAPI document."""
