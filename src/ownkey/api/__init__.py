"""The management API under ``/api/v1``: what the pages do, as JSON, by API token.

Owns its routes, its request and reply models and the OpenAPI document. Does not own a rule: each route reads its
input, calls the domain function that the page calls, and gives the answer a shape. Errors are problem documents
(RFC 9457).

Always true: what a role may not do on a page it may not do here, and a token's scopes only ever take away.
"""
