"""Pages of results for a browser, each whole in itself."""
