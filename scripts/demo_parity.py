"""Write offapi/demo/parity.json: what transformers (eager, fp32, CPU) computes for the demo model.

It is independent of offapi's backends, so that each can be compared with it. Run it only when the
converted weights or the fixed sequences change: python scripts/demo_parity.py
"""

from __future__ import annotations

from pathlib import Path

from offapi.models import parity, store


def with_transformers(folder: Path) -> parity.ParityRecord:
    """Return the record of the model in `folder`, computed by transformers."""
    import torch
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    )
    tokens = parity.parity_sequences(model.config.vocab_size)
    rows = []
    with torch.inference_mode():
        for sequence in tokens:
            ids = torch.tensor([sequence])
            logprobs = model(ids).logits[0, :-1].double().log_softmax(-1)
            picked = logprobs.gather(-1, ids[0, 1:, None])[:, 0]
            rows.append(tuple(round(value, 6) for value in picked.tolist()))
    by = (
        f"transformers {transformers.__version__}, torch {torch.__version__.partition('+')[0]},"
        " eager, fp32"
    )
    return parity.ParityRecord(by, tokens, tuple(rows))


if __name__ == "__main__":
    model = store.add("demo")
    store.DEMO_PARITY.write_bytes(parity.encode_record(with_transformers(model.path)))
    print(f"wrote {store.DEMO_PARITY}")
