
import offapi
from offapi.checks import fits_schema, in_source, is_json

task = offapi.Task(
    name="letters",
    instructions="Name the shop.",
    schema={"type": "object", "properties": {"shop": {"type": "string"}}, "required": ["shop"]},
    checks={"json": (is_json, 1.0), "schema": (fits_schema, 1.0), "source": (in_source, 1.0)},
    match={"shop": "text"},
    max_answer_tokens=20,
)
