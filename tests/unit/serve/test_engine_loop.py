"""The engine's thread, asked from an event loop, with a real engine of each backend."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import tiny_llama

from offapi.backend import Sampling, load
from offapi.engine import Engine, RowRequest, Words
from offapi.errors import BackendError
from offapi.model_spec import ModelSpec
from offapi.serve.engine_loop import EngineLoop
from offapi.serve.errors import ApiError

PROMPT = (5, 6, 7)


@pytest.fixture(scope="module")
def loop(tmp_path_factory: pytest.TempPathFactory, backend_name: str) -> Iterator[EngineLoop]:
    folder = tmp_path_factory.mktemp("model")
    tiny_llama.write_chat(folder)

    def make() -> tuple[Engine, Callable[[], None]]:
        backend = load(backend_name, ModelSpec(path=folder))
        return backend.engine(), backend.close

    loop = EngineLoop(make, room=4)
    loop.start()
    yield loop
    loop.close()


def row(tokens: int = 5, **options: object) -> RowRequest:
    return RowRequest(PROMPT, Sampling(tokens, stop_ids=()), **options)  # type: ignore[arg-type]


async def tokens_of(loop: EngineLoop, *requests: RowRequest) -> list[list[int]]:
    """Return the tokens of each request."""
    drawn: list[list[int]] = [[] for _ in requests]
    async with loop.rows(requests) as rows:
        async for token in rows:
            drawn[token.row].append(token.token)
    return drawn


def test_requests_get_their_own_tokens(loop: EngineLoop) -> None:
    async def both() -> tuple[list[list[int]], list[list[int]]]:
        return await asyncio.gather(tokens_of(loop, row(5), row(3)), tokens_of(loop, row(7)))

    (five, three), (seven,) = asyncio.run(both())
    assert [len(five), len(three), len(seven)] == [5, 3, 7]
    assert seven[:3] == three
    assert seven[:5] == five
    assert loop.open_rows == 0


def test_beyond_its_room_the_server_is_busy(loop: EngineLoop) -> None:
    async def crowd() -> ApiError:
        async with loop.rows([row(50)] * 3):
            with pytest.raises(ApiError) as refused:
                await tokens_of(loop, row(), row())
            assert len((await tokens_of(loop, row()))[0]) == 5
        return refused.value

    error = asyncio.run(crowd())
    assert (error.status, error.retry_after) == (429, 1)
    assert loop.open_rows == 0


def test_leaving_early_frees_the_rows(loop: EngineLoop) -> None:
    async def leave() -> tuple[bool, bool]:
        async with loop.rows([row(100_000), row(100_000)]) as rows:
            await anext(aiter(rows))
            busy = await loop.call(lambda engine: engine.idle)
        return busy, await loop.call(lambda engine: engine.idle)

    assert asyncio.run(leave()) == (False, True)
    assert not loop.streams


def test_a_cancelled_row_says_no_more(loop: EngineLoop) -> None:
    async def cancel() -> list[int]:
        left = []
        async with loop.rows([row(100_000), row(30)]) as rows:
            async for token in rows:
                if token.row == 0:
                    rows.cancel(0)
                left.append(token.row)
        return left

    left = asyncio.run(cancel())
    assert left.count(0) == 1
    assert left.count(1) == 30


class NothingAllowed:
    """A matcher that allows no token, which no engine can decode."""

    rank = 0

    def fill(self, words: Words) -> bool:
        words[:] = np.zeros_like(words)
        return True

    def accept(self, token: int) -> None:
        raise BackendError("never asked")


def test_a_row_that_fails_disturbs_no_other(loop: EngineLoop) -> None:
    async def fail() -> list[list[int]]:
        neighbour = asyncio.ensure_future(tokens_of(loop, row(40)))
        with pytest.raises(Exception, match="allow"):
            await tokens_of(loop, row(start=lambda sample: NothingAllowed()))
        return [*await tokens_of(loop, row(4)), *await neighbour]

    assert [len(each) for each in asyncio.run(fail())] == [4, 40]
    assert not loop.streams


def test_what_is_wrong_with_a_row_reaches_its_request(loop: EngineLoop) -> None:
    with pytest.raises(ValueError, match="adapter"):
        asyncio.run(tokens_of(loop, row(adapter="unknown")))
    assert loop.open_rows == 0


def test_an_engine_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    def make() -> tuple[Engine, Callable[[], None]]:
        raise BackendError("no engine here")

    with pytest.raises(BackendError, match="no engine"):
        EngineLoop(make, room=1).start()
