"""A task, and how its answers are spelt."""

from offapi.task.task import Example, Task

__all__ = ["Example", "Task"]
