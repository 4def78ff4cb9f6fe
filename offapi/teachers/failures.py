"""What to do about documents without an answer, by the reason that the labels file has."""

from __future__ import annotations

AGAIN = "Then run the same command with --retry-failed."
SERVERS = {
    "ollama": ("Ollama", 11434),
    "lmstudio": ("LM Studio", 1234),
    "llama-server": ("llama-server", 8080),
    "llama.cpp": ("llama-server", 8080),
    "llamacpp": ("llama-server", 8080),
    "vllm": ("vLLM", 8000),
}


def failure_step(reason: str, teacher: str, max_tokens: int) -> str:
    """Return the next step for documents that failed for `reason`."""
    kind = failure_kind(reason)
    if kind == "truncated":
        return (
            f"The answers did not end within the task's max_answer_tokens = {max_tokens}. Raise it"
            f" in the task (thinking counts too). {AGAIN}"
        )
    if kind == "unreachable":
        return (
            f"Nothing answers at {teacher.partition('#')[0]}. Start the server there, such as"
            " `ollama serve` (http://127.0.0.1:11434/v1) or `llama-server -m MODEL.gguf`"
            f" (http://127.0.0.1:8080/v1), or correct --teacher. {AGAIN}"
        )
    if kind == "timed out":
        return f"Raise --timeout, or lower --concurrency. {AGAIN}"
    if kind in ("refused", "content_filter"):
        return "The teacher declines these documents: choose another one for them."
    if kind in ("empty answer", "no content"):
        return (
            f"The teacher wrote nothing: a thinking model may have used up max_answer_tokens ="
            f" {max_tokens}. {AGAIN}"
        )
    return f"Fix the cause. {AGAIN}"


def failure_kind(reason: str) -> str:
    """Return a reason without its details."""
    return reason.split(":")[0].split(" (")[0]


def teacher_step(spec: str) -> str:
    """Return the next step for a teacher that is named in a way offapi does not know."""
    kinds = "local:NAME (a model in the store), http://HOST:PORT/v1 (an endpoint) or recorded."
    name, _, model = spec.partition(":")
    if name.lower() in SERVERS:
        server, port = SERVERS[name.lower()]
        chosen = f" --model {model}" if model else ""
        address = f"http://127.0.0.1:{port}/v1{chosen}"
        return f"{server} answers at an address: write {address}. Teachers are {kinds}"
    if model.partition("/")[0].isdecimal():
        address = f"http://{spec.removesuffix('/v1')}/v1"
        return f"An address begins with http://: write {address}. Teachers are {kinds}"
    return f"Write {kinds}"
