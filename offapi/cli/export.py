"""`offapi export`: a run in the form of another runtime, opened there again and compared."""

from __future__ import annotations

from pathlib import Path

import click

from offapi.cli.backend_option import backend_option
from offapi.cli.output import Output, options

FILE = click.Path(path_type=Path)


@click.command(short_help="Write a run in the form of another runtime, and check it there.")
@click.argument("run", metavar="RUN|MODEL")
@click.option(
    "--to",
    type=click.Choice(["adapter", "fused", "mlx", "gguf"]),
    required=True,
    help="Form: PEFT adapter, fused safetensors (transformers, vLLM), mlx-lm, or GGUF (llama.cpp,"
    " Ollama).",
)
@click.option("--out", type=FILE, required=True, help="Folder to create; it must not exist.")
@click.option(
    "--quantize",
    metavar="KIND",
    help="How weights are stored: 4 or 8 (bits) for mlx; f16, q8_0, q4_0 and others for gguf. "
    " [default: the base model's own dtype]",
)
@click.option(
    "--data",
    type=FILE,
    help="Documents with gold answers (JSONL), to measure what --quantize costs.  [default: the run's"
    " `val`]",
)
@backend_option("Library that computes what the export is compared with")
@options
def command(
    output: Output,
    *,
    run: str,
    to: str,
    out: Path,
    quantize: str | None,
    data: Path | None,
    backend: str | None,
) -> None:
    """Write a trained run in the form that another runtime opens, and check that it is the same.

    Use it when the student leaves offapi: for vLLM, transformers, mlx-lm, llama.cpp or Ollama. RUN
    is a run's folder or an adapter in it; MODEL is a local model's name or folder.

    What was written is opened again by the tool it is for, and compared with the run on fixed
    prompts: greedy tokens, and the largest difference of a log-probability. With --quantize,
    accuracy on documents with gold is measured before and after. Only an export that passes appears
    at --out, with a model card (README.md) and the same facts for programs (export.json).

    \b
    Examples:
      offapi export runs/student --to fused --out student
      offapi export runs/student --to mlx --quantize 8 --data test.jsonl --out student-8bit
      offapi export runs/student --to gguf --quantize q8_0 --out student-gguf
    """
    from offapi.export.export import ExportSettings, export

    settings = ExportSettings(
        run=run, to=to, out=out, quantize=quantize, data=data, backend=backend
    )
    done = export(settings, output)
    for line in done.lines():
        output.say(line)
    output.say(f"Exported: {out}")
    output.result({"out": str(out), **done.as_dict()})
