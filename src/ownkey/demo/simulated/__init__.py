"""The parts of the demo's simulated AI provider; ``ownkey.demo.simulated_provider`` puts them together and runs them.

``companies``  the providers it plays, one row each: paths, models, accepted keys
``keys``       whose key is it, and what may it do (keys that are refused, poor, limited or slow)
``model``      the model itself: counts tokens by one rule and writes answers that depend on the question only
``schemas``    plausible values for a JSON schema, for tool calls and structured answers
``pictures``   a small PNG for a prompt
``wire``       what an endpoint reads and returns
``openai``, ``responses``, ``anthropic``, ``gemini``   the endpoints, in each provider's own words

Nothing here knows the rest of Ownkey: it is the world outside, as far as the gateway can tell.
"""
