"""What is read of a request's JSON: the members that ``request_fields`` and ``ceilings`` act on, or look at.

Decoded shapes stand in modules of their own, which are never compiled: their library makes them at run time.
"""

from __future__ import annotations

from typing import Any

import msgspec

_NOTHING = msgspec.Raw(b"")


class Section(msgspec.Struct):
    """Members that cap or multiply the output, wherever they stand; any JSON value at first."""

    max_tokens: Any = None
    max_completion_tokens: Any = None
    max_output_tokens: Any = None
    max_tokens_to_sample: Any = None
    n: Any = None
    best_of: Any = None
    maxOutputTokens: Any = None
    candidateCount: Any = None
    candidate_count: Any = None
    sampleCount: Any = None
    sample_count: Any = None
    responseSchema: msgspec.Raw = _NOTHING
    responseJsonSchema: msgspec.Raw = _NOTHING


class Body(Section):
    """The top of a request body."""

    model: Any = None
    agent: Any = None
    stream: Any = None
    stream_options: Any = None
    background: Any = None
    deferred: Any = None
    thinking: Any = None
    prompt: msgspec.Raw = _NOTHING
    prediction: msgspec.Raw = _NOTHING
    # What the provider adds instructions for.
    tools: msgspec.Raw = _NOTHING
    functions: msgspec.Raw = _NOTHING
    response_format: msgspec.Raw = _NOTHING
    output_format: msgspec.Raw = _NOTHING
    output_config: msgspec.Raw = _NOTHING
    text: msgspec.Raw = _NOTHING
    # What may answer instead.
    models: msgspec.Raw = _NOTHING
    # What it keeps, or looks up, and reads besides.
    previous_response_id: Any = None
    previous_interaction_id: Any = None
    conversation: Any = None
    container: Any = None
    cachedContent: Any = None
    cached_content: Any = None
    extra_body: Any = None
    google: Any = None
    agent_id: Any = None
    input: msgspec.Raw = _NOTHING
    inputs: msgspec.Raw = _NOTHING
    mcp_servers: Any = None
    plugins: Any = None
    search_parameters: Any = None
    web_search_options: Any = None
    enable_search: Any = None


class SectionedBody(Body):
    """The top of a request body whose limits stand in an object of their own (Gemini's)."""

    generationConfig: Section | None = None
    generation_config: Section | None = None
    parameters: Section | None = None


class OtherSection(Section):
    """Amazon's, Cohere's and Ollama's names for the same. Apart, so that nobody else's requests pay for them."""

    maxTokens: Any = None
    max_new_tokens: Any = None
    maxTokenCount: Any = None
    numberOfImages: Any = None
    num_predict: Any = None


class OtherBody(SectionedBody):
    """The top of a request body of Amazon's, Cohere's or Ollama's."""

    maxTokens: Any = None
    max_gen_len: Any = None
    numResults: Any = None
    num_generations: Any = None
    inferenceConfig: OtherSection | None = None
    textGenerationConfig: OtherSection | None = None
    imageGenerationConfig: OtherSection | None = None
    options: OtherSection | None = None
    toolConfig: msgspec.Raw = _NOTHING
    conversation_id: Any = None
    connectors: Any = None


class ToolConfig(msgspec.Struct):
    """Where Bedrock's requests have their tools."""

    tools: msgspec.Raw = _NOTHING


class Item(msgspec.Struct):
    """An item of the input of OpenAI's Responses. One of an id alone stands for an earlier one that OpenAI keeps."""

    type: Any = None
    role: Any = None
    id: Any = None
