"""Where Google's Gemini API reports usage: ``usageMetadata``, and ``usage`` of the newer interactions.

Thoughts stand beside the candidates and tool-use prompts beside the prompt; cached input is inside the prompt.
"""

from __future__ import annotations

from ownkey.gateway.dialects.counts import count, reconciled
from ownkey.gateway.dialects.gemini_documents import Chunk, Interaction, Metadata
from ownkey.gateway.dialects.reported import Reported


def _read_metadata(usage: Metadata, final: bool) -> Reported | None:
    prompt, tools = count(usage.prompt_token_count), count(usage.tool_use_prompt_token_count)
    candidates, thoughts = count(usage.candidates_token_count), count(usage.thoughts_token_count)
    total = count(usage.total_token_count)
    if prompt is None and candidates is None and total is None:
        return None
    incoming = None if prompt is None and tools is None else (prompt or 0) + (tools or 0)
    outgoing = None if candidates is None and thoughts is None else (candidates or 0) + (thoughts or 0)
    incoming, outgoing = reconciled(incoming, outgoing, total)
    cached = count(usage.cached_content_token_count)
    return Reported(incoming, outgoing, cached, None, thoughts, final=final)


def _read_interaction(usage: Interaction) -> Reported | None:
    written, thoughts = count(usage.total_output_tokens), count(usage.total_thought_tokens)
    prompt, tools = count(usage.total_input_tokens), count(usage.total_tool_use_tokens)
    total = count(usage.total_tokens)
    if prompt is None and written is None and total is None:
        return None
    incoming = None if prompt is None else prompt + (tools or 0)
    outgoing = None if written is None and thoughts is None else (written or 0) + (thoughts or 0)
    incoming, outgoing = reconciled(incoming, outgoing, total)
    return Reported(incoming, outgoing, count(usage.total_cached_tokens), None, thoughts, final=True)


def read_chunk(chunk: Chunk) -> Reported | None:
    """What one reply or chunk reports."""
    if chunk.usage_metadata is not None:
        ended = any(candidate.finish_reason is not None for candidate in chunk.candidates or ())
        return _read_metadata(chunk.usage_metadata, ended or chunk.prompt_feedback is not None)
    usage = chunk.usage or (chunk.interaction.usage if chunk.interaction is not None else None)
    if usage is not None:
        return _read_interaction(usage)
    if chunk.predictions:  # Vertex embeddings
        counts = [
            count(prediction.embeddings.statistics.token_count)
            for prediction in chunk.predictions
            if prediction.embeddings is not None and prediction.embeddings.statistics is not None
        ]
        if counts:
            return Reported(sum(number or 0 for number in counts), 0, final=True)
    return None
