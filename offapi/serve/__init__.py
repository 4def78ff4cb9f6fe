"""Runs and models behind an OpenAI-compatible server on this machine: `offapi serve`.

Left out: decoding, which is an engine's, and what a document's answer is (`offapi.predict`).
"""
