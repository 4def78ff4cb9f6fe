"""Write offapi/demo/parity.json: what transformers (eager, fp32, CPU) computes for the demo model.

It is independent of offapi's backends, so that each can be compared with it. Run it only when the
converted weights or the fixed sequences change: python scripts/demo_parity.py
"""

from __future__ import annotations

from pathlib import Path

from offapi.models import agreement, parity, store
from offapi.models.parity import ParityRecord
from offapi.models.safe_folder import check_config


def with_transformers(folder: Path) -> ParityRecord:
    """Return the record of the model in `folder`, computed by transformers."""
    return agreement.record_reference(folder, check_config(folder))


if __name__ == "__main__":
    model = store.add("demo")
    store.DEMO_PARITY.write_bytes(parity.encode_record(with_transformers(model.path)))
    print(f"wrote {store.DEMO_PARITY}")
