"""The pages: sign-in, the assistant, and settings.

Owns routes, forms, templates, static files, and the way from a cookie to an ``Actor``. Does not own a rule or
a query: a page calls a domain function and shows what it returns or refuses.

Always true: every form that changes something carries a CSRF token and ends in a redirect; no page loads
anything from another host; what a role may not do is said in words, not by a dead control.
"""
