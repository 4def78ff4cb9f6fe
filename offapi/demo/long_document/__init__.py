"""The example `long-document`: an answer that stands in one place of many pages."""
