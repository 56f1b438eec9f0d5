"""The wire formats: OpenAI, Anthropic, Gemini. One object each, satisfying ``dialect.Dialect``.

Owns where a format keeps model, limits and usage, and what its errors look like, so that an official SDK raises
its own exceptions. Does not translate between formats, and never holds a socket or a database.

Always true: cumulative usage is taken from the last report, never summed; an explicit zero is a zero.
"""
