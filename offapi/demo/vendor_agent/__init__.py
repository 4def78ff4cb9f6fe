"""The example `vendor-agent`: receipts whose printed vendor must be looked up in a register."""
