"""Tasks: how a task file is loaded, and how its answers are written."""

from offapi.task.example import Example
from offapi.task.load import load_task
from offapi.task.task import Grade, Task

__all__ = ["Example", "Grade", "Task", "load_task"]
