"""The pages for browsers: rendered here from what the commands show, with templates in `templates`. Each works without script.

What a page shows is in its address; what it does is a form that posts to `/act/…` and leads back to the page.
"""
