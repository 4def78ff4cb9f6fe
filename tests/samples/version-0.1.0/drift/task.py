
import offapi
from offapi import checks

def low(document, answer, context):
    print("a check may print")
    return checks.Verdict(float((answer.value or {}).get("total", 0) < 1000), "looked")

task = offapi.Task(
    name="totals",
    instructions="Read the total.",
    schema={"type": "object", "properties": {"total": {"type": "number"}}},
    checks={"json": (checks.is_json, 1.0), "low": (low, 1.0), "gold": (checks.matches_gold, 1.0)},
    match={"total": "number"},
)
