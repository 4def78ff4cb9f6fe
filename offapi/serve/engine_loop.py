"""An engine in a thread of its own, asked from the server's event loop.

The thread makes, uses and closes the engine, because MLX's arrays belong to the thread that made
them. Each step's tokens go to the requests that wait for them in one call of the event loop. Left
out: what the tokens mean (`offapi.serve.text_stream`).
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from types import TracebackType
from typing import Any, Self, TypeVar

from offapi.engine import Engine, NewToken, RowError, RowRequest
from offapi.model_spec import DType
from offapi.serve.errors import busy

T = TypeVar("T")
Work = Callable[[Engine], None]


class RowStream:
    """The tokens of some rows as they are drawn; leaving the block cancels what is unfinished.

    A token's `row` is the index of its request.
    """

    def __init__(self, loop: EngineLoop, requests: Sequence[RowRequest]) -> None:
        self._loop, self._requests = loop, tuple(requests)
        self._tokens: asyncio.Queue[list[NewToken] | Exception] = asyncio.Queue()
        self._events = asyncio.get_running_loop()
        self._unfinished = set(range(len(self._requests)))
        self._ready: deque[NewToken] = deque()
        self._numbers: dict[int, int] = {}  # the engine's number -> index; the thread's own
        self._over = False

    async def __aenter__(self) -> Self:
        self._loop.begin(self, self._requests)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._loop.end(self, len(self._requests), unfinished=bool(self._unfinished))

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> NewToken:
        while not self._ready:
            if not self._unfinished:
                raise StopAsyncIteration
            got = await self._tokens.get()
            if isinstance(got, Exception):
                raise got
            self._ready.extend(token for token in got if token.row in self._unfinished)
        token = self._ready.popleft()
        if token.finish is not None:
            self._unfinished.discard(token.row)
        return token

    def cancel(self, index: int) -> None:
        """End one row early: no more tokens of it come."""
        self._unfinished.discard(index)
        self._ready = deque(token for token in self._ready if token.row != index)
        self._loop.post(lambda engine: self._cancel(engine, index))

    def insert(self, engine: Engine) -> None:
        """Insert the rows. Called in the engine's thread."""
        if self._over:
            return
        try:
            numbers = engine.insert(self._requests)
        except Exception as error:
            self.give(error)
            return
        self._numbers = {number: index for index, number in enumerate(numbers)}
        self._loop.streams.update(dict.fromkeys(numbers, self))

    def drop(self, engine: Engine) -> None:
        """Cancel all rows. Called in the engine's thread."""
        self._over = True
        for index in list(self._numbers.values()):
            self._cancel(engine, index)

    def _cancel(self, engine: Engine, index: int) -> None:
        for number in [n for n, i in self._numbers.items() if i == index]:
            del self._numbers[number]
            if self._loop.streams.pop(number, None) is not None:
                engine.cancel(number)

    def take(self, tokens: Iterable[NewToken]) -> list[NewToken]:
        """Return the tokens of rows that are not cancelled, by index. Called in the thread."""
        named = [(self._numbers.get(token.row), token) for token in tokens]
        return [token._replace(row=index) for index, token in named if index is not None]

    def give(self, what: list[NewToken] | Exception) -> None:
        """Hand tokens, or why there are none, to the event loop. Called in the thread."""
        with suppress(RuntimeError):  # the event loop is closed: nobody waits any more
            self._events.call_soon_threadsafe(self._tokens.put_nowait, what)


class EngineLoop:
    """One engine, made by `make` in its own thread, for at most `room` rows at a time.

    `dtype` is what it computes in.
    """

    def __init__(
        self,
        make: Callable[[], tuple[Engine, Callable[[], None]]],
        room: int,
        dtype: DType = "float32",
    ) -> None:
        self._make, self.room, self.dtype = make, room, dtype
        self.open_rows = 0  # rows that requests hold, waiting or live
        self.steps = 0  # of the engine
        self.streams: dict[int, RowStream] = {}  # of the thread alone
        self._inbox: deque[Work] = deque()
        self._wake = threading.Condition()
        self._stopping = False
        self._made: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, name="offapi-engine", daemon=True)

    def start(self) -> None:
        """Make the engine, and raise what making it raises."""
        self._thread.start()
        self._made.result()

    def rows(self, requests: Sequence[RowRequest]) -> RowStream:
        """Return the stream of these rows, to be entered.

        Entering raises ApiError (429) where the engine has no room for them.
        """
        return RowStream(self, requests)

    def begin(self, stream: RowStream, requests: Sequence[RowRequest]) -> None:
        """Count the rows of a stream and insert them. Called in the event loop."""
        with self._wake:
            if self.open_rows + len(requests) > self.room:
                raise busy("The server has as many requests as it takes at a time.")
            self.open_rows += len(requests)
        self.post(stream.insert)

    def end(self, stream: RowStream, rows: int, *, unfinished: bool) -> None:
        """Count the rows of a stream no longer, and cancel them. Called in the event loop."""
        with self._wake:
            self.open_rows -= rows
        if unfinished:
            self.post(stream.drop)

    async def call(self, work: Callable[[Engine], T]) -> T:
        """Return what `work` returns, done between two steps, or raise what it raises."""
        return await asyncio.wrap_future(self.submit(work))

    def submit(self, work: Callable[[Engine], T]) -> Future[T]:
        """Do `work` between two steps."""
        future: Future[T] = Future()

        def do(engine: Engine) -> None:
            try:
                future.set_result(work(engine))
            except Exception as error:
                future.set_exception(error)

        self.post(do)
        return future

    def post(self, work: Work) -> None:
        """Have `work` done between two steps."""
        with self._wake:
            self._inbox.append(work)
            self._wake.notify()

    @property
    def live_rows(self) -> int:
        """The rows that the engine has. It is `open_rows` within a step."""
        return len(self.streams)

    def fail(self, error: Exception) -> None:
        """Drop all rows between two steps; those who wait for them get the error."""
        self.post(lambda engine: self._fail(engine, error))

    def close(self) -> None:
        """Drop all rows, free the engine and end the thread."""
        with self._wake:
            self._stopping = True
            self._wake.notify()
        self._thread.join()

    def _run(self) -> None:
        try:
            engine, free = self._make()
        except BaseException as error:
            self._made.set_exception(error)
            return
        self._made.set_result(None)
        try:
            while self._work(engine):
                self._step(engine)
        finally:
            engine.close()
            free()

    def _work(self, engine: Engine) -> bool:
        """Do what was posted, waiting for it where nothing decodes; return False to stop."""
        while True:
            with self._wake:
                while not self._inbox and engine.idle and not self._stopping:
                    self._wake.wait()
                if self._stopping:
                    return False
                todo, self._inbox = self._inbox, deque()
            for work in todo:
                work(engine)
            if not engine.idle:
                return True

    def _step(self, engine: Engine) -> None:
        try:
            drawn = engine.step()
        except RowError as error:
            stream = self.streams.pop(error.row, None)
            if stream is not None:
                stream.give(error.cause)
            return
        except Exception as error:
            self._fail(engine, error)
            return
        self.steps += 1
        by_stream: dict[RowStream, list[NewToken]] = {}
        for token in drawn:
            stream = self.streams.get(token.row)
            if stream is not None:
                by_stream.setdefault(stream, []).append(token)
        for token in drawn:
            if token.finish is not None:
                self.streams.pop(token.row, None)
        for stream, tokens in by_stream.items():
            stream.give(stream.take(tokens))

    def _fail(self, engine: Engine, error: Exception) -> None:
        """Give every request the error, and begin afresh."""
        streams: Any = dict.fromkeys(self.streams.values())
        self.streams.clear()
        engine.close()
        for stream in streams:
            stream.give(error)
